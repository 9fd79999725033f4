"""Decides who leads and what is committed.

Enters: messages, persisted marks, proposals, deadlines, each with the time. Leaves: effects.
Never: I/O, clocks, global randomness, the meaning of commands, another core.

The rules of this file:
1. One door, `handle`: the term rules come first, then the dispatch by kind of event.
2. Persist before answering: a message waits until its term and vote are on disk (`gate.py`), and an
   append answer vouches only for entries that are. A leader too counts itself only then.
3. Roles change only in `_become_*` and the two `_campaign` functions.

Sources: Raft (Ongaro and Ousterhout 2014); thesis 9.6 (pre-vote), 4.2.3 (stickiness).
"""

import math
from collections.abc import Callable, Sequence
from typing import assert_never

from noti.raft.core.config import RaftConfig, Rng
from noti.raft.core.election import Ballot, ElectionTimer, VoteResult
from noti.raft.core.events import (
    Apply,
    Bootstrapped,
    ChangeRequested,
    DeadlineReached,
    DiskHung,
    DiskOutdated,
    Effect,
    EntriesRead,
    Event,
    MessageReceived,
    MessageRejected,
    PeerConnected,
    PeerLost,
    Persisted,
    ProposalRejected,
    Proposed,
    ReadRequested,
    Request,
    RestoreSnapshot,
    Role,
    RoleChanged,
    SendMessage,
    SnapshotTaken,
    TransferRequested,
)
from noti.raft.core.following import Following
from noti.raft.core.gate import Gate
from noti.raft.core.leadership import Leadership
from noti.raft.core.log import RaftLog, Reading, Tail
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Entry,
    EntryKind,
    HardState,
    Message,
    NodeId,
    Response,
    Snapshot,
    SnapshotChunk,
    SnapshotReceived,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import new_entry
from noti.raft.core.snapshot import SnapshotAssembly, StateDecoder, WholeDecoder
from noti.raft.core.status import Status, picture
from noti.raft.core.validate import FROM_LEADER, find_violation


