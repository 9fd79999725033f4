"""Drives the Raft core: the only place where consensus meets disk, network and state machine.

It decides nothing about consensus, and waits neither for a peer nor for a browser.

The core takes in what peers and the disk report in the very turn of the scheduler that brought it,
as each turn costs as much as the core's work, and on a node that sends to browsers a slice of
theirs. One task does the rest: deadlines, proposals (all that came in a turn are one write) and
long replays. Peers' messages are dropped when the inbox is full (Raft tolerates it); news of the
disk never.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
import trio
from prometheus_client import Counter

from noti.completion import Completion, OnDone
from noti.ports import Clock
from noti.raft.applier import Applier
from noti.raft.core.events import (
    Apply,
    Bootstrapped,
    ChangeRejected,
    DeadlineReached,
    Effect,
    EntriesRead,
    Event,
    MessageReceived,
    PeerConnected,
    PeerLost,
    Persist,
    Persisted,
    PersistSnapshot,
    ProposalAccepted,
    ProposalRejected,
    ReadEntries,
    ReadReady,
    RestoreSnapshot,
    Role,
    RoleChanged,
    SaveSnapshot,
    SendMessage,
    SnapshotTaken,
    TransferRequested,
)
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Change, Configuration
from noti.raft.core.messages import AppendAccepted, AppendRequest, Message, NodeId
from noti.raft.core.status import Status
from noti.raft.health import Health, Trouble
from noti.raft.ports import Messenger, StateMachine
from noti.raft.requests import Requests
from noti.raft.snapshot_taker import SNAPSHOT_EVERY_BYTES, SnapshotTaker
from noti.raft.storage.log_reader import LogReader
from noti.raft.storage.log_writer import LogWriter
from noti.raft.storage.wal import Wal

log = structlog.get_logger("noti.raft")

INBOX_MESSAGES_MAX = 8192
"""Peers' messages not yet taken in.

