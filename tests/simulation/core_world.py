"""The Raft core's machines and network, in virtual time, with all that a storm can do to them.

The cluster checks itself at every step, without Trio and real time. What goes wrong is chosen by
`core_storm.py`.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from noti.raft.core.config import RaftConfig
from noti.raft.core.events import (
    DiskOutdated,
    Effect,
    EntriesRead,
    Event,
    Persist,
    Persisted,
    PersistSnapshot,
    ProposalRejected,
    ReadEntries,
    ReadReady,
    ReadRequested,
    RestoreSnapshot,
    Role,
    RoleChanged,
    VoterForgot,
)
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Message,
    SnapshotChunk,
    TimeoutNow,
)
from tests.raft.core.cluster import Cluster, Node
from tests.raft.storage.disk_image import DiskImage
from tests.simulation.faults import CoreSwarm, draw_rate
from tests.simulation.timeline import Timeline


class Machine(Node):
    """A node with a clock of its own rate, a disk that tears, and a process that can be frozen."""

    cluster: "StormyCluster"

    def __init__(self, cluster: "StormyCluster", name: str) -> None:
        super().__init__(cluster, name)
        rng = random.Random(f"{cluster.seed}:{name}:machine")
        self.rate = draw_rate(rng, cluster.swarm.clock_spread)
        self.disk_delay_s: tuple[float, float] | None = None
        self.frozen = False
        self._held: list[Event] = []
        self._pending: list[Persist | PersistSnapshot] = []
        self._writing = 0
        """How many of the pending orders the disk has begun with."""
        self._hung_until = 0.0
        self.copied_disk: DiskImage | None = None
        """What somebody copied from its disk while it ran."""
        self.forgets = False
        """Its disk is an old copy."""
        self.outdated = False
        """It said so itself."""
        self.forgetful: set[str] = set()
        """Of whom it said so, as their leader."""

    def now(self) -> float:
        return self.cluster.now * self.rate

    def world_time(self, own_time: float) -> float:
        # A little late, so that rounding cannot make it early, for ever.
        return own_time / self.rate + 1e-9

    def idle(self) -> bool:
        """Whether it runs and its disk has nothing to do."""
        return self.core is not None and not self.frozen and not self._pending

    def matches(self) -> dict[str, int]:
        """As a leader: up to where others have the log on disk, as far as it knows."""
        return dict(self.running.status().followers)

    def hang_disk(self, seconds: float) -> None:
        """Let the disk say nothing for so long; then it does all that it was asked for."""
        self._hung_until = self.cluster.now + seconds

    def hangs(self) -> bool:
        return self.cluster.now < self._hung_until

    def heal_disk(self) -> None:
        self._hung_until, self.disk_delay_s = 0.0, None

    def missed(self, event: Event) -> None:
        if not self.outdated:  # otherwise the driver has ended it
            self._held.append(event)

    def freeze(self) -> None:
        """SIGSTOP: the disk goes on, the process does not."""
        self.frozen = self.deaf = True

    def thaw(self) -> None:
        self.frozen, self.deaf = False, self.outdated
        held, self._held = self._held, []
        for event in held:
            self.step(event)

    def crash(self) -> None:
        """Kill -9 and a power cut: of what the disk was not done with, anything may be there."""
        rng, timeline = self.cluster.rng, self.cluster.timeline
        done = rng.randint(0, self._writing)
        for order in self._pending[:done]:
            self.disk.carry_out(order)
        if done < self._writing:
            timeline.reach("a write was lost in a crash")
            torn = self._pending[done]
            if isinstance(torn, Persist) and len(torn.entries) > 1:
                kept = torn.entries[: rng.randint(1, len(torn.entries) - 1)]
                self.disk.carry_out(Persist(torn.batch, torn.hard_state, kept))
                timeline.reach("a write was torn in a crash")
        if done:
            timeline.reach("a write was complete, and not reported, in a crash")
        self._pending.clear()
        self._writing = 0
        self._held.clear()
        self.frozen, self.deaf = False, self.outdated
        self._hung_until = 0.0
        super().crash()

    def start(self) -> None:
        self.outdated, self.deaf, self.promises = False, self.frozen, True
        super().start()

    def forgetting(self, noticed: DiskOutdated | VoterForgot) -> None:
        if isinstance(noticed, DiskOutdated):
            assert self.forgets, f"{self.name} believes to have forgotten something: {noticed}"
            self.outdated = self.deaf = True
            self.promises = False
        elif self.cluster.machine_of(self.cluster.nodes[noticed.voter]).forgets:
            self.forgetful.add(noticed.voter)
        else:
            # What it said before a crash may come after what it said since, and say otherwise.
            assert self.cluster.stragglers, f"{self.name} believes {noticed}"

    def order_read(self, order: ReadEntries) -> None:
        timeline, rng = self.cluster.timeline, self.cluster.rng
        timeline.reach("entries were read back")
        if order.reader is None:
            timeline.reach("entries were read back to be applied")
        stale = rng.random() < self.cluster.swarm.stale_reads
        read = self.disk.read(order, stale=stale)
        if stale and read != self.disk.read(order):
            timeline.reach("entries were read back that others had replaced")
        delay_s = rng.uniform(*(self.disk_delay_s or self.cluster.disk_delay_s))
        self.cluster.later(delay_s, self.finish_read, self.incarnation, read)

    def finish_read(self, incarnation: int, read: EntriesRead) -> None:
        if incarnation == self.incarnation and any(
            self.running._log.term_at(entry.index) != entry.term for entry in read.entries
        ):
            self.cluster.timeline.reach("what was read back was in the log no more")
        self.report(incarnation, read)

    def order_disk(self, order: Persist | PersistSnapshot) -> None:
        self._pending.append(order)
        if not self._writing:
            self._begin_write()

    def _begin_write(self) -> None:
        """Write all that waits at once, as the replica does; a snapshot goes alone."""
        snapshots = (
            n for n, order in enumerate(self._pending) if isinstance(order, PersistSnapshot)
        )
        self._writing = max(1, next(snapshots, len(self._pending)))
        delay_s = self.cluster.rng.uniform(*(self.disk_delay_s or self.cluster.disk_delay_s))
        self.cluster.later(delay_s, self._end_write, self.incarnation)

    def _end_write(self, incarnation: int) -> None:
        if incarnation != self.incarnation:
            return
        if self.hangs():
            wait_s = min(0.5, self._hung_until - self.cluster.now)
            self.cluster.later(wait_s, self._end_write, incarnation)
            return
        written, self._pending = self._pending[: self._writing], self._pending[self._writing :]
        self._writing = 0
        for order in written:
            self.disk.carry_out(order)
        if self._pending:
            self._begin_write()
        self.step(Persisted(written[-1].batch))

    def perform(self, effect: Effect) -> None:
        cluster, timeline = self.cluster, self.cluster.timeline
        match effect:
            case RoleChanged(role, term, leader):
                timeline.note(
                    self.name, f"{role.value} in term {term}, leader {leader or 'unknown'}"
                )
                cluster.note_role(self, role)
            case RestoreSnapshot(snapshot):
                timeline.note(self.name, f"state replaced by a snapshot at {snapshot.index}")
                timeline.reach("a snapshot was installed")
                if len(cluster.delivered_chunks(self.name)) > 1:
                    timeline.reach("a snapshot came in several pieces")
                if self.running.status().configuration.outgoing:
                    timeline.reach("a snapshot was installed in a joint configuration")
            case Persist(entries=(first, *_)) if first.index <= self.disk.last_index():
                timeline.reach("entries were replaced by another leader's")
            case ProposalRejected(backlog_full=True):
                timeline.reach("a proposal was refused because the backlog was full")
            case ReadReady(request, index):
                assert index >= cluster.reads[request], "a read would miss what was committed"
                timeline.reach("a read was confirmed")
            case _:
                pass
        super().perform(effect)
        if isinstance(effect, RestoreSnapshot):
            cluster.check_state(self)


class StormyCluster(Cluster):
    """The world of the core layer."""

    node_type = Machine
    nodes: dict[str, Machine]  # type: ignore[assignment]

    def __init__(self, seed: int, swarm: CoreSwarm, show: Callable[[str], None] | None) -> None:
        self.swarm = swarm
        self.duplicates, self.stragglers = swarm.duplicates, swarm.stragglers
        self.timeline = Timeline(lambda: self.now, show)
        self.reads: dict[int, int] = {}
        """Request, and what was committed anywhere when it was made."""
        self.gone: set[str] = set()
        """Machines whose disk was lost: nobody with that id returns."""
        self._chunks: dict[str, list[int]] = {}
        self._last_leader = ""
        if swarm.clock_spread:
            self.timeline.reach("clocks ran at different rates")
        super().__init__(
            swarm.size,
            seed,
            snapshot_every=swarm.snapshot_every,
            keep_entries=swarm.keep_entries,
        )
        self.piece_bytes = swarm.chunk_bytes
        self.snapshot_delays_s = (0.0, 0.02, 0.2)

    def config(self, name: str) -> RaftConfig:
        return RaftConfig(
            name,
            keep_entries=self.keep_entries,
            log_memory_bytes=self.swarm.log_memory_bytes,
            snapshot_window_bytes=2 * self.swarm.chunk_bytes,
            append_bytes_max=self.swarm.append_bytes_max,
            in_flight_messages_max=self.swarm.in_flight_max,
            uncommitted_bytes_max=self.swarm.uncommitted_bytes_max,
        )

    def read(self, node: Node) -> int:
        request = next(self._requests)
        self.reads[request] = self._commit_max
        node.step(ReadRequested((request,)))
        return request

    def send(self, sender: str, to: str, message: Message) -> None:
        if not (type(message) is AppendAccepted or _is_heartbeat(message)):
            self._tell(sender, to, message)
        if self.stragglers and self.rng.random() < self.stragglers:
            self._send_out_of_order(sender, to, message)
        else:
            super().send(sender, to, message)
        duplicates = self.duplicates
        if duplicates and self.connected(sender, to) and self.rng.random() < duplicates:
            incarnations = (self.nodes[sender].incarnation, self.nodes[to].incarnation)
            again = partial(self.deliver, sender, to, incarnations, message)
            self.later(self.rng.uniform(0.0, self.swarm.late_s), again)
            self.timeline.reach("a message came twice")

    def _send_out_of_order(self, sender: str, to: str, message: Message) -> None:
        """What is sent later may come earlier, and the stream it was sent on be gone."""
        self.trace.append((self.now, sender, to, type(message).__name__, message.term))
        if self.connected(sender, to) and not (self.loss and self.loses()):
            incarnations = (self.nodes[sender].incarnation, self.nodes[to].incarnation)
            straggler = partial(self.deliver, sender, to, incarnations, message)
            self.later(self.rng.uniform(0.0, self.swarm.late_s), straggler)
            self.timeline.reach("a message was sent out of order")

    def loses(self) -> bool:
        lost = super().loses()
        if lost:
            self.timeline.reach("a message was lost")
        return lost

    def _tell(self, sender: str, to: str, message: Message) -> None:
        match message:
            case AppendRequest(entries=(first, *_)):
                what = f"entries {first.index}..{message.entries[-1].index}"
            case AppendRejected():
                what = f"refusal at {message.rejected_index}, hint {message.hint_index}"
            case TimeoutNow():
                what = "TimeoutNow"
                if self.blocked or self.loss:
                    self.timeline.reach("leadership was handed over under a broken network")
            case _:
                what = f"{type(message).__name__} {_brief(message)}"
        self.timeline.note(sender, f"> {to} {what} in term {message.term}")

    def deliver(
        self, sender: str, to: str, incarnations: tuple[int, int], message: Message
    ) -> None:
        if isinstance(message, SnapshotChunk):
            if message.offset == 0:
                self._chunks[to] = []
            self._chunks.setdefault(to, []).append(message.offset)
        super().deliver(sender, to, incarnations, message)

    def delivered_chunks(self, name: str) -> list[int]:
        return self._chunks.get(name, [])

    def note_role(self, machine: Machine, role: Role) -> None:
        timeline, configuration = self.timeline, machine.running.status().configuration
        if role is not Role.LEADER:
            return
        timeline.reach("a leader was elected")
        if self.blocked:
            timeline.reach("a leader was elected while a link was cut")
        if configuration.outgoing:
            timeline.reach("a leader was elected in a joint configuration")
        former = self.nodes.get(self._last_leader)
        if former is not None and former is not machine and former.frozen:
            timeline.reach("a frozen leader was replaced")
        self._last_leader = machine.name

    def check_state(self, machine: Machine) -> None:
        """Restored or replayed, the state is that of all commands committed so far, in order."""
        commands = [
            data
            for index, (_, data) in sorted(self._committed.items())
            if index <= machine.applied_index and data.isdigit()
        ]
        assert machine.applied == commands, f"{machine.name} has another state than its log says"

    @contextmanager
    def calm(self) -> Iterator[None]:
        """Let network and disks be as usual for a while: what must follow at once can be seen."""
        before = self.delay_s, self.disk_delay_s, self.loss, self.stragglers, self.duplicates
        self.delay_s, self.disk_delay_s = (0.001, 0.005), (0.0005, 0.002)
        self.loss = self.stragglers = self.duplicates = 0.0
        yield
        self.delay_s, self.disk_delay_s, self.loss, self.stragglers, self.duplicates = before

    def machine_of(self, node: Node) -> Machine:
        assert isinstance(node, Machine)
        return node


def _is_heartbeat(message: Message) -> bool:
    return type(message) is AppendRequest and message.is_bare


def _brief(message: Message) -> str:
    fields = ("last_index", "index", "offset", "granted", "pre", "transfer")
    parts = [f"{field}={getattr(message, field)}" for field in fields if hasattr(message, field)]
    return " ".join(parts)
