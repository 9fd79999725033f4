"""Several Raft cores in virtual time, without Trio: event heap, lossy network, forgetful disks.

Enters: a seed and what to do to the cluster. Leaves: the cluster, checked after every step.
Never: threads, real time, real disks.

Checked at every step (names as in the safety literature): election safety, log matching, leader
completeness, state-machine safety, durable before speech, monotonic commit, one vote per node and
term, a quorum holding what is committed, commit by counting only in the own term, and no campaign
that a quorum did not encourage. `test_checkers.py` shows that they see what they should.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from functools import partial

from noti.raft.core.config import RaftConfig
from noti.raft.core.events import (
    Apply,
    Bootstrapped,
    ChangeRejected,
    ChangeRequested,
    CommitStalled,
    DeadlineReached,
    DiskHung,
    DiskOutdated,
    Effect,
    Event,
    MessageReceived,
    MessageRejected,
    PeerConnected,
    PeerLost,
    Persist,
    Persisted,
    PersistSnapshot,
    ProposalAccepted,
    ProposalRejected,
    Proposed,
    ReadEntries,
    ReadReady,
    ReadRequested,
    RestoreSnapshot,
    Role,
    RoleChanged,
    SaveSnapshot,
    SendMessage,
    SnapshotTaken,
    TransferRequested,
    VoterForgot,
)
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Change, Configuration, has_quorum
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRequest,
    Entry,
    EntryKind,
    Message,
    Snapshot,
)
from noti.raft.core.snapshot import PIECE_BYTES, split
from tests.raft.core.ballots import Ballots
from tests.raft.storage.disk_image import DiskImage
from tests.raft.storage.log_checks import (
    check_acknowledgement,
    check_completeness,
    check_configuration,
    check_logs,
)


class Node:
    """One core with its disk and its state machine (the list of applied commands)."""

    def __init__(self, cluster: "Cluster", name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.disk = DiskImage()
        self.core: Raft | None = None
        self.incarnation = 0
        self.paused = False
        self.deaf = False
        """Whether it takes in nothing that happens, see `missed`."""
        self.promises = True
        """Whether it may be held to what it says: not any more after its last word."""
        self.applied: list[bytes] = []
        self.applied_index = 0
        self.outcomes: dict[
            int, ProposalAccepted | ProposalRejected | ChangeRejected | ReadReady
        ] = {}
        self.disk_busy_until = 0.0
        self.commit_seen = self.applied_seen = 0
        self.configuration_seen = Configuration()
        self.wakeup: float | None = None

    def now(self) -> float:
        """The node's own clock."""
        return self.cluster.now

    def world_time(self, own_time: float) -> float:
        """When the node's own clock will show this."""
        return own_time

    @property
    def running(self) -> Raft:
        assert self.core is not None
        return self.core

    def start(self) -> None:
        self.incarnation += 1
        image = self.disk
        self.core = self.cluster.core(
            self.cluster.config(self.name),
            image.hard_state,
            snapshot=image.snapshot,
            entries=image.tail(self.incarnation % 3 * len(image.entries) // 2),
            rng=self.cluster.rng_of(self),
            now=self.now(),
        )
        self.restore(image.snapshot)
        self.disk_busy_until = self.cluster.now
        self.commit_seen = self.applied_seen = 0
        self.configuration_seen = self.core._log.configuration
        self.wakeup = None
        self.arm()
        for other in self.cluster.nodes.values():
            if other is not self and self.cluster.connected(other.name, self.name):
                self.cluster.later(0.002, other.step, PeerConnected(self.name))

    def restore(self, snapshot: Snapshot | None) -> None:
        data = b"".join(snapshot.pieces) if snapshot else b""
        self.applied = [command for command in data.split(b"\n") if command]
        self.applied_index = snapshot.index if snapshot else 0

    def crash(self) -> None:
        self.core = None
        self.incarnation += 1
        for other in self.cluster.nodes.values():
            if other is not self and self.cluster.connected(self.name, other.name):
                self.cluster.at(
                    self.cluster.end_of_stream(self.name, other.name),
                    partial(other.lose, self.name),
                )

    def lose(self, peer: str) -> None:
        if self.core is not None:
            self.step(PeerLost(peer))

    def step(self, event: Event) -> None:
        core, cluster = self.core, self.cluster
        if core is None:
            return
        if self.deaf:
            self.missed(event)
            return
        for effect in core.handle(event, self.now()):
            if type(effect) is SendMessage:  # nearly all are
                cluster.check_speech(self, effect.to, effect.message)
                cluster.send(self.name, effect.to, effect.message)
            else:
                self.perform(effect)
        cluster.check(self)
        self.arm()

    def missed(self, event: Event) -> None:
        """Hear of what it did not take in."""

    def arm(self) -> None:
        """See to it that the node wakes up in time; when it does so too early, it looks again."""
        assert self.core is not None
        deadline = self.core.deadline()
        if deadline is not None and (self.wakeup is None or deadline < self.wakeup):
            self.wakeup = deadline
            self.cluster.at(
                self.world_time(deadline), partial(self.wake, self.incarnation, deadline)
            )

    def wake(self, incarnation: int, at: float) -> None:
        if self.core is None or incarnation != self.incarnation or self.wakeup != at:
            return
        if self.paused:
            self.cluster.later(0.01, self.wake, incarnation, at)
            return
        self.wakeup = None
        deadline = self.running.deadline()
        if deadline is not None and deadline > at:
            self.arm()
        else:
            self.step(DeadlineReached())

    def perform(self, effect: Effect) -> None:
        match effect:
            case SendMessage():
                raise AssertionError("a step sends by itself")
            case Persist() | PersistSnapshot():
                self.order_disk(effect)
            case SaveSnapshot(snapshot, drop_through):
                self.disk.snapshot = snapshot
                self.disk.entries = [e for e in self.disk.entries if e.index > drop_through]
            case ReadEntries():
                self.order_read(effect)
            case Apply(entries):
                for entry in entries:
                    self.cluster.check_applied(self, entry)
                    self.applied_index = entry.index
                    if entry.kind is EntryKind.COMMAND:
                        self.applied.append(entry.data)
                every = self.cluster.snapshot_every
                if every and self.applied_index % every == 0:
                    self.take_snapshot()
            case RestoreSnapshot(snapshot):
                assert snapshot.index >= self.applied_index, "the state machine went back"
                self.restore(snapshot)
            case (
                ProposalAccepted(request)
                | ProposalRejected(request)
                | ChangeRejected(request)
                | ReadReady(request)
            ):
                self.outcomes[request] = effect
            case RoleChanged(role, term, _):
                self.cluster.check_role(self, role, term)
            case DiskOutdated() | VoterForgot():
                self.forgetting(effect)
            case DiskHung() | CommitStalled():
                pass
            case MessageRejected(sender, reason):
                raise AssertionError(f"{self.name} refused a message of {sender}: {reason}")

    def forgetting(self, noticed: DiskOutdated | VoterForgot) -> None:
        """No disk forgets anything here; a storm may see to it that one does."""
        raise AssertionError(f"{self.name} believes in {noticed}")

    def order_read(self, order: ReadEntries) -> None:
        """What was read may be history by the time that it arrives."""
        self.cluster.later(
            self.cluster.rng.uniform(*self.cluster.disk_delay_s),
            self.report,
            self.incarnation,
            self.disk.read(order),
        )

    def report(self, incarnation: int, event: Event) -> None:
        if incarnation == self.incarnation:
            self.step(event)

    def take_snapshot(self) -> None:
        """As a driver does, which encodes piece by piece while more is applied."""
        pieces = split(b"\n".join(self.applied), self.cluster.piece_bytes)
        delay_s = self.cluster.snapshot_delays_s[self.applied_index % 3]
        taken = SnapshotTaken(self.applied_index, pieces)
        self.cluster.later(delay_s, self.report, self.incarnation, taken)

    def order_disk(self, order: Persist | PersistSnapshot) -> None:
        delay = self.cluster.rng.uniform(*self.cluster.disk_delay_s)
        self.disk_busy_until = max(self.disk_busy_until, self.cluster.now) + delay
        incarnation = self.incarnation
        self.cluster.at(self.disk_busy_until, lambda: self.finish_disk(incarnation, order))

    def finish_disk(self, incarnation: int, order: Persist | PersistSnapshot) -> None:
        if incarnation != self.incarnation:
            return
        self.disk.carry_out(order)
        self.step(Persisted(order.batch))


class Cluster:
    """The world: time, network, and the checks."""

    node_type: type[Node] = Node

    def __init__(
        self,
        size: int = 3,
        seed: int = 0,
        *,
        snapshot_every: int = 0,
        keep_entries: int = 10_000,
        core: type[Raft] = Raft,
    ) -> None:
        self.seed = seed
        self.core = core
        self.rng = random.Random(f"world:{seed}")
        self.now = 0.0
        self.snapshot_every = snapshot_every
        self.snapshot_delays_s = (0.0, 0.0, 0.0)
        """How long it takes to encode one, in turn."""
        self.piece_bytes = PIECE_BYTES
        self.delay_s = (0.001, 0.005)
        self.disk_delay_s = (0.0005, 0.002)
        self.loss = 0.0
        self.blocked: set[tuple[str, str]] = set()
        self.keep_entries = keep_entries
        self.trace: list[tuple[float, str, str, str, int]] = []
        """When, from whom, to whom, what, in which term; of all messages sent."""
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last_arrival: dict[tuple[str, str], float] = {}
        self._requests = itertools.count(1)
        self._leaders: dict[int, str] = {}
        self._committed: dict[int, tuple[int, bytes]] = {}
        self._committed_in: dict[int, int] = {}
        """In which term, at the latest."""
        self._commit_max = 0
        self._ballots = Ballots()
        self.names = [f"n{number}" for number in range(1, size + 1)]
        self.nodes = {name: self.node_type(self, name) for name in self.names}
        configuration = Configuration("test", tuple(self.names))
        for node in self.nodes.values():
            node.start()
            node.step(Bootstrapped(configuration))

    def config(self, name: str) -> RaftConfig:
        return RaftConfig(name, keep_entries=self.keep_entries)

    def rng_of(self, node: Node) -> random.Random:
        return random.Random(f"{self.seed}:{node.name}:{node.incarnation}")

    # --- time and network -------------------------------------------------------------------------

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (when, next(self._order), action))

    def later(self, delay_s: float, action: Callable[..., None], *args: object) -> None:
        self.at(self.now + delay_s, lambda: action(*args))

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            when, _, action = heapq.heappop(self._heap)
            self.now = when if when > self.now else self.now
            action()
        self.now = end

    def run_until(self, condition: Callable[[], object], *, seconds: float = 20.0) -> None:
        end = self.now + seconds
        while not condition():
            assert self._heap, "nothing will happen any more"
            assert self.now <= end, f"not reached within {seconds} virtual seconds"
            when, _, action = heapq.heappop(self._heap)
            self.now = max(self.now, when)
            action()

    def connected(self, sender: str, to: str) -> bool:
        return (sender, to) not in self.blocked

    def loses(self) -> bool:
        return self.rng.random() < self.loss

    def end_of_stream(self, sender: str, to: str) -> float:
        """When `to` sees the stream end: after everything that `sender` had written."""
        return max(self.now + 0.002, self._last_arrival.get((sender, to), 0.0) + 1e-9)

    def send(self, sender: str, to: str, message: Message) -> None:
        self.trace.append((self.now, sender, to, type(message).__name__, message.term))
        link = (sender, to)
        if link in self.blocked or (self.loss and self.loses()):
            return
        # Streams keep order in each direction.
        last = self._last_arrival.get(link, 0.0) + 1e-9
        least, most = self.delay_s
        arrival = self.now + (least + (most - least) * self.rng.random())  # as `uniform` does
        self._last_arrival[link] = arrival = arrival if arrival > last else last
        incarnations = (self.nodes[sender].incarnation, self.nodes[to].incarnation)
        self.at(arrival, partial(self.deliver, sender, to, incarnations, message))

    def deliver(
        self, sender: str, to: str, incarnations: tuple[int, int], message: Message
    ) -> None:
        node = self.nodes[to]
        if node.core is None or node.incarnation != incarnations[1]:
            return
        if node.paused:
            self.later(0.01, self.deliver, sender, to, incarnations, message)
            return
        node.step(MessageReceived(message))

    def isolate(self, name: str) -> None:
        for other in self.names:
            self.blocked |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.blocked.clear()
        self.loss = 0.0

    # --- acting -----------------------------------------------------------------------------------

    def leader(self) -> Node | None:
        leaders = [
            node
            for node in self.nodes.values()
            if node.core is not None and node.running.status().leads_ready
        ]
        return max(leaders, key=lambda node: node.running.status().term, default=None)

    def elect(self) -> Node:
        self.run_until(self.leader)
        leader = self.leader()
        assert leader is not None
        return leader

    def propose(self, node: Node, data: bytes) -> int:
        request = next(self._requests)
        node.step(Proposed(((request, data),)))
        return request

    def change(self, node: Node, change: Change) -> int:
        request = next(self._requests)
        node.step(ChangeRequested(request, change))
        return request

    def read(self, node: Node) -> int:
        request = next(self._requests)
        node.step(ReadRequested((request,)))
        return request

    def add_machine(self) -> Node:
        """Start a node that belongs to no cluster yet."""
        name = f"n{len(self.names) + 1}"
        self.names.append(name)
        node = self.nodes[name] = self.node_type(self, name)
        node.start()
        return node

    def transfer(self, node: Node) -> None:
        node.step(TransferRequested())

    # --- checks -----------------------------------------------------------------------------------

    def check_role(self, node: Node, role: Role, term: int) -> None:
        if role is Role.CANDIDATE:
            self._ballots.stands(node.name, term, node.running._log.configuration)
        if role is not Role.LEADER:
            return
        known = self._leaders.setdefault(term, node.name)
        assert known == node.name, f"two leaders in term {term}: {known} and {node.name}"
        # A process that was stopped may win an old election, and knows nothing of newer terms.
        older = {n: c for n, c in self._committed.items() if self._committed_in[n] < term}
        check_completeness(node.name, node.running._log, node.disk, older)

    def check_applied(self, node: Node, entry: Entry) -> None:
        assert entry.index == node.applied_index + 1, "entries are applied in order, without a gap"
        self._committed_in.setdefault(entry.index, node.running._term)
        known = self._committed.setdefault(entry.index, (entry.term, entry.data))
        assert known == (entry.term, entry.data), f"state machines differ at {entry.index}"

    def check_speech(self, node: Node, to: str, message: Message) -> None:
        if not node.promises:
            return
        on_disk = node.disk.hard_state
        if type(message) is AppendAccepted:
            check_acknowledgement(message, node.running, node.disk)
        elif type(message) is not AppendRequest:
            self._ballots.check(node.name, to, message, on_disk, node.running._log.configuration)
            if getattr(message, "pre", False):
                return
        assert message.term <= on_disk.term, "spoke in a term not on disk"

    def check(self, node: Node) -> None:
        # Runs after every step, so it looks at the core itself: a status costs as much as a step.
        core = node.core
        assert core is not None
        commit, log, seen = core._commit, core._log, node.commit_seen
        assert commit >= seen, "commit went back"
        assert core._applied <= commit <= log.last_index
        if commit > seen:
            node.commit_seen = commit
            if core.role is Role.LEADER:
                term = log.term_at(commit)
                assert term == core._term, "committed an entry of an older term by counting"
        if commit > self._commit_max:
            self._commit_max = commit
            term = log.term_at(commit)
            assert term is not None
            holders = [n.name for n in self.nodes.values() if n.disk.holds(commit, term)]
            assert has_quorum(log.configuration, holders), "committed, but no quorum holds it"
        if log.configuration is not node.configuration_seen:
            node.configuration_seen = log.configuration
            check_configuration(core)
        if node.applied_index != node.applied_seen:
            node.applied_seen = node.applied_index
            assert node.applied_index <= node.disk.last_index(), "applied what is not on its disk"

    def check_log_matching(self) -> None:
        up = [node for node in self.nodes.values() if node.core is not None]
        check_logs([(node.running._log, node.disk) for node in up])