Beyond this the node is so far behind that losing some helps.
"""

APPLIED_FIRST_BYTES = 4096
"""Of entries, a dozen of events: with more, the others had better begin to apply them meanwhile."""

_dropped = Counter("noti_raft_inbox_dropped_total", "Peers' messages dropped, inbox full")


class Replica:
    """One node's consensus at work."""

    def __init__(
        self,
        core: Raft,
        wal: Wal,
        state: StateMachine,
        clock: Clock,
        *,
        backlog: Callable[[], int] = lambda: 0,
        snapshot_every_bytes: int = SNAPSHOT_EVERY_BYTES,
        snapshot_bytes: int = 0,
    ) -> None:
        """Take what was recovered; the state machine already holds the recovered snapshot.

        `backlog` returns how full this node is, see `pacing.report_of`: the leader learns that with
        each answer. A snapshot is taken when as many bytes of the log were applied since the last,
        or as many as that had; the one that was recovered has `snapshot_bytes`.
        """
        self._core = core
        self._log_writer = LogWriter(wal, clock)
        self._log_reader = LogReader(wal, clock)
        self._messenger: Messenger | None = None
        self._clock = clock
        self._backlog = backlog
        self._snapshots = SnapshotTaker(
            state, clock, every_bytes=snapshot_every_bytes, last_bytes=snapshot_bytes
        )
        self._applier = Applier(state, core.status().applied_index, self._snapshots)
        self._requests = Requests(clock)
        self._inbox: deque[Event] = deque()
        self._stepping = False
        self._failure: Exception | None = None
        self._work = trio.Event()
        self._due_at = -math.inf
        """The core's deadline."""
        self._wakes_at = math.inf
        """When the task looks for it."""
        self._sent = False
        """Whether messages wait for a flush …"""
        self._urgent = False
        """… and others than heartbeats and news of commits."""
        self._leads = (False, False)
        self._leadership_changed = trio.lowlevel.ParkingLot()
        self._advanced = trio.lowlevel.ParkingLot()
        self._health = Health(clock)
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

    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self._core.role is Role.LEADER

    def is_ready_leader(self) -> bool:
        """Whether this node leads and has applied everything of its predecessors."""
        leads_from = self._core.leads_from
        return leads_from is not None and self._applier.index >= leads_from

    async def wait_leadership_changed(self) -> None:
        """Return at the next change of `is_ready_leader()`."""
        await self._leadership_changed.park()

    def is_healthy(self) -> bool:
        """Whether this node has caught up since its start and is in touch, and its disk answers.

        A node that has lost touch for a moment only is in touch.
        """
        if not self._health.seen_healthy():
            self._health.look(self.status())
        return self._health.seen_healthy()

    def troubles(self) -> tuple[Trouble, ...]:
        """Return what ails this node now, whether or not it is healthy all the same."""
        self._health.look(self.status())
        return self._health.troubles()

    async def propose(self, command: bytes) -> None:
        """Return once the command is committed and applied on this node.

        Raises what `submit` passes on. Cancelled here, it may still be committed.
        """
        completion: Completion[int] = Completion()
        self.submit(command, completion)
        await completion.wait()

    def submit(self, command: bytes, on_done: OnDone[int], *, at_once: bool = False) -> None:
        """Propose, in the order of the calls.

        With `at_once` the core takes it in now, and not with others that come in this turn.

        `on_done` gets its index once the command is committed and applied on this node; `NotLeader`
        or `Overloaded` when it was not appended; `ProposalUncertain` when leadership was lost
        before it was committed; `LocalError` when it is too large for the log.
        """
        self._requests.propose(command, on_done)
        if at_once:
            self._step()
        else:
            self._work.set()

    async def change(self, change: Change) -> None:
        """Return once the membership has changed and the change is committed.

        Raises `MembershipChangeRejected` when it must not be done now, and what `propose` raises.
        """
        completion: Completion[int] = Completion()
        self._put(self._requests.change(change, completion))
        await completion.wait()

    async def read_index(self) -> int:
        """Return an index that covers everything committed before this call (Raft 6.4).

        Raises `NotLeader`, or `ProposalUncertain` when leadership is lost meanwhile.
        """
        completion: Completion[int] = Completion()
        self._requests.read(completion)
        self._work.set()
        return await completion.wait()

    async def wait_advanced(self) -> None:
        """Return when the core has received something: there may be another leader now."""
        await self._advanced.park()

    async def wait_applied(self, index: int) -> None:
        """Return when everything up to `index` is applied on this node."""
        completion: Completion[int] = Completion()
        self.when_applied(index, completion)
        await completion.wait()

    def when_applied(self, index: int, on_done: OnDone[int]) -> None:
        """Complete with `index` in the turn in which it is applied here, or now if it is."""
        self._applier.when_applied(index, on_done)

    def bootstrap(self, configuration: Configuration) -> None:
        """Found a cluster with this first configuration; ignored when there is a log already."""
        self._put(Bootstrapped(configuration))

    async def hand_over(self) -> None:
        """Ask another voter to lead; return when it might, or when the core has given that up.

        That is an election timeout after this call. At once when this node does not lead.
        """
        if self._core.role is not Role.LEADER or len(self.status().configuration.voters) < 2:
            return
        self._put(TransferRequested())
        with self._clock.scope_until(self._clock.now() + self._core.config.election_timeout_s):
            while self._core.role is Role.LEADER:
                await self._leadership_changed.park()

    def messages_received(self, messages: Sequence[Message]) -> None:
        """Take in what a peer sent, or drop it when far behind."""
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

    # --- the task ---------------------------------------------------------------------------------

    async def run(
        self,
        messenger: Messenger,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take part in consensus until cancelled; raises `StorageError` when the log fails.

        Cancelled, it forgets what was not written yet, which nobody was promised.
        """
        self._messenger = messenger
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._log_writer.run, self._disk_reported)
                nursery.start_soon(self._log_writer.save_snapshots)
                nursery.start_soon(self._log_reader.run, self._disk_reported)
                nursery.start_soon(self._take_snapshots)
                task_status.started()
                await self._keep_going()
        finally:
            self._messenger = None
            self._requests.leadership_lost()

    async def _keep_going(self) -> None:
        """Do what nobody else's turn does: deadlines, proposals, the rest of a long replay."""
        while True:
            self._step()
            if self._failure is not None:
                raise self._failure
            if self._applier.waiting:
                await trio.lowlevel.checkpoint()
                continue
            self._work = trio.Event()
            self._wakes_at = min(self._due_at, self._health.look_at)
            with self._clock.scope_until(self._wakes_at):
                await self._work.wait()

    async def _take_snapshots(self) -> None:
        while True:
            self._put(SnapshotTaken(*await self._snapshots.next()))

    def _put(self, event: Event) -> None:
        self._inbox.append(event)
        self._work.set()

    def _disk_reported(self, news: Persisted | EntriesRead) -> None:
        self._inbox.append(news)
        self._step()

    def _step(self) -> None:
        """Let the core take in all that waits, and carry out what it says.

        Raises nothing: what goes wrong ends the task that owns the core, in whatever turn this is.
        """
        if self._stepping or self._messenger is None:
            return  # the step that is under way takes this in, too
        self._stepping = True
        applied = self._applier.index
        try:
            news = self._take_in(self._messenger)
        except Exception as error:  # noqa: BLE001 - `_keep_going` raises it
            self._failure = error
            self._work.set()
            return  # and no step follows: nobody knows how far this one came
        self._stepping = False
        leads = (self._core.role is Role.LEADER, self.is_ready_leader())
        if leads != self._leads:
            self._leads = leads
            self._leadership_changed.unpark_all()
        if news or self._applier.index != applied:
            self._advanced.unpark_all()
        due_at = self._core.deadline()
        self._due_at = math.inf if due_at is None else due_at
        if self._applier.waiting or self._due_at < self._wakes_at:
            self._work.set()

    def _take_in(self, messenger: Messenger) -> bool:
        """Return whether there was anything but requests.

        A request that is rejected is no news for others who wait to make theirs: they would make
        it, be rejected, and so wake each other for as long as the rejections last.
        """
        news = False
        now = self._clock.now()
        if now >= self._due_at:
            self._inbox.append(DeadlineReached())
        while True:
            news = news or bool(self._inbox)
            events = list(self._inbox)
            self._inbox.clear()
            if self._requests.are_new:
                events += self._requests.take()
            for event in events:
                self._perform(self._core.handle(event, now), messenger)
            if self._sent and not self._applies_first():
                self._flush(messenger)
            if self._health.outdated is not None:
                raise self._health.outdated
            if self._log_writer.orders:
                self._log_writer.flush(now)
            if self._applier.waiting:
                self._applier.apply_some(self._requests.applied)
            if self._log_reader.to_apply is not None and not self._applier.waiting:
                self._log_reader.all_is_applied()
            if now >= self._health.look_at:
                self._health.look(self.status())
            if not (self._inbox or self._requests.are_new):
                if self._sent:
                    self._flush(messenger)
                return news
            now = self._clock.now()

    def _applies_first(self) -> bool:
        """Whether who waits for an answer is to have it before the others hear of the commit.

        To tell them takes as long as to apply a few entries, and can often be told with the
        entries that come next. They wait for nothing else.
        """
        return not self._urgent and 0 < self._applier.waiting_bytes <= APPLIED_FIRST_BYTES

    def _flush(self, messenger: Messenger) -> None:
        self._sent = self._urgent = False
        messenger.flush()

    def _perform(self, effects: Sequence[Effect], messenger: Messenger) -> None:
        for effect in effects:
            match effect:
                case SendMessage(to, message):
                    self._sent = True
                    self._urgent = self._urgent or not (
                        type(message) is AppendRequest and message.is_bare
                    )
                    messenger.send(to, self._with_backlog(message))
                case Persist() | PersistSnapshot() | SaveSnapshot():
                    self._log_writer.orders.append(effect)
                case Apply(entries):
                    self._applier.waiting.extend(entries)
                case ProposalAccepted() | ProposalRejected() | ChangeRejected() | ReadReady():
                    self._requests.answered(effect)
                case ReadEntries():
                    self._log_reader.put(effect)
                case RestoreSnapshot():
                    self._applier.waiting.append(effect)
                case RoleChanged(role, term, leader):
                    self._note_role(role, term, leader)
                case _:
                    self._health.note(effect)

    def _with_backlog(self, message: Message) -> Message:
        if type(message) is AppendAccepted and (backlog := self._backlog()):
            # Not by `replace`, which takes four times as long, for each answer.
            match_index, round_ = message.match_index, message.round
            return AppendAccepted(message.sender, message.term, match_index, round_, backlog)
        return message

    def _note_role(self, role: Role, term: int, leader: NodeId | None) -> None:
        log.info("role changed", role=role.value, term=term, leader=leader)
        self._health.role_changed(role, term)
        if role is not Role.LEADER:
            self._requests.leadership_lost()
        if self.leader_changed is not None:
            self.leader_changed(leader)
