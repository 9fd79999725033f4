"""What waits at the leader's door, for how long, and how it is answered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import cast

import trio
import trio.testing

from noti.completion import OnDone
from noti.errors import LocalError, NotiError, NotLeader, Overloaded
from noti.raft.core.events import Role
from noti.raft.core.messages import BACKLOG_MAX, AppendAccepted, NodeId
from noti.raft.core.pacing import Pacing
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX
from noti.raft.intake import HELD_BYTES_MAX, HELD_S_MAX, Intake
from noti.raft.replica import Replica
from noti.trio_clock import TrioClock


class Log:
    """A leader's log, which commits at once."""

    def __init__(self) -> None:
        self.role = Role.LEADER
        self.submitted: list[bytes] = []
        self._changed = trio.lowlevel.ParkingLot()

    def submit(self, command: bytes, on_done: OnDone[int], *, at_once: bool = False) -> None:
        if len(command) > ENTRY_DATA_BYTES_MAX:
            on_done(LocalError("too large"))
            return
        if self.role is Role.LEADER:
            self.submitted.append(command)
        on_done(1 if self.role is Role.LEADER else NotLeader("b"))

    def is_leader(self) -> bool:
        return self.role is Role.LEADER

    def is_ready_leader(self) -> bool:
        return self.role is Role.LEADER

    async def wait_leadership_changed(self) -> None:
        await self._changed.park()

    def becomes(self, role: Role) -> None:
        self.role = role
        self._changed.unpark_all()


