"""The core at work: one task for consensus, one for the disk, and those who wait."""

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from noti.errors import (
    LocalError,
    MessageInvalid,
    NotLeader,
    Overloaded,
    ProposalUncertain,
    StorageFailed,
)
from noti.raft.applier import APPLY_SLICE
from noti.raft.core.config import RaftConfig
from noti.raft.core.events import Role
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRequest,
    LeaderMessage,
    Message,
    NodeId,
    PeerMessage,
)
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX
from noti.raft.core.snapshot import split
from noti.raft.health import LEADERLESS_GRACE_S
from noti.raft.replica import Replica
from noti.raft.storage.wal import Wal
from noti.trio_clock import TrioClock
from tests import promises
from tests.simulation.memory_disk import MemoryDisk


class Commands:
    """A state machine that remembers what it was told."""

    def __init__(self) -> None:
        self.applied: list[bytes] = []

    def apply(self, command: bytes, log_index: int) -> None:
        self.applied.append(command)

    def snapshot_pieces(self) -> Iterator[bytes]:
        return iter(split(b"\n".join(self.applied), 200))

    def restore(self, state: object) -> None:
        assert isinstance(state, bytes)
        self.applied = state.split(b"\n") if state else []


class Machine:
    """A node: its disk outlives its replica."""

    def __init__(self, world: "Wires", name: str, *, disk_s: float = 0.0) -> None:
        self.world = world
        self.name = name
        self.disk = MemoryDisk(sleep=trio.sleep, latency_s=(disk_s, disk_s))
        self.state = Commands()
        self.starts = 0
        self.full = 0
        self.flushes: list[tuple[Message, int]] = []
        """The last message, and how many commands had been applied, when messages left."""
        self.scope = trio.CancelScope()
        self.running: Replica | None = None

    @property
    def replica(self) -> Replica:
        assert self.running is not None
        return self.running

    def send(self, to: NodeId, message: PeerMessage) -> bool:
        assert not isinstance(message, LeaderMessage)
        self.world.send(self.name, to, message)
        return True

    def flush(self) -> None:
        self.flushes.append((self.world.sent[-1], len(self.state.applied)))

    def connected(self) -> frozenset[NodeId]:
        return frozenset(self.world.machines) - {self.name}

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED, **options: int
    ) -> None:
        self.starts += 1
        self.state = Commands()
        wal, recovered = await Wal.open(self.disk)
        if recovered.snapshot is not None:
            self.state.restore(b"".join(recovered.snapshot.pieces))
        core = Raft(
            RaftConfig(self.name, uncommitted_bytes_max=1000, keep_entries=5),
            recovered.hard_state,
            snapshot=recovered.snapshot,
            entries=recovered.entries,
            rng=random.Random(f"{self.name}:{self.starts}"),
            now=trio.current_time(),
        )
        clock = TrioClock()
        self.running = Replica(core, wal, self.state, clock, backlog=lambda: self.full, **options)
        self.running.bootstrap(Configuration("c", tuple(self.world.machines)))
        with trio.CancelScope() as self.scope:
            await self.running.run(self, task_status=task_status)


class Wires:
    """Machines that hear each other at once, unless a wire is cut."""

    def __init__(self, size: int, *, disk_s: float = 0.0) -> None:
        names = [f"n{number}" for number in range(1, size + 1)]
        self.machines = {name: Machine(self, name, disk_s=disk_s) for name in names}
        self.cut: set[str] = set()
        self.sent: list[Message] = []

    def send(self, sender: str, to: str, message: Message) -> None:
        self.sent.append(message)
        replica = self.machines[to].running
        if not self.cut & {sender, to} and replica is not None:
            replica.messages_received([message])

    def leader(self) -> Machine | None:
        for machine in self.machines.values():
            if machine.running is not None and machine.running.is_ready_leader():
                return machine
        return None

    async def wait_leader(self) -> Machine:
        with trio.fail_after(20):
            while (leader := self.leader()) is None:  # noqa: ASYNC110 - a condition over several nodes
                await trio.sleep(0.01)
        return leader


