"""The leader raises the level once all members support more, and not before."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from noti.membership.level_raising import LOOK_EVERY_S, LevelRaising
from noti.raft.core.messages import NodeId
from tests.publishing.replicated_log import ReplicatedLog
from tests.simulation.clocks import MachineClock


@asynccontextmanager
async def raising(
    replicated: ReplicatedLog, supported: dict[NodeId, int], level_max: int = 1
) -> AsyncIterator[None]:
    one = LevelRaising(
        replicated, replicated.store, lambda: "abc", lambda: supported, MachineClock(),
        level_max=level_max,
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(one.run)
        yield
        nursery.cancel_scope.cancel()


def the_log(*, leader: bool = True) -> ReplicatedLog:
    return ReplicatedLog(random.Random(1), leader=leader)


async def test_level_rises_once_as_soon_as_the_last_member_supports_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicated, supported = the_log(), {"a": 1, "b": 1, "c": 0, "stranger": 0}
    async with raising(replicated, supported):
        await trio.sleep(10)
        assert replicated.proposals == 0
        supported["c"] = 1
        await trio.sleep(2 * LOOK_EVERY_S)
        assert replicated.store.level == 1
        await trio.sleep(10)
    assert replicated.proposals == 1


@pytest.mark.parametrize(
    ("supported", "level_max", "leader"),
    [
        ({"a": 1, "b": 1}, 1, True),
        ({"a": 1, "b": 1, "c": 1}, 0, True),
        ({"a": 1, "b": 1, "c": 1}, 1, False),
    ],
    ids=["a member is away", "a setting holds it", "another node leads"],
)
async def test_level_stays(
    autojump_clock: trio.testing.MockClock,
    supported: dict[NodeId, int],
    level_max: int,
    leader: bool,
) -> None:
    replicated = the_log(leader=leader)
    async with raising(replicated, supported, level_max):
        await trio.sleep(10)
    assert replicated.proposals == 0


async def test_level_that_could_not_be_written_is_written_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    replicated = the_log()
    replicated.refuse = 0.7
    replicated.uncertain = 0.7
    async with raising(replicated, {"a": 1, "b": 1, "c": 1}):
        await trio.sleep(100)
    assert replicated.store.level == 1
    assert replicated.proposals > 1
