"""Drives the Raft core: the only place where consensus meets disk, network and state machine.

Enters: messages and news from peers, proposals, time. Leaves: writes to the log, messages to peers,
committed commands to the state machine, answers to proposers.
Never: decides anything about consensus, waits for a peer or for a browser.

The core takes in what peers and the disk say in the very turn of the scheduler that brought it, as
each turn costs as much as the core's work, and on a node that sends to browsers a slice of theirs.
One task does the rest: deadlines, proposals (all that came in a turn are one write) and long
replays. Peers' messages are dropped when the inbox is full (Raft tolerates it); news of the disk
never.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, assert_never

import structlog
import trio
from prometheus_client import Counter, Gauge, Histogram

from noti.errors import (
    ChangeImpossible,
    LocalError,
    NotiError,
    NotLeader,
    ProposalRefused,
    ProposalUncertain,
)
from noti.ports import Clock
from noti.raft.applier import (
    SNAPSHOT_EVERY_BYTES,
    SNAPSHOT_EVERY_ENTRIES,
    Applier,
    StateMachine,
)
from noti.raft.core.changes import Change
from noti.raft.core.events import (
    Apply,
    Bootstrapped,
    ChangeRefused,
    ChangeRequested,
    CommitStalled,
    DeadlineReached,
    DiskHung,
    DiskOutdated,
    Effect,
    EntriesRead,
    Event,
    MessageReceived,
    MessageRefused,
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
    Status,
    TransferRequested,
    VoterForgot,
)
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import Entry, Message, NodeId
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX
from noti.raft.health import Health, Trouble
from noti.raft.storage.log_reader import LogReader
from noti.raft.storage.log_writer import LogWriter
from noti.raft.storage.wal import Wal

log = structlog.get_logger("noti.raft")

INBOX_MESSAGES_MAX = 8192
"""Peers' messages not yet taken in.

