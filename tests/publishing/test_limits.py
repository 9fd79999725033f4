"""The leader writes the configured limits into the log, once."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from noti.history.commands import Publish, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.history.notification import Event
from noti.publishing.limits import Limits
from tests.publishing.replicated_log import ReplicatedLog
from tests.simulation.clocks import MachineClock


@asynccontextmanager
async def limits(replicated: ReplicatedLog, wanted: int, age_s: int = 0) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        all_limits = HistoryLimits(wanted, 10**6, age_s * 1000, 2, 3)
        watching = Limits(replicated, replicated.store, all_limits, MachineClock())
        await nursery.start(watching.run)
        yield
        nursery.cancel_scope.cancel()


def the_log(*, leader: bool = True) -> ReplicatedLog:
    return ReplicatedLog(random.Random(1), leader=leader)


async def test_leader_sets_the_limit_once(autojump_clock: trio.testing.MockClock) -> None:
    replicated = the_log()
    async with limits(replicated, 7):
        await trio.sleep(10)
    assert replicated.store.limits == HistoryLimits(7, 10**6, 0, 2, 3)
    assert replicated.proposals == 1


async def test_nothing_is_written_when_the_limit_is_right_already(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicated = the_log()
    replicated.store.apply(encode(SetLimits(HistoryLimits(7, 10**6, 0, 2, 3))))
    async with limits(replicated, 7):
        await trio.sleep(10)
    assert replicated.proposals == 0


async def test_old_events_expire_and_the_leader_proposes_only_when_there_are_any(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicated = the_log()
    clock = MachineClock()
    async with limits(replicated, 7, age_s=60):
        for number in range(3):
            event = Event(0, f"id {number}", ("t",), "", 0)
            replicated.store.apply(encode(Publish((event,), clock.wall_ms())))
            await trio.sleep(30)
        assert [n.id for n in replicated.store.history()] == ["id 1", "id 2"]
        proposals = replicated.proposals
        assert proposals == 2, "the limits, and one expiry"
        await trio.sleep(200)
        assert replicated.store.history() == ()
        assert replicated.proposals == proposals + 2


async def test_follower_lets_nothing_expire(autojump_clock: trio.testing.MockClock) -> None:
    replicated = the_log(leader=False)
    replicated.store.apply(encode(Publish((Event(0, "a", ("t",), "", 0),), 0)))
    async with limits(replicated, 7, age_s=1):
        await trio.sleep(100)
    assert replicated.proposals == 0


async def test_follower_waits_until_it_leads(autojump_clock: trio.testing.MockClock) -> None:
    replicated = the_log(leader=False)
    async with limits(replicated, 7):
        await trio.sleep(10)
        assert replicated.proposals == 0
        replicated.set_leader(True)
        await trio.sleep(1)
        assert replicated.store.limits.count == 7


async def test_refused_limit_is_tried_again_although_leadership_does_not_change(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicated = the_log()
    replicated.refuse = 1.0
    async with limits(replicated, 7):
        await trio.sleep(10)
        assert 5 <= replicated.proposals <= 12, "patiently"
        replicated.refuse = 0.0
        await trio.sleep(2)
    assert replicated.store.limits.count == 7


async def test_uncertain_limit_is_set_in_the_end(autojump_clock: trio.testing.MockClock) -> None:
    replicated = the_log()
    replicated.uncertain = 0.8
    async with limits(replicated, 7):
        await trio.sleep(60)
    assert replicated.store.limits.count == 7


async def test_other_limits_are_written_as_soon_as_they_are_wanted(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicated = the_log()
    async with trio.open_nursery() as nursery:
        watching = Limits(
            replicated, replicated.store, HistoryLimits(7, 10**6, 0, 2, 3), MachineClock()
        )
        await nursery.start(watching.run)
        await trio.sleep(10)
        wanted = HistoryLimits(8, 10**6, 0, 2, 3)
        watching.change(wanted)
        await trio.sleep(0.1)
        assert replicated.store.limits == wanted
        nursery.cancel_scope.cancel()