class Raft:
    """One node's consensus state."""

    def __init__(
        self,
        config: RaftConfig,
        hard_state: HardState,
        *,
        snapshot: Snapshot | None,
        entries: Sequence[Entry] | Tail,
        rng: Rng,
        now: float,
        state_decoder: Callable[[], StateDecoder] = WholeDecoder,
    ) -> None:
        """Start as a follower from what the disk holds; the driver restores `snapshot` itself."""
        self.config, self._id = config, config.node_id
        self._effects: list[Effect] = []
        self._log = RaftLog(snapshot, entries, memory_bytes=config.log_memory_bytes)
        self._reading = Reading(
            self._log, bytes_max=config.append_bytes_max, order=self._effects.append
        )
        timeout_s = config.election_timeout_s
        self._gate = Gate(hard_state, durable=self._log.last_index, election_timeout_s=timeout_s)
        self._term = hard_state.term
        self._voted_for = hard_state.voted_for
        self.role = Role.FOLLOWER
        self._leader: NodeId | None = None
        self._following = self._new_following(now)
        self._timer = ElectionTimer(config, rng, self._log.configuration, now=now)
        self._ballot = Ballot()
        self._commit = self._applied = snapshot.index if snapshot else 0
        self._leadership: Leadership | None = None  # set while, and only while, this node leads
        self.leads_from: int | None = None
        """While this node leads: once this index is applied, so is all of its predecessors."""
        self._assembly = SnapshotAssembly(state_decoder)

    # --- doors ------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take in one fact at `now` (monotonic seconds); return what must be done, in order."""
        before = (self.role, self._term, self._leader)
        disk_hung_since = self._gate.hung_since
        leading = self._leadership
        match event:
            case MessageReceived():
                self._receive(event.message, now)
            case Persisted(batch):
                self._on_persisted(batch, now)
            case Proposed() | ChangeRequested() | ReadRequested():
                self._on_request(event, now)
            case DeadlineReached():
                self._on_deadline(now)
            case PeerLost(node_id):
                self._on_peer_lost(node_id, now)
            case PeerConnected(node_id):
                self._following.stream_is_new()
                if leading is not None:
                    leading.replication.on_connected(node_id, self._commit, now)
            case TransferRequested():
                if leading is not None:
                    leading.hand_over(now)
            case Bootstrapped(configuration):
                self._on_bootstrapped(configuration, now)
            case SnapshotTaken(index, pieces):
                self._on_snapshot_taken(index, pieces)
            case EntriesRead(reader, entries):
                read = self._reading.take(reader, entries)
                if reader is None:
                    self._apply_committed(read)
                elif leading is not None:
                    leading.replication.on_read(reader, read, self._commit, now)
            case _:
                assert_never(event)
        self._effects += self._gate.order(self._term, self._voted_for, now)
        if self._commit > self._applied:
            self._apply_committed()
        if self._log.holds_too_much():
            self._log.let_go(self._gate.durable)
        if self._gate.hung_since != disk_hung_since:
            self._effects.append(DiskHung(self._gate.hung_since))
        after = (self.role, self._term, self._leader)
        if after != before:
            self._effects.append(RoleChanged(*after))
        effects = self._effects.copy()
        self._effects.clear()
        return effects

    def deadline(self) -> float | None:
        """When `DeadlineReached` is due next; None while there is nothing to wait for."""
        due = self._gate.look_at
        if self._leadership is not None:
            due = min(due, self._leadership.deadline())
        elif self._leader is not None or self._may_campaign():
            due = min(due, self._timer.deadline)
        return None if due == math.inf else due

    def status(self) -> Status:
        """Return a picture of this moment."""
        place = (self.role, self._term, self._leader, self._commit, self._applied)
        return picture(
            place,
            log=self._log,
            leading=self._leadership,
            following=self._following,
            gate=self._gate,
        )

    # --- messages: the term rules first -----------------------------------------------------------

    def _receive(self, message: Message, now: float) -> None:
        reason = find_violation(
            message, self._id, self._term, self._leader, self._commit, self._log
        )
        if reason is None and isinstance(message, SnapshotChunk):
            reason = self._assembly.find_invalid(message, self._term)
        if reason is not None:
            self._effects.append(MessageRejected(message.sender, reason))
            return
        if isinstance(message, VoteRequest):
            self._on_vote_request(message, now)
            return
        if isinstance(message, VoteResponse) and message.pre and message.granted:
            self._on_vote_response(message, now)
            return
        from_leader = isinstance(message, FROM_LEADER)
        if message.term < self._term:
            if from_leader:
                # Let a deposed leader know the newer term: otherwise a node with a higher term
                # that cannot win an election would stay deaf (pre-vote with check-quorum).
                self._send(message.sender, AppendRejected(self._id, self._term, 0, 0, 0))
            return
        if message.term > self._term:
            self._become_follower(message.term, message.sender if from_leader else None, now)
        match message:
            case VoteResponse():
                self._on_vote_response(message, now)
            case AppendRequest():
                self._note_leader_contact(message.sender, now)
                self._following.note_request(message, now)
                if message.acknowledged > self._gate.durable:
                    self._on_forgotten(message)
                else:
                    self._on_append_request(message)
            case SnapshotChunk():
                self._note_leader_contact(message.sender, now)
                self._on_snapshot_chunk(message, now)
            case AppendAccepted() | AppendRejected() | SnapshotReceived():
                self._on_response(message, now)
            case TimeoutNow():
                if self.role is Role.FOLLOWER and self._may_campaign():
                    self._campaign(now, transfer=True)
            case _:
                assert_never(message)

    def _note_leader_contact(self, leader: NodeId, now: float) -> None:
        assert self.role is not Role.LEADER, "the message was checked for that"
        if self.role is not Role.FOLLOWER or self._leader != leader:
            self._become_follower(self._term, leader, now)
        self._following.last_contact_at = now
        self._timer.leader_spoke(now)

    # --- elections --------------------------------------------------------------------------------

    def _may_campaign(self) -> bool:
        if self._gate.installing is not None or self._gate.hung_since is not None:
            return False  # it could not write down for whom it votes
        return self._log.may_campaign(self._id, self._commit)

    def _has_live_leader(self, now: float) -> bool:
        """Leader stickiness: while a leader lives, nobody else gets a vote (thesis 4.2.3)."""
        in_contact = self._following.had_contact_within(self.config.election_timeout_s, now)
        return self.role is Role.LEADER or (self._leader is not None and in_contact)

    def _on_vote_request(self, request: VoteRequest, now: float) -> None:
        up_to_date = self._log.is_up_to_date(request.last_index, request.last_term)
        disturbs = self._has_live_leader(now) and not request.transfer
        if request.pre:
            works = self._gate.hung_since is None  # otherwise the vote itself would never come
            granted = not disturbs and up_to_date and works and request.term > self._term
            if granted:
                self._timer.yield_to_rival(now)
            term = request.term if granted else self._term
            self._send(request.sender, VoteResponse(self._id, term, granted, pre=True))
            return
        if disturbs:
            return
        if request.term > self._term:
            self._become_follower(request.term, None, now)
        free = self._voted_for in (None, request.sender) and self._leader is None
        if granted := request.term == self._term and free and up_to_date:
            self._voted_for = request.sender
            self._timer.reset(now)
        self._send(request.sender, VoteResponse(self._id, self._term, granted, pre=False))

    def _on_vote_response(self, response: VoteResponse, now: float) -> None:
        campaigning = Role.PRE_CANDIDATE if response.pre else Role.CANDIDATE
        asked_term = self._term + 1 if response.pre else self._term
        if self.role is not campaigning or (response.granted and response.term != asked_term):
            return
        match self._ballot.count(response.sender, response.granted, self._log.configuration):
            case VoteResult.WON if response.pre:
                self._campaign(now, transfer=False)
            case VoteResult.WON:
                self._become_leader(now)
            case VoteResult.LOST:
                self._become_follower(self._term, None, now)
                self._timer.round_lost(now, self._log.configuration)
            case VoteResult.OPEN:
                pass

    def _pre_campaign(self, now: float) -> None:
        """Ask whether an election could be won, without disturbing anybody (thesis 9.6)."""
        self._stand(Role.PRE_CANDIDATE, now)
        self._request_votes(self._term + 1, pre=True, transfer=False)
        self._on_vote_response(VoteResponse(self._id, self._term + 1, granted=True, pre=True), now)

    def _campaign(self, now: float, *, transfer: bool) -> None:
        assert self.role is not Role.LEADER
        self._stand(Role.CANDIDATE, now)
        self._term += 1
        self._voted_for = self._id
        # Our own vote counts like any other: when it is on disk.
        self._send(self._id, VoteResponse(self._id, self._term, granted=True, pre=False))
        self._request_votes(self._term, pre=False, transfer=transfer)

    def _stand(self, role: Role, now: float) -> None:
        self.role, self._leader, self._ballot = role, None, Ballot()
        self._timer.reset(now)

    def _request_votes(self, term: int, *, pre: bool, transfer: bool) -> None:
        last = self._log.last_index, self._log.last_term
        request = VoteRequest(self._id, term, *last, pre, transfer)
        for voter in self._log.configuration.members:
            if voter != self._id and self._log.configuration.is_voter(voter):
                self._send(voter, request)

    def _become_follower(self, term: int, leader: NodeId | None, now: float) -> None:
        assert term >= self._term
        if term > self._term:
            self._term = term
            self._voted_for = None
        self.role, self._leader = Role.FOLLOWER, leader
        self._following = self._new_following(now)
        self._leadership, self.leads_from, self._ballot = None, None, Ballot()
        self._assembly.clear(term)
        self._timer.reset(now)

    def _new_following(self, now: float) -> Following:
        return Following(
            self._id, self._term, log=self._log, gate=self._gate, send=self._send, now=now
        )

    def _become_leader(self, now: float) -> None:
        assert self.role is Role.CANDIDATE
        self.role, self._leader = Role.LEADER, self._id
        self._assembly.clear()
        self._leadership = Leadership(
            self.config,
            self._log,
            reading=self._reading,
            term=self._term,
            now=now,
            send=self._send,
            append=self._append_own,
        )
        self.leads_from = self._leadership.first_index
        self._leadership.replication.heartbeat(self._commit, now)

    # --- time -------------------------------------------------------------------------------------

    def _on_deadline(self, now: float) -> None:
        leading = self._leadership
        self._gate.look(now)
        if leading is None:
            if now >= self._timer.deadline:
                if self._may_campaign():
                    self._pre_campaign(now)
                else:
                    self._leader = None  # those who wait for it had better know
            return
        self._effects.extend(leading.stalls(self._applied, durable=self._gate.durable, now=now))
        late = leading.gives_way(
            disk_hung=self._gate.hung_since is not None, durable=self._gate.durable, now=now
        )
        if late or not leading.on_deadline(self._commit, now):
            # Nobody answers: no client must believe that we lead (thesis 6.2).
            self._become_follower(self._term, None, now)

    def _on_peer_lost(self, node_id: NodeId, now: float) -> None:
        if self._leadership is not None:
            self._leadership.replication.on_lost(node_id)
        elif self.role is Role.FOLLOWER and node_id == self._leader:
            # Safe at once: others agree to the pre-vote only if they lost the leader too.
            self._leader = None
            self._timer.leader_lost(node_id, now, self._log.configuration)

    # --- replication ------------------------------------------------------------------------------

    def _on_bootstrapped(self, configuration: Configuration, now: float) -> None:
        if self._log.last_index > 0 or self._term > 0:
            return
        assert configuration.voters
        self._term = 1
        self._append_own(EntryKind.CONFIGURATION, encode_configuration(configuration))
        self._timer.begin(now, configuration)

    def _on_request(self, request: Request, now: float) -> None:
        if self._leadership is None:
            self._effects.extend(ProposalRejected(n, False, self._leader) for n in request.numbers)
            return
        self._effects.extend(self._leadership.on_request(request, self._commit, now))
        if isinstance(request, ChangeRequested):
            self._advance_commit(now)  # fewer may have to agree now

    def _append_own(self, kind: EntryKind, data: bytes) -> None:
        entries = [new_entry(self._log.last_index + 1, self._term, kind, data)]
        self._log.append(entries)
        self._gate.add_entries(entries)

    def _on_response(self, response: Response, now: float) -> None:
        if self._leadership is not None:
            news, effects = self._leadership.on_response(response, self._commit, now)
            self._effects.extend(effects)
            if news:
                self._advance_commit(now)

    def _advance_commit(self, now: float) -> None:
        leading = self._leadership
        if leading is None:
            return
        self._commit = leading.committed(self._gate.durable, self._commit, now=now)
        if leading.must_resign(self._commit):
            leading.resign(now)
            self._become_follower(self._term, None, now)

    def _on_append_request(self, request: AppendRequest) -> None:
        self._commit = self._following.append(request, self._commit)

    def _on_forgotten(self, request: AppendRequest) -> None:
        """Our disk is older than what we said: the driver ends this node, the leader learns why.

        At once, as nothing will be written any more; a rejection promises nothing.
        """
        held = (request.acknowledged, self._gate.durable)
        answer = self._following.rejection(*held, self._log.last_term)
        self._effects += [DiskOutdated(*held), SendMessage(request.sender, answer)]

    def _on_snapshot_chunk(self, chunk: SnapshotChunk, now: float) -> None:
        whole = self._assembly.take()
        if self._gate.installing is not None:
            return
        if chunk.index <= self._commit:
            self._following.confirm(chunk.sender, through=self._commit)
        elif whole is not None:
            self._effects += self._gate.order(self._term, self._voted_for, now)
            self._effects.append(self._gate.install(whole, now))
        else:
            self._following.received(chunk, self._assembly.size)

    def _finish_install(self, restore: RestoreSnapshot) -> None:
        snapshot = restore.snapshot
        self._log.install(snapshot)
        self._gate.durable = max(min(self._gate.durable, self._log.last_index), snapshot.index)
        self._applied, self._commit = snapshot.index, max(self._commit, snapshot.index)
        self._effects.append(restore)
        if self.role is Role.FOLLOWER and self._leader is not None:
            self._following.confirm(self._leader, through=snapshot.index)

    # --- disk and state machine -------------------------------------------------------------------

    def _send(self, to: NodeId, message: Message) -> None:
        """Send when the term and vote behind the message are on disk; that is often at once."""
        if self._gate.admit(to, message, self._term, self._voted_for, hold=to == self._id):
            self._effects.append(SendMessage(to, message))

    def _on_persisted(self, batch: int, now: float) -> None:
        durable_before, hung = self._gate.durable, self._gate.hung_since is not None
        ready = self._gate.persisted(batch, now)
        if (whole := self._gate.installed(batch)) is not None:
            self._finish_install(whole)
        for to, message in ready:
            if to != self._id:
                self._effects.append(SendMessage(to, message))
            elif isinstance(message, VoteResponse):
                self._on_vote_response(message, now)
        if hung:
            self._timer.reset(now)  # it expired meanwhile, and the leader may be well
        if self._gate.durable > durable_before:
            if self._leadership is not None:
                self._advance_commit(now)
            elif self._leader is not None:
                self._following.confirm(self._leader)

    def _apply_committed(self, read: tuple[Entry, ...] | None = None) -> None:
        """Apply what is committed and on our own disk: no snapshot runs ahead of the log."""
        end = min(self._commit, self._gate.durable)
        if end <= self._applied or self._gate.installing is not None:
            return
        entries = self._reading.due(self._applied + 1, end, read)
        if entries:
            self._applied = entries[-1].index
            if self._leadership is not None:
                self._leadership.applied(entries)
            self._effects.append(Apply(entries))

    def _on_snapshot_taken(self, index: int, pieces: tuple[bytes, ...]) -> None:
        if self._log.snapshot_index < index <= self._applied:
            self._effects.append(self._log.save(index, pieces, self.config))
