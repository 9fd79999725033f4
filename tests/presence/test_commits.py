"""Commands that are repeated until they are committed."""

import random

import pytest
import trio
import trio.testing

from noti.errors import NotLeader, Overloaded, ProposalUncertain
from noti.history.subscription_commands import EndNode
from noti.presence.commits import ANSWER_WITHIN_S, Commits
from noti.trio_clock import TrioClock
from tests.presence.memory_log import MemoryLog

COMMAND = EndNode("n1", "life", 5)


def commits_to(log: MemoryLog) -> Commits:
    return Commits(log, TrioClock(), random.Random(1))


async def test_command_is_committed(autojump_clock: trio.testing.MockClock) -> None:
    log = MemoryLog()
    await commits_to(log).commit(COMMAND)
    assert log.committed == [COMMAND]


@pytest.mark.parametrize("done", [False, True])
async def test_uncertain_command_is_repeated_until_it_is_certain(
    done: bool, autojump_clock: trio.testing.MockClock
) -> None:
    log = MemoryLog()
    log.troubles += [(done, ProposalUncertain("lost")), (False, Overloaded("full"))]
    await commits_to(log).commit(COMMAND)
    assert log.committed == [COMMAND] * (2 if done else 1)


async def test_it_waits_for_a_leader_and_goes_on_with_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    log.leader = False
    log.troubles.append((False, NotLeader(None)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits_to(log).commit, COMMAND)
        await trio.sleep(60)
        assert log.committed == []
        log.elect()
    assert log.committed == [COMMAND]


async def test_answer_that_does_not_come_is_not_waited_for_without_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    log.holds = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(commits_to(log).commit, COMMAND)
        await trio.sleep(ANSWER_WITHIN_S / 2)
        assert len(log.held) == 1
        await trio.sleep(ANSWER_WITHIN_S)
        assert len(log.held) == 2
        log.commit_held()
        log.commit_held()