@dataclass
class Door:
    """An intake at work."""

    log: Log = field(default_factory=Log)
    own: int = 0
    answers: dict[bytes, NotiError | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.pacing = Pacing(10.0, reported_within_s=1e9)
        replica = cast("Replica", self.log)
        self.intake = Intake("own", replica, self.pacing, TrioClock(), lambda: self.own)

    def submit(self, command: bytes) -> None:
        self.intake.submit(command, lambda outcome: self.note(command, outcome))

    def note(self, command: bytes, outcome: int | NotiError) -> None:
        assert command not in self.answers, "answered twice"
        self.answers[command] = outcome if isinstance(outcome, NotiError) else None

    def says(self, node_id: NodeId, backlog: int) -> None:
        self.intake.messages_received([AppendAccepted(node_id, 1, 0, 0, backlog)])

    def close(self) -> None:
        """All are full, and something has just passed."""
        for node_id in ("b", "c"):
            self.says(node_id, BACKLOG_MAX)
        self.own = BACKLOG_MAX
        self.submit(bytes(1024 * 1024))

    def open(self) -> None:
        self.own = 0
        for node_id in ("b", "c"):
            self.says(node_id, 1)


@asynccontextmanager
async def door() -> AsyncIterator[Door]:
    there = Door()
    async with trio.open_nursery() as nursery:
        await nursery.start(there.intake.run)
        await trio.testing.wait_all_tasks_blocked()
        yield there
        nursery.cancel_scope.cancel()


async def test_nothing_waits_while_browsers_follow(autojump_clock: trio.testing.MockClock) -> None:
    async with door() as there:
        there.open()
        for number in range(100):
            there.submit(b"%d" % number)
        assert len(there.log.submitted) == 100


async def test_what_waits_passes_in_order_when_browsers_have_caught_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.close()
        for command in (b"1", b"2", b"3"):
            there.submit(command)
        await trio.sleep(0.5)
        assert len(there.log.submitted) == 1
        assert there.intake.status()["held"] == 3
        there.open()
        await trio.testing.wait_all_tasks_blocked()
        assert there.log.submitted[1:] == [b"1", b"2", b"3"]
        assert there.answers[b"3"] is None
        assert there.intake.status()["held"] == 0


async def test_own_hub_slows_its_leader_down_without_a_message(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.own = BACKLOG_MAX
        there.submit(bytes(1024 * 1024))
        there.submit(b"1")
        await trio.sleep(1)
        assert len(there.log.submitted) == 1
        there.own = 1
        await trio.sleep(0.1)
        assert there.log.submitted[1:] == [b"1"]


async def test_looking_at_pressures_does_not_change_how_commands_are_paced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.says("b", 1)
        known = deepcopy(vars(there.pacing))
        there.own = BACKLOG_MAX
        assert there.intake.pressures() == {"own": 1.0, "b": 0.0}
        there.intake.status()
        assert vars(there.pacing) == known


async def test_what_waits_too_long_is_refused_and_never_proposed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.close()
        there.submit(bytes(ENTRY_DATA_BYTES_MAX))
        for number in range(100):
            there.submit(b"%d" % number)
        await trio.sleep(HELD_S_MAX + 0.1)
        refused = {c for c, failure in there.answers.items() if failure is not None}
        assert all(isinstance(there.answers[command], Overloaded) for command in refused)
        assert {b"%d" % number for number in range(100)} <= refused
        await trio.sleep(60)
        assert not refused.intersection(there.log.submitted)


async def test_what_waits_has_a_bounded_size(autojump_clock: trio.testing.MockClock) -> None:
    async with door() as there:
        there.close()
        for number in range(1, 33):
            there.submit(bytes([number]) * (HELD_BYTES_MAX // 32))
        assert len(there.answers) == 1
        there.submit(b"one more")
        assert isinstance(there.answers[b"one more"], Overloaded)
        there.open()
        await trio.testing.wait_all_tasks_blocked()
        there.submit(b"later")
        assert there.answers[b"later"] is None


async def test_command_that_is_too_large_is_its_callers_error_at_any_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.close()
        too_large = bytes(ENTRY_DATA_BYTES_MAX + 1)
        there.submit(too_large)
        assert isinstance(there.answers[too_large], LocalError)


async def test_what_waits_is_rejected_as_soon_as_somebody_else_leads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing was done, so its node sends it to the new leader."""
    async with door() as there:
        there.close()
        for command in (b"1", b"2"):
            there.submit(command)
        there.log.becomes(Role.FOLLOWER)
        await trio.testing.wait_all_tasks_blocked()
        assert isinstance(there.answers[b"1"], NotLeader)
        assert isinstance(there.answers[b"2"], NotLeader)
        there.submit(b"3")
        assert isinstance(there.answers[b"3"], NotLeader)
        assert there.intake.pressures() == {}


async def test_new_leadership_waits_for_nobody_who_was_full_in_the_last(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.close()
        there.own = 0
        for role in (Role.FOLLOWER, Role.LEADER):
            there.log.becomes(role)
            await trio.testing.wait_all_tasks_blocked()
        there.submit(b"1")
        assert there.answers[b"1"] is None


async def test_node_that_is_lost_holds_nothing_back(autojump_clock: trio.testing.MockClock) -> None:
    async with door() as there:
        there.close()
        there.own = 0
        there.submit(b"1")
        for node_id in ("b", "c"):
            there.intake.peer_lost(node_id)
        await trio.testing.wait_all_tasks_blocked()
        assert there.answers[b"1"] is None


async def test_bridge_waits_as_long_as_it_takes(autojump_clock: trio.testing.MockClock) -> None:
    """It has no deadline, and what it reads is safe where it comes from."""
    async with door() as there:
        there.close()
        for number in range(1, 8):
            there.submit(bytes([number]) * 1024 * 1024)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.intake.propose, b"1")
            await trio.sleep(HELD_S_MAX + 1)
            assert b"1" not in there.log.submitted
            there.open()
        assert there.log.submitted[-1] == b"1"


async def test_bridge_that_gives_up_leaves_nothing_that_is_proposed_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The next session brings it again, and in between others may come."""
    async with door() as there:
        there.close()
        with trio.move_on_after(1):
            await there.intake.propose(b"1")
        assert there.intake.status()["held"] == 0
        there.open()
        await trio.sleep(1)
        assert b"1" not in there.log.submitted


async def test_what_waits_when_the_node_stops_is_nobodys(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.close()
        there.submit(b"1")
    assert isinstance(there.answers[b"1"], NotLeader)


async def test_node_that_is_full_for_ever_is_named_and_waited_for_no_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with door() as there:
        there.says("c", 1)
        there.own = 1
        for number in range(150):
            there.says("b", BACKLOG_MAX)
            there.submit(b"%d" % number + bytes(100_000))
            await trio.sleep(0.1)
        assert there.intake.status()["disregarded"] == ["b"]
        assert there.intake.pressures()["b"] == 1.0
        before = len(there.log.submitted)
        for number in range(50):
            there.submit(b"after %d" % number)
        await trio.testing.wait_all_tasks_blocked()
        assert len(there.log.submitted) >= before + 50