Beyond this the node is so far behind that losing some helps.
"""

_term = Gauge("noti_raft_term", "Current term")
_is_leader = Gauge("noti_raft_is_leader", "1 while this node leads")
_dropped = Counter("noti_raft_inbox_dropped_total", "Peers' messages dropped, inbox full")
_commit_s = Histogram(
    "noti_raft_commit_seconds",
    "On the leader: time from a proposal until it is committed and applied",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)


class Messenger(Protocol):
    """How messages leave."""

    def send(self, to: NodeId, message: Message) -> object:
        """Queue a message or drop it; never waits."""

    def flush(self) -> None:
        """Let what was queued leave; never waits."""


@dataclass(slots=True)
class Pending:
    """What somebody asked of the core, until it is answered."""

    over: Callable[["Pending"], None] | None = None
    """Called in the turn in which it is answered; never waits."""
    done: trio.Event = field(default_factory=trio.Event)
    place: tuple[int, int] | None = None
    """Set once the core gave it one in the log: (index, term)."""
    asked_at: float = 0.0
    failure: NotiError | None = None

    def answer(self, failure: NotiError | None) -> None:
        """Tell whoever asked."""
        self.failure = failure
        self.done.set()
        if self.over is not None:
            self.over(self)

    async def wait(self) -> None:
        """Return when the answer is there; raises it if it is a failure."""
        if not self.done.is_set():  # spares a turn of the scheduler
            await self.done.wait()
        if self.failure is not None:
            raise self.failure


class Replica:
    """One node's consensus at work."""

    def __init__(
        self,
        core: Raft,
        wal: Wal,
        state: StateMachine,
        clock: Clock,
        *,
        snapshot_every_entries: int = SNAPSHOT_EVERY_ENTRIES,
        snapshot_every_bytes: int = SNAPSHOT_EVERY_BYTES,
    ) -> None:
        """Take what was recovered; the state machine already holds the recovered snapshot.

        A snapshot is taken when as many entries, or bytes in them, were applied since the last.
        """
        self._core = core
        self._log_writer = LogWriter(wal, clock)
        self._log_reader = LogReader(wal, clock)
        self._messenger: Messenger | None = None
        self._clock = clock
        self._applier = Applier(
            state,
            core.status().applied_index,
            snapshot_every_entries=snapshot_every_entries,
            snapshot_every_bytes=snapshot_every_bytes,
        )
        self._inbox: deque[Event] = deque()
        self._proposals: deque[tuple[int, bytes]] = deque()
        self._pending: dict[int, Pending] = {}
        """By request number."""
        self._by_index: dict[int, int] = {}
        """Index in the log -> number of the request that waits for it."""
        self._readers: list[int] = []
        self._request = 0
        self._stepping = False
        self._failure: Exception | None = None
        self._work = trio.Event()
        self._wakes_at = math.inf
        """When the task looks for a deadline of the core."""
        self._leadership_changed = trio.lowlevel.ParkingLot()
        self._advanced = trio.lowlevel.ParkingLot()
        self._health = Health(clock)
        self._told = (False, False)
        self.leader_changed: Callable[[NodeId | None], None] | None = None
        """Called in the turn in which this node has another leader, or none; never waits."""

    # --- what others see --------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the core's picture of this moment."""
        status = self._core.status()
        applied = self._applier.index
        if applied >= status.applied_index:
            return status
        return replace(status, applied_index=applied, leads_ready=False, fresh_at=None)

    def cluster_id(self) -> str:
        """Return the cluster that the log belongs to; empty while there is none."""
        return self._core.status().configuration.cluster_id

    def is_ready_leader(self) -> bool:
        """Whether this node leads and has applied everything of its predecessors."""
        return self.status().leads_ready

    async def wait_leadership_changed(self) -> None:
        """Return at the next change of `is_ready_leader()`."""
        await self._leadership_changed.park()

    def is_healthy(self) -> bool:
        """Whether this node has caught up since its start, has not lost touch for long, and its
        disk answers."""
        return self._health.in_touch() and self._core.status().disk_hung_since is None

    def troubles(self) -> tuple[Trouble, ...]:
        """Return what ails this node now, whether or not it is healthy all the same."""
        return self._health.troubles()

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed and applied on this node.

        Raises `NotLeader` or `ProposalRefused` when it was not appended, `ProposalUncertain` when
        leadership was lost before it was committed, `LocalError` when it is too large for the log.
        Cancelled here, it may still be committed.
        """
        await self.begin(command).wait()

    def begin(
        self,
        command: bytes,
        over: Callable[[Pending], None] | None = None,
        *,
        at_once: bool = False,
    ) -> Pending:
        """Propose, in the order of the calls; the result fails with what `propose` raises.

        With `at_once` the core takes it in now, and not with others that come in this turn. Raises
        `LocalError` when the command is too large for the log.
        """
        if len(command) > ENTRY_DATA_BYTES_MAX:
            # No node could write it, so it must not get as far as the core.
            raise LocalError(f"a command of {len(command)} bytes, {ENTRY_DATA_BYTES_MAX} allowed")
        request, pending = self._pend(over)
        self._proposals.append((request, command))
        if at_once:
            self._step()
        else:
            self._work.set()
        return pending

    async def change(self, change: Change) -> None:
        """Return once the membership has changed and the change is committed.

        Raises `ChangeImpossible` when it must not be done now, and what `propose` raises.
        """
        request, pending = self._pend()
        self._put(ChangeRequested(request, change))
        await pending.wait()

    async def read_index(self) -> int:
        """Return an index that covers everything committed before this call (Raft 6.4).

        Raises `NotLeader`, or `ProposalUncertain` when leadership is lost meanwhile.
        """
        request, pending = self._pend()
        self._readers.append(request)
        self._work.set()
        await pending.wait()
        assert pending.place is not None
        return pending.place[0]

    async def wait_advanced(self) -> None:
        """Return when the core has heard something: there may be another leader now."""
        await self._advanced.park()

    async def wait_applied(self, index: int) -> None:
        """Return when everything up to `index` is applied on this node."""
        applied = trio.Event()
        self.when_applied(index, applied.set)
        await applied.wait()

    def when_applied(self, index: int, then: Callable[[], None]) -> None:
        """Call `then` in the turn in which `index` is applied on this node, or now if it is."""
        self._applier.when_applied(index, then)

    def bootstrap(self, configuration: Configuration) -> None:
        """Found a cluster with this first configuration; ignored when there is a log already."""
        self._put(Bootstrapped(configuration))

    async def hand_over(self) -> None:
        """Ask another voter to lead and return when one might; at once when this node does not."""
        status = self._core.status()
        if status.role is not Role.LEADER or len(status.configuration.voters) < 2:
            return
        self._put(TransferRequested())
        while self._core.status().role is Role.LEADER:
            await self._leadership_changed.park()

    def peer_said(self, messages: Sequence[Message]) -> None:
        """Take in what a peer said, or drop it when far behind."""
        for message in messages:
            if len(self._inbox) >= INBOX_MESSAGES_MAX:
                _dropped.inc()
            else:
                self._inbox.append(MessageReceived(message))
        self._step()

    def peer_connected(self, node_id: NodeId) -> None:
        """Note a new stream."""
        self._put(PeerConnected(node_id))

    def peer_lost(self, node_id: NodeId) -> None:
        """Note a broken stream."""
        self._put(PeerLost(node_id))

    # --- the two tasks ----------------------------------------------------------------------------

    async def run(
        self,
        messenger: Messenger,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take part in consensus until cancelled; raises `StorageError` when the log fails.

        Cancelled, it forgets what was not written yet: nobody was told that it was.
        """
        self._messenger = messenger
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._log_writer.run, self._disk_said)
                nursery.start_soon(self._log_reader.run, self._disk_said)
                task_status.started()
                await self._keep_going()
        finally:
            self._messenger = None
            self._fail_pending()

    def _pend(self, over: Callable[[Pending], None] | None = None) -> tuple[int, Pending]:
        self._request += 1
        pending = self._pending[self._request] = Pending(over, asked_at=self._clock.now())
        return self._request, pending

    def _put(self, event: Event) -> None:
        self._inbox.append(event)
        self._work.set()

    async def _keep_going(self) -> None:
        """Do what nobody else's turn does: deadlines, proposals, the rest of a long replay."""
        while True:
            self._step()
            if self._failure is not None:
                raise self._failure
            if self._applier.is_behind:
                await trio.lowlevel.checkpoint()
                continue
            self._work = trio.Event()
            dues = (self._core.deadline(), self._health.deadline())
            self._wakes_at = min((due for due in dues if due is not None), default=math.inf)
            with self._clock.scope_until(self._wakes_at):
                await self._work.wait()

    def _step(self) -> None:
        """Let the core take in all that waits, and carry out what it says.

        Raises nothing: what goes wrong ends the task that owns the core, whoever's turn this is.
        """
        if self._stepping or self._messenger is None:
            return  # whoever is at it takes this in, too
        self._stepping = True
        applied = self._applier.index
        try:
            news = self._take_in(self._messenger)
        except Exception as error:  # noqa: BLE001 - `_keep_going` raises it
            self._failure = error
            self._work.set()
            return  # and no step follows: nobody knows how far this one came
        self._stepping = False
        self._tell_leadership()
        if news or self._applier.index != applied:
            self._advanced.unpark_all()
        deadline = self._core.deadline()
        if self._applier.is_behind or (deadline is not None and deadline < self._wakes_at):
            self._work.set()

    def _take_in(self, messenger: Messenger) -> bool:
        """Return whether there was anything but requests.

        A request that is refused is no news for others who wait to make theirs: they would make
        it, be refused, and so wake each other for as long as the refusals last.
        """
        news = False
        deadline = self._core.deadline()
        if deadline is not None and self._clock.now() >= deadline:
            self._inbox.append(DeadlineReached())
        while True:
            news = news or bool(self._inbox)
            for event in self._next_events():
                for effect in self._core.handle(event, self._clock.now()):
                    self._perform(effect)
            messenger.flush()
            if self._health.outdated is not None:
                raise self._health.outdated
            self._log_writer.flush()
            snapshot = self._applier.apply_some(self._applied)
            if not self._applier.is_behind:
                self._log_reader.all_is_applied()
            if snapshot is not None:
                self._put(snapshot)
            if not (self._inbox or self._proposals or self._readers):
                return news

    def _next_events(self) -> list[Event]:
        events = list(self._inbox)
        self._inbox.clear()
        if self._proposals:
            events.append(Proposed(tuple(self._proposals)))
            self._proposals.clear()
        if self._readers:
            for request in self._readers:
                self._pending[request].place = (0, 0)
            events.append(ReadRequested(tuple(self._readers)))
            self._readers.clear()
        return events

    def _disk_said(self, news: Persisted | EntriesRead) -> None:
        self._inbox.append(news)
        self._step()

    # --- effects ----------------------------------------------------------------------------------

    def _perform(self, effect: Effect) -> None:
        match effect:
            case SendMessage(to, message):
                assert self._messenger is not None
                self._messenger.send(to, message)
            case Persist() | PersistSnapshot() | SaveSnapshot():
                self._log_writer.put(effect)
            case ReadEntries():
                self._log_reader.put(effect)
            case Apply(entries):
                self._applier.put(entries)
            case RestoreSnapshot(snapshot):
                self._applier.put((snapshot,))
            case RoleChanged(role, term, leader):
                self._note_role(role, term, leader)
            case ProposalAccepted(request, index, term):
                self._pending[request].place = (index, term)
                self._by_index[index] = request
            case ProposalRejected(request, backlog_full, leader):
                full = ProposalRefused("the backlog of uncommitted entries is full; retry later")
                self._answer(request, full if backlog_full else NotLeader(leader))
            case ChangeRefused(request, reason):
                self._answer(request, ChangeImpossible(reason))
            case ReadReady(request, index):
                if (pending := self._pending.get(request)) is not None:
                    pending.place = (index, 0)
                self._answer(request, None)
            case DiskHung() | DiskOutdated() | CommitStalled() | VoterForgot() | MessageRefused():
                self._health.note(effect)
            case _:
                assert_never(effect)

    def _answer(self, request: int, failure: NotiError | None) -> None:
        pending = self._pending.pop(request, None)
        if pending is not None:
            pending.answer(failure)

    def _applied(self, entry: Entry) -> None:
        request = self._by_index.pop(entry.index, None)
        if request is not None:
            failure = None
            if self._pending[request].place != (entry.index, entry.term):
                failure = ProposalUncertain("another leader's entry took the place")
            else:
                _commit_s.observe(self._clock.now() - self._pending[request].asked_at)
            self._answer(request, failure)

    def _note_role(self, role: Role, term: int, leader: NodeId | None) -> None:
        log.info("role changed", role=role.value, term=term, leader=leader)
        _term.set(term)
        _is_leader.set(role is Role.LEADER)
        self._health.role_changed(role)
        if role is not Role.LEADER:
            self._fail_pending()
        if self.leader_changed is not None:
            self.leader_changed(leader)

    def _fail_pending(self) -> None:
        """Nobody can tell these proposers any more what becomes of their commands."""
        for request in [r for r, pending in self._pending.items() if pending.place is not None]:
            self._answer(request, ProposalUncertain("leadership was lost while the command waited"))
        self._by_index.clear()

    def _tell_leadership(self) -> None:
        status = self.status()
        self._health.look(status)
        leads = (status.role is Role.LEADER, status.leads_ready)
        if leads != self._told:
            self._told = leads
            self._leadership_changed.unpark_all()
