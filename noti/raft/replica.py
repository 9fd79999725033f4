"""Drives the Raft core: the only place where consensus meets disk, network and state machine.

Enters: messages and news from peers, proposals, time. Leaves: writes to the log, messages to peers,
committed commands to the state machine, answers to proposers.
Never: decides anything about consensus, waits for a peer or for a browser.

One task owns the core and takes in events in batches; one task writes to disk, and whatever was
ordered while a write was on its way is the next write. The inbox has three doors: completions are
never refused, peers' messages are dropped when it is full (Raft tolerates it), proposers wait.
"""

import math
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias, assert_never

import structlog
import trio
from prometheus_client import Counter, Gauge, Histogram

from noti.errors import ChangeImpossible, LocalError, NotLeader, ProposalRefused, ProposalUncertain
from noti.ports import Clock
from noti.raft.changes import Change
from noti.raft.core import Raft
from noti.raft.events import (
    Apply,
    Bootstrapped,
    ChangeRefused,
    ChangeRequested,
    DeadlineReached,
    Effect,
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
    ReadReady,
    ReadRequested,
    RestoreSnapshot,
    Role,
    RoleChanged,
    SaveSnapshot,
    SendMessage,
    SnapshotTaken,
    Status,
    TransferRequested,
)
from noti.raft.membership import Configuration
from noti.raft.messages import Entry, EntryKind, HardState, Message, NodeId
from noti.raft.records import ENTRY_DATA_BYTES_MAX
from noti.raft.wal import Wal

log = structlog.get_logger("noti.raft")

INBOX_MESSAGES_MAX = 8192
"""Peers' messages not yet taken in.

Beyond this the node is so far behind that losing some helps.
"""
APPLY_SLICE = 32
"""Commands applied before other tasks get a turn: a replay after a restart must not starve them."""
LEADERLESS_GRACE_S = 5.0
"""An election takes a fraction of this; without a leader for longer, browsers had better move."""
WARN_EVERY_S = 10.0
"""A peer that breaks the rules does so with every message; the counter has them all."""
SNAPSHOT_EVERY_ENTRIES = 10_000
SNAPSHOT_EVERY_BYTES = 32 * 1024 * 1024
"""When the log is compacted: a restart then replays at most a second or so."""

_commit_index = Gauge("noti_raft_commit_index", "Index of the last committed entry")
_term = Gauge("noti_raft_term", "Current term")
_is_leader = Gauge("noti_raft_is_leader", "1 while this node leads")
_dropped = Counter("noti_raft_inbox_dropped_total", "Peers' messages dropped, inbox full")
_impossible = Counter(
    "noti_raft_impossible_total", "Peers' messages refused, as no honest peer sends them"
)
_write_s = Histogram(
    "noti_raft_log_write_seconds",
    "Time of one durable write to the log",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)


class StateMachine(Protocol):
    """What committed commands change. All of it is synchronous: applying never waits."""

    def apply(self, command: bytes) -> None:
        """Carry out one committed command."""

    def snapshot(self) -> bytes:
        """Return the whole state."""

    def restore(self, data: bytes) -> None:
        """Replace the whole state."""


class Messenger(Protocol):
    """How messages leave."""

    def send(self, to: NodeId, message: Message) -> object:
        """Queue a message or drop it; never waits."""


_DiskOrder: TypeAlias = Persist | PersistSnapshot | SaveSnapshot