@asynccontextmanager
async def alone(disk_s: float = 0.0, **options: int) -> AsyncIterator[Machine]:
    wires = Wires(1, disk_s=disk_s)
    async with trio.open_nursery() as nursery:
        machine = wires.machines["n1"]
        await nursery.start(lambda task_status: machine.run(task_status=task_status, **options))
        await wires.wait_leader()
        yield machine
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def three(disk_s: float = 0.0) -> AsyncIterator[Wires]:
    wires = Wires(3, disk_s=disk_s)
    async with trio.open_nursery() as nursery:
        for machine in wires.machines.values():
            await nursery.start(machine.run)
        await wires.wait_leader()
        yield wires
        nursery.cancel_scope.cancel()


async def test_proposal_returns_when_it_is_committed_and_applied_here(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        await leader.replica.propose(b"x")
        assert leader.state.applied == [b"x"]
        await trio.sleep(0.2)
        assert all(machine.state.applied == [b"x"] for machine in wires.machines.values())


async def test_follower_refuses_a_proposal_and_names_the_leader(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        await trio.sleep(0.5)
        follower = next(m for m in wires.machines.values() if m is not leader)
        with pytest.raises(NotLeader) as refused:
            await follower.replica.propose(b"x")
        assert refused.value.leader == leader.name


async def test_proposals_of_a_leader_that_is_cut_off_end_as_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        wires.cut.add(leader.name)
        with trio.fail_after(2), pytest.raises(ProposalUncertain):
            await leader.replica.propose(b"lost")
        assert not leader.replica.is_ready_leader()
        await trio.sleep(2)
        wires.cut.clear()
        successor = await wires.wait_leader()
        await successor.replica.propose(b"won")
        await trio.sleep(1)
        assert all(machine.state.applied == [b"won"] for machine in wires.machines.values())


@promises.BACKLOG_REJECTED
async def test_proposal_beyond_the_backlog_is_refused_while_the_others_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        wires.cut.add(leader.name)
        async with trio.open_nursery() as nursery:

            async def first() -> None:
                with pytest.raises(ProposalUncertain):
                    await leader.replica.propose(bytes(900))

            nursery.start_soon(first)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(Overloaded, match=r"backlog .* is full; retry later"):
                await leader.replica.propose(bytes(101))


@promises.TOO_LARGE_NEVER_LOGGED
async def test_command_too_large_for_the_log_never_reaches_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Every node that took it in would fail to write it."""
    async with alone() as machine:
        with pytest.raises(LocalError):
            await machine.replica.propose(bytes(ENTRY_DATA_BYTES_MAX + 1))
        await machine.replica.propose(b"small")


async def test_proposer_that_gives_up_harms_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with alone(disk_s=0.05) as machine:
        with trio.move_on_after(0.01):
            await machine.replica.propose(b"impatient")
        await machine.replica.propose(b"patient")
        assert machine.state.applied == [b"impatient", b"patient"]
        assert machine.replica._requests.outstanding == 0


async def test_whatever_comes_while_the_disk_writes_is_the_next_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with alone(disk_s=0.1) as machine:
        before = machine.disk.operations
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(machine.replica.propose, b"first")
            await trio.sleep(0.01)
            for number in range(50):
                nursery.start_soon(machine.replica.propose, b"%d" % number)
                await trio.sleep(0.001)
        assert machine.disk.operations - before == 2
        assert trio.current_time() - started == pytest.approx(0.2)
        assert len(machine.state.applied) == 51


async def test_followers_get_entries_while_the_leader_still_writes_them(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three(disk_s=0.1) as wires:
        leader = await wires.wait_leader()
        wires.sent.clear()
        started = trio.current_time()
        await leader.replica.propose(b"x")
        assert trio.current_time() - started == pytest.approx(0.1), (
            "one write, not one after another"
        )
        assert any(isinstance(m, AppendRequest) and m.entries for m in wires.sent)


@pytest.mark.parametrize(("bound_bytes", "applied"), [(4096, 1), (0, 0)])
async def test_small_commits_are_applied_before_the_others_hear_of_them_and_large_ones_after(
    bound_bytes: int,
    applied: int,
    autojump_clock: trio.testing.MockClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noti.raft.replica.APPLIED_FIRST_BYTES", bound_bytes)
    async with three() as wires:
        leader = await wires.wait_leader()
        for machine in wires.machines.values():
            machine.disk.latency_s = (0.0, 0.0) if machine is leader else (0.001, 0.001)
        await leader.replica.propose(b"one")
        commit = leader.replica.status().commit_index
        told = [had for sent, had in leader.flushes if getattr(sent, "commit", 0) == commit]
        assert told[0] == applied


async def test_restart_from_disk_knows_everything_that_was_acknowledged(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wires = Wires(1)
    machine = wires.machines["n1"]
    for number in range(3):
        async with trio.open_nursery() as nursery:
            await nursery.start(machine.run)
            await wires.wait_leader()
            assert machine.state.applied == [b"%d" % earlier for earlier in range(number)]
            await machine.replica.propose(b"%d" % number)
            machine.disk = machine.disk.crash()
            nursery.cancel_scope.cancel()


@promises.LOG_COMPACTED
async def test_snapshot_is_taken_after_so_much_log_and_a_restart_uses_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with alone(snapshot_every_bytes=300) as machine:
        for number in range(35):
            await machine.replica.propose(b"%d" % number)
        await trio.sleep(1)
        assert "snapshot" in machine.disk.files
        assert machine.replica.status().first_index > 20
        expected = list(machine.state.applied)
    async with trio.open_nursery() as nursery:
        await nursery.start(machine.run)
        assert 20 < len(machine.state.applied) < 35, "from the snapshot, the rest from the log"
        await machine.world.wait_leader()
        assert machine.state.applied == expected
        nursery.cancel_scope.cancel()


@promises.LOG_COMPACTED
async def test_snapshot_is_taken_only_after_as_much_log_as_the_last_one_had(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with alone(snapshot_every_bytes=500) as machine:
        await machine.replica.propose(bytes(300))
        await trio.sleep(1)
        assert "snapshot" not in machine.disk.files
        await machine.replica.propose(bytes(900))
        await trio.sleep(1)
        first = bytes(machine.disk.files["snapshot"])
        assert len(first) > 1200
        await machine.replica.propose(bytes(600))
        await trio.sleep(1)
        assert machine.disk.files["snapshot"] == first
        await machine.replica.propose(bytes(600))
        await trio.sleep(1)
        assert machine.disk.files["snapshot"] != first


async def test_disk_that_fails_ends_the_replica_and_all_who_wait(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wires = Wires(1, disk_s=0.01)
    machine = wires.machines["n1"]
    ended = trio.Event()

    async def live() -> None:
        with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True):
            await machine.run()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(live)
        await wires.wait_leader()
        machine.disk.fail_next()
        with trio.fail_after(5), pytest.raises(ProposalUncertain):
            await machine.replica.propose(b"x")
        await ended.wait()
    assert machine.state.applied == []


async def test_nothing_is_healthy_before_it_has_caught_up_and_after_losing_the_leader_for_long(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wires = Wires(3)
    async with trio.open_nursery() as nursery:
        for name in ("n1", "n2"):
            await nursery.start(wires.machines[name].run)
        await wires.wait_leader()
        wires.cut.add("n3")
        late = wires.machines["n3"]
        await nursery.start(late.run)
        await trio.sleep(20)
        assert not late.replica.is_healthy()
        wires.cut.clear()
        await trio.sleep(2)
        assert late.replica.is_healthy()
        wires.cut.add("n3")
        await trio.sleep(LEADERLESS_GRACE_S / 2)
        assert late.replica.is_healthy(), "an election is no reason to send browsers away"
        await trio.sleep(LEADERLESS_GRACE_S)
        assert not late.replica.is_healthy()
        nursery.cancel_scope.cancel()


@promises.LEADERSHIP_HANDED_OVER
async def test_leadership_is_handed_over_within_a_heartbeat(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        await trio.sleep(0.5)
        started = trio.current_time()
        await leader.replica.hand_over()
        successor = await wires.wait_leader()
        assert successor is not leader
        assert trio.current_time() - started < 0.1
        await leader.replica.hand_over()
        assert leader.replica.status().role is Role.FOLLOWER


async def test_single_node_hands_nothing_over(autojump_clock: trio.testing.MockClock) -> None:
    async with alone() as machine:
        await machine.replica.hand_over()
        assert machine.replica.is_ready_leader()


async def test_change_of_leadership_wakes_those_who_wait_for_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        wires.cut.add(leader.name)
        with trio.fail_after(2):
            while leader.replica.is_ready_leader():
                await leader.replica.wait_leadership_changed()


async def test_nothing_counts_as_applied_before_the_state_machine_has_it(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long replay lets others run meanwhile. Found by: just sim seed=1003 layer=nodes (a browser
    was told of a gap that was none)"""
    machine = Wires(1).machines["n1"]
    total = 3 * APPLY_SLICE
    had_when_read: list[int] = []
    led: list[bool] = []

    async def read(index: int) -> None:
        await machine.replica.wait_applied(index)
        had_when_read.append(len(machine.state.applied))

    async with trio.open_nursery() as nursery:
        await nursery.start(machine.run)
        await machine.world.wait_leader()
        for number in range(total):
            await machine.replica.propose(b"%d" % number)
        last_index = machine.replica.status().applied_index
        machine.scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

        def apply(self: Commands, command: bytes, log_index: int) -> None:
            if not self.applied:
                nursery.start_soon(read, last_index)
            self.applied.append(command)
            led.append(machine.replica.is_ready_leader())

        monkeypatch.setattr(Commands, "apply", apply)
        await nursery.start(machine.run)
        await machine.world.wait_leader()
        nursery.cancel_scope.cancel()
    assert had_when_read == [total]
    assert not any(led)


async def test_what_fails_in_a_peers_turn_ends_the_replica_and_not_the_peer(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by a planted bug: the failure went to the reader of the peer's stream, and the task
    that owns the core went round for ever."""

    def apply(self: Commands, command: bytes, log_index: int) -> None:
        raise MessageInvalid("not a command")

    wires = Wires(2)
    ended: list[str] = []

    async def live(machine: Machine) -> None:
        with pytest.RaisesGroup(MessageInvalid, flatten_subgroups=True):
            await machine.run()
        ended.append(machine.name)

    async with trio.open_nursery() as nursery:
        for machine in wires.machines.values():
            nursery.start_soon(live, machine)
        leader = await wires.wait_leader()
        monkeypatch.setattr(Commands, "apply", apply)
        with pytest.raises(ProposalUncertain):
            await leader.replica.propose(b"x")
    assert sorted(ended) == sorted(wires.machines)


async def test_append_answers_report_how_full_this_node_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        follower = next(m for m in wires.machines.values() if m is not leader)
        follower.full = 9
        wires.sent.clear()
        await leader.replica.propose(b"x")
        await trio.sleep(0.5)
        answers = [m for m in wires.sent if isinstance(m, AppendAccepted)]
        assert {m.backlog for m in answers if m.sender == follower.name} == {9}
        assert {m.backlog for m in answers if m.sender != follower.name} == {0}


async def test_hand_over_that_nobody_takes_ends_when_the_core_gives_it_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with three() as wires:
        leader = await wires.wait_leader()
        await trio.sleep(0.5)
        for name in wires.machines:
            if name != leader.name:
                wires.machines[name].scope.cancel()
        started = trio.current_time()
        await leader.replica.hand_over()
        assert trio.current_time() - started <= RaftConfig("n1").election_timeout_s
