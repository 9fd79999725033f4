"""The leader writes the configured limits into the log, once."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing

from noti.publishing.limits import Limits
from tests.publishing.replicated_log import ReplicatedLog


@asynccontextmanager
async def limits(replicated: ReplicatedLog, wanted: int) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        watching = Limits(replicated, lambda: replicated.store.limits.count, wanted)
        await nursery.start(watching.run)
        yield
        nursery.cancel_scope.cancel()


def the_log(*, leader: bool = True) -> ReplicatedLog:
    return ReplicatedLog(random.Random(1), leader=leader)


async def test_leader_sets_the_limit_once(autojump_clock: trio.testing.MockClock) -> None:
    replicated = the_log()
    async with limits(replicated, 7):
        await trio.sleep(10)
    assert replicated.store.limits.count == 7
    assert replicated.proposals == 1


async def test_nothing_is_written_when_the_limit_is_right_already(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicated = the_log()
    async with limits(replicated, replicated.store.limits.count):
        await trio.sleep(10)
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