@dataclass(slots=True)
class Pending:
    """What somebody asked of the core, until it is answered."""

    done: trio.Event = field(default_factory=trio.Event)
    place: tuple[int, int] | None = None
    """Set once the core gave it one in the log: (index, term)."""
    failure: Exception | None = None

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
        self._wal = wal
        self._messenger: Messenger | None = None
        self._state = state
        self._clock = clock
        self._snapshot_every_entries = snapshot_every_entries
        self._snapshot_every_bytes = snapshot_every_bytes
        self._inbox: deque[Event] = deque()
        self._proposals: deque[tuple[int, bytes]] = deque()
        self._pending: dict[int, Pending] = {}
        """By request number."""
        self._by_index: dict[int, int] = {}
        """Index in the log -> number of the request that waits for it."""
        self._readers: list[int] = []
        self._request = 0
        self._orders: deque[_DiskOrder] = deque()
        self._inbox_filled = trio.Event()
        self._orders_filled = trio.Event()
        self._leadership_changed = trio.Event()
        self._advanced = trio.Event()
        self._last_fresh = -math.inf
        """When this node last knew that it had applied all that was committed."""
        self._told = (False, False)
        self._warned_at = -math.inf
        self._applied_index = core.status().applied_index
        """What the state machine has; in the middle of a long replay it is behind the core's."""
        self._applied_entries = 0
        self._applied_bytes = 0

    # --- what others see --------------------------------------------------------------------------

    def status(self) -> Status:
        """Return the core's picture of this moment."""
        status = self._core.status()
        if self._applied_index >= status.applied_index:
            return status
        return replace(status, applied_index=self._applied_index, leads_ready=False, fresh_at=None)

    def cluster_id(self) -> str:
        """Return the cluster that the log belongs to; empty while there is none."""
        return self._core.status().configuration.cluster_id

    def is_ready_leader(self) -> bool:
        """Whether this node leads and has applied everything of its predecessors."""
        return self.status().leads_ready

    async def wait_leadership_changed(self) -> None:
        """Return at the next change of `is_ready_leader()`."""
        await self._leadership_changed.wait()

    def in_touch(self) -> bool:
        """Whether this node has caught up since its start, and has not lost touch for long."""
        return self._clock.now() - self._last_fresh < LEADERLESS_GRACE_S

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed and applied on this node.

        Raises `NotLeader` or `ProposalRefused` when it was not appended, `ProposalUncertain` when
        leadership was lost before it was committed, `LocalError` when it is too large for the log.
        Cancelled here, it may still be committed.
        """
        await self.begin(command).wait()

    def begin(self, command: bytes) -> Pending:
        """Propose, in the order of the calls; waiting for the result raises what `propose` raises.

        Raises `LocalError` when the command is too large for the log.
        """
        if len(command) > ENTRY_DATA_BYTES_MAX:
            # No node could write it, so it must not get as far as the core.
            raise LocalError(f"a command of {len(command)} bytes, {ENTRY_DATA_BYTES_MAX} allowed")
        request, pending = self._pend()
        self._proposals.append((request, command))
        self._inbox_filled.set()
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
        self._inbox_filled.set()
        await pending.wait()
        assert pending.place is not None
        return pending.place[0]

    async def wait_advanced(self) -> None:
        """Return when the core has taken in something: there may be another leader now."""
        await self._advanced.wait()

    async def wait_applied(self, index: int) -> None:
        """Return when everything up to `index` is applied on this node."""
        while self._applied_index < index:
            await self._advanced.wait()

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
            await self._leadership_changed.wait()

    def peer_said(self, message: Message) -> None:
        """Take in a peer's message, or drop it when far behind."""
        if len(self._inbox) >= INBOX_MESSAGES_MAX:
            _dropped.inc()
            return
        self._put(MessageReceived(message))

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
                nursery.start_soon(self._write_log)
                task_status.started()
                await self._take_in_events()
        finally:
            self._fail_pending()

    def _pend(self) -> tuple[int, Pending]:
        self._request += 1
        pending = self._pending[self._request] = Pending()
        return self._request, pending

    def _put(self, event: Event) -> None:
        self._inbox.append(event)
        self._inbox_filled.set()

    async def _take_in_events(self) -> None:
        while True:
            await self._wait_for_events()
            events = [self._inbox.popleft() for _ in range(len(self._inbox))]
            if self._proposals:
                events.append(Proposed(tuple(self._proposals)))
                self._proposals.clear()
            if self._readers:
                for request in self._readers:
                    self._pending[request].place = (0, 0)
                events.append(ReadRequested(tuple(self._readers)))
                self._readers.clear()
            deadline = self._core.deadline()
            if deadline is not None and self._clock.now() >= deadline:
                events.append(DeadlineReached())
            for event in events:
                for effect in self._core.handle(event, self._clock.now()):
                    await self._perform(effect)
            self._tell_leadership()
            self._advanced.set()
            self._advanced = trio.Event()

    async def _wait_for_events(self) -> None:
        if self._inbox or self._proposals or self._readers:
            await trio.lowlevel.checkpoint()
            return
        self._inbox_filled = trio.Event()
        deadline = self._core.deadline()
        with self._clock.scope_until(math.inf if deadline is None else deadline):
            await self._inbox_filled.wait()

    async def _write_log(self) -> None:
        while True:
            while not self._orders:
                self._orders_filled = trio.Event()
                await self._orders_filled.wait()
            order = self._orders.popleft()
            started = self._clock.now()
            match order:
                case Persist():
                    batch, hard_state, entries = self._join_orders(order)
                    await self._wal.append(entries, hard_state)
                    self._put(Persisted(batch))
                case PersistSnapshot(batch, snapshot):
                    await self._wal.install_snapshot(snapshot)
                    self._put(Persisted(batch))
                case SaveSnapshot(snapshot, drop_through):
                    await self._wal.save_snapshot(snapshot, keep_after=drop_through)
                case _:
                    assert_never(order)
            _write_s.observe(self._clock.now() - started)

    def _join_orders(self, order: Persist) -> tuple[int, HardState | None, list[Entry]]:
        """Make one write of all that waits, as long as the entries follow each other."""
        batch, hard_state, entries = order.batch, order.hard_state, list(order.entries)
        while self._orders:
            following = self._orders[0]
            if not isinstance(following, Persist):
                break
            follows = following.entries[:1]
            if entries and follows and follows[0].index != entries[-1].index + 1:
                break
            self._orders.popleft()
            batch = following.batch
            hard_state = following.hard_state or hard_state
            entries.extend(following.entries)
        return batch, hard_state, entries

    # --- effects ----------------------------------------------------------------------------------

    async def _perform(self, effect: Effect) -> None:
        match effect:
            case SendMessage(to, message):
                assert self._messenger is not None
                self._messenger.send(to, message)
            case Persist() | PersistSnapshot() | SaveSnapshot():
                self._orders.append(effect)
                self._orders_filled.set()
            case Apply(entries):
                await self._apply(entries)
            case RestoreSnapshot(snapshot):
                self._state.restore(snapshot.data)
                self._applied_index = snapshot.index
                log.info("state replaced by the leader's snapshot", index=snapshot.index)
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
            case MessageRefused(sender, reason):
                self._note_refusal(sender, reason)
            case _:
                assert_never(effect)

    def _note_refusal(self, sender: NodeId, reason: str) -> None:
        _impossible.inc()
        if self._clock.now() - self._warned_at >= WARN_EVERY_S:
            self._warned_at = self._clock.now()
            log.warning("peer breaks the rules", peer=sender, reason=reason)

    def _answer(self, request: int, failure: Exception | None) -> None:
        pending = self._pending.pop(request, None)
        if pending is not None:
            pending.failure = failure
            pending.done.set()

    async def _apply(self, entries: tuple[Entry, ...]) -> None:
        for position, entry in enumerate(entries, start=1):
            if entry.kind is EntryKind.COMMAND:
                self._state.apply(entry.data)
            self._applied_index = entry.index
            self._applied_entries += 1
            self._applied_bytes += len(entry.data)
            request = self._by_index.pop(entry.index, None)
            if request is not None:
                failure = None
                if self._pending[request].place != (entry.index, entry.term):
                    failure = ProposalUncertain("another leader's entry took the place")
                self._answer(request, failure)
            if position % APPLY_SLICE == 0:
                await trio.lowlevel.checkpoint()
        last = entries[-1].index
        _commit_index.set(last)
        if (
            self._applied_entries >= self._snapshot_every_entries
            or self._applied_bytes >= self._snapshot_every_bytes
        ):
            self._applied_entries = self._applied_bytes = 0
            self._put(SnapshotTaken(last, self._state.snapshot()))

    def _note_role(self, role: Role, term: int, leader: NodeId | None) -> None:
        log.info("role changed", role=role.value, term=term, leader=leader)
        _term.set(term)
        _is_leader.set(role is Role.LEADER)
        if role is not Role.LEADER:
            self._fail_pending()

    def _fail_pending(self) -> None:
        """Nobody can tell these proposers any more what becomes of their commands."""
        for request in [r for r, pending in self._pending.items() if pending.place is not None]:
            self._answer(request, ProposalUncertain("leadership was lost while the command waited"))
        self._by_index.clear()

    def _tell_leadership(self) -> None:
        status = self._core.status()
        fresh_at = self._clock.now() if status.leads_ready else status.fresh_at
        if fresh_at is not None:
            self._last_fresh = fresh_at
        leads = (status.role is Role.LEADER, status.leads_ready)
        if leads != self._told:
            self._told = leads
            self._leadership_changed.set()
            self._leadership_changed = trio.Event()
