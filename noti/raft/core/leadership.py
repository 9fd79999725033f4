"""What a leader does with the requests of its node, for one term.

Enters: proposals, changes of membership, reads, the wish to hand over; what followers answer.
Leaves: entries through `append`, messages through `send`, effects for the driver.
Never: terms, votes, disk; the core owns those and makes one of these per leadership.

Sources: Raft 5.4.2 (commit by counting), 6.4 (read index); thesis 3.10 (transfer), 4.2.2 (a leader
that removes itself), 4.3 (joint consensus; the leader leaves it by itself).

Followers hold entries before their leader does when it is the leader's disk that is slow: they can
commit without it, but it can apply nothing, so its clients get no answer.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from noti.raft.core.config import RaftConfig
from noti.raft.core.events import (
    ChangeRejected,
    ChangeRequested,
    CommitStalled,
    Effect,
    ProposalAccepted,
    ProposalRejected,
    Proposed,
    ReadReady,
    ReadRequested,
    Request,
)
from noti.raft.core.log import RaftLog, Reading
from noti.raft.core.membership import (
    Change,
    Configuration,
    encode_configuration,
    has_quorum,
    leave_joint,
    next_configuration,
)
from noti.raft.core.messages import Entry, EntryKind, Message, NodeId, Response, TimeoutNow
from noti.raft.core.replication import Replication


class Leadership:
    """One term of leading."""

    def __init__(
        self,
        config: RaftConfig,
        log: RaftLog,
        *,
        reading: Reading,
        term: int,
        now: float,
        send: Callable[[NodeId, Message], None],
        append: Callable[[EntryKind, bytes], None],
    ) -> None:
        """Start to lead: append the term's own no-op, without which nothing older commits."""
        self._config = config
        self._log = log
        self._term = term
        self._send = send
        self._append = append
        self.replication = Replication(config, log, reading=reading, term=term, now=now, send=send)
        self.first_index = log.last_index + 1
        """Index of the term's own no-op: commit by counting starts here (Raft 5.4.2)."""
        self._uncommitted_bytes = 0
        self._reads: deque[tuple[int, int, int]] = deque()
        """(round that must be confirmed, request, commit index when it came)."""
        self._successor: NodeId | None = None
        self._transfer_deadline = 0.0
        self._stalled_at = now + config.election_timeout_s
        """When somebody should say why, if nothing of this term is applied."""
        self._stalled = False
        append(EntryKind.NOOP, b"")

    # --- requests ---------------------------------------------------------------------------------

    def on_request(self, request: Request, commit: int, now: float) -> list[Effect]:
        """Take up what this node wants from its leader."""
        match request:
            case Proposed(proposals):
                return self._propose(proposals, commit, now)
            case ChangeRequested(number, change):
                return [self._change(number, change, commit, now)]
            case ReadRequested(numbers):
                return self._read(numbers, commit, now)
            case _:
                assert_never(request)

    def _propose(
        self, proposals: Sequence[tuple[int, bytes]], commit: int, now: float
    ) -> list[Effect]:
        """Append commands, unless the backlog is full or somebody else is about to lead."""
        effects: list[Effect] = []
        for request, data in proposals:
            if self._successor is not None:
                effects.append(ProposalRejected(request, False, self._successor))
            elif self._uncommitted_bytes + len(data) > self._config.uncommitted_bytes_max:
                effects.append(ProposalRejected(request, True, self._config.node_id))
            else:
                self._uncommitted_bytes += len(data)
                self._append(EntryKind.COMMAND, data)
                effects.append(ProposalAccepted(request, self._log.last_index, self._term))
        self.replication.send_new_entries(commit, now)
        return effects

    def _change(self, request: int, change: Change, commit: int, now: float) -> Effect:
        """Append the configuration that a change leads to; one change at a time.

        Only after an entry of the own term is committed: without that, two leaders could have two
        uncommitted configurations whose majorities do not overlap (Ongaro 2015).
        """
        if commit < max(self.first_index, self._log.configuration_index):
            return ChangeRejected(request, "the last change, or the election, is not committed yet")
        if self._successor is not None:
            return ChangeRejected(request, "leadership is being handed over")
        try:
            following = next_configuration(self._log.configuration, change)
        except ValueError as error:
            return ChangeRejected(request, str(error))
        if following is None:
            return ChangeRejected(request, "it is so already")
        matches = self.replication.matches()
        newcomers = [n for n in change.promote if n in self._log.configuration.learners]
        if not all(matches.get(n) for n in newcomers):
            # It knows of no cluster and would reject its vote, perhaps the one that is needed.
            return ChangeRejected(request, "a learner to promote has nothing of the log yet")
        self._append_configuration(following, commit, now)
        return ProposalAccepted(request, self._log.last_index, self._term)

    def _read(self, requests: Sequence[int], commit: int, now: float) -> list[Effect]:
        """Remember what is committed now, and ask everybody whether this node still leads.

        Before the term's own no-op is committed, `commit` may be behind what an older leader
        committed: such readers wait for that too.
        """
        confirming = self.replication.heartbeat(commit, now)
        index = max(commit, self.first_index)
        self._reads.extend((confirming, request, index) for request in requests)
        return self._confirmed_reads()

    def hand_over(self, now: float) -> None:
        """Let the voter that holds most catch up, and ask it to campaign (thesis 3.10)."""
        if self._successor is None:
            self._successor = self.replication.best_successor(now)
            self._transfer_deadline = now + self._config.election_timeout_s
            self._finish_hand_over()

    # --- followers' answers, time -----------------------------------------------------------------

    def on_response(self, response: Response, commit: int, now: float) -> tuple[bool, list[Effect]]:
        """Return whether more may be committed now, and which reads are confirmed."""
        news = self.replication.on_response(response, commit, now)
        if self._successor is not None:
            self._finish_hand_over()
        effects: list[Effect] = self.replication.noticed()
        if self._reads:
            effects += self._confirmed_reads()
        return news, effects

    def deadline(self) -> float:
        """When the next heartbeat, quorum check or end of a transfer is due."""
        replication = self.replication
        deadline = replication.quorum_deadline
        # A leader without followers has nobody to speak to.
        if replication.has_followers and replication.heartbeat_deadline < deadline:
            deadline = replication.heartbeat_deadline
        return deadline if self._successor is None else min(deadline, self._transfer_deadline)

    def on_deadline(self, commit: int, now: float) -> bool:
        """Do what is due; return False when no quorum answered for an election timeout."""
        if now >= self.replication.quorum_deadline and not self.replication.check_quorum(now):
            return False
        if self._successor is not None and now >= self._transfer_deadline:
            self._successor = None
            self._leave_joint(commit, now)
        if now >= self.replication.heartbeat_deadline:
            self.replication.heartbeat(commit, now)
        return True

    # --- trouble ----------------------------------------------------------------------------------

    def stalls(self, applied: int, *, durable: int, now: float) -> list[Effect]:
        """Say, once, why nothing of the term is applied an election timeout after it began."""
        if self._stalled or applied >= self.first_index or now < self._stalled_at:
            return []
        self._stalled = True
        own, configuration = self._config.node_id, self._log.configuration
        reason = obstacle(
            self.replication,
            configuration,
            own_id=own,
            index=self.first_index,
            durable=durable,
            now=now,
        )
        return [CommitStalled(reason)]

    def gives_way(self, *, disk_hung: bool, durable: int, now: float) -> bool:
        """Let somebody lead whose disk works, if ours does not; return True to step down at once.

        Ours does not if it hangs, or has not even taken the term's first entry after an election
        timeout. Nobody is asked who is not known to do better: an election needs disks, too.
        """
        if not (disk_hung or (self._stalled and durable < self.first_index)):
            return False
        if self._successor is not None:
            return now >= self._transfer_deadline
        if has_better(self.replication, durable, now=now):
            self.hand_over(now)
        return False

    # --- commit -----------------------------------------------------------------------------------

    def committed(self, durable: int, commit: int, *, now: float) -> int:
        """Return the commit index; it moves only to entries of the own term (Raft figure 8)."""
        index = self.replication.quorum_index(durable)
        if index <= commit or index < self.first_index:
            return commit
        self.replication.announce_commit(index, now)
        self._leave_joint(index, now)
        return index

    def must_resign(self, commit: int) -> bool:
        """Whether this node is not a voter any more, and everybody may know (thesis 4.2.2)."""
        removed = not self._log.configuration.is_voter(self._config.node_id)
        return removed and self._log.configuration_index <= commit

    def resign(self, now: float) -> None:
        """Ask the best of the others to campaign at once."""
        successor = self.replication.best_successor(now)
        if successor is not None:
            self._send(successor, TimeoutNow(self._config.node_id, self._term))

    def applied(self, entries: Sequence[Entry]) -> None:
        """Give back the backlog's room that these entries took."""
        for entry in entries:
            if entry.index > self.first_index and entry.kind is EntryKind.COMMAND:
                self._uncommitted_bytes -= entry.size_bytes

    # --- parts ------------------------------------------------------------------------------------

    def _leave_joint(self, commit: int, now: float) -> None:
        """End a joint configuration that is committed.

        While there is a successor, that is left to it, as it would lack the entry.
        """
        configuration = self._log.configuration
        joint = configuration.outgoing and self._log.configuration_index <= commit
        if joint and self._successor is None:
            self._append_configuration(leave_joint(configuration), commit, now)

    def _append_configuration(self, configuration: Configuration, commit: int, now: float) -> None:
        self._append(EntryKind.CONFIGURATION, encode_configuration(configuration))
        self.replication.follow_configuration(now)
        self.replication.send_new_entries(commit, now)

    def _confirmed_reads(self) -> list[Effect]:
        if not self._reads:
            return []
        confirmed = self.replication.confirmed_round()
        effects: list[Effect] = []
        while self._reads and self._reads[0][0] <= confirmed:
            _, request, index = self._reads.popleft()
            effects.append(ReadReady(request, index))
        return effects

    def _finish_hand_over(self) -> None:
        if self._successor is not None and self.replication.has_everything(self._successor):
            self._send(self._successor, TimeoutNow(self._config.node_id, self._term))


def has_better(replication: Replication, durable: int, *, now: float) -> bool:
    """Whether a voter that answers has more on its disk than this leader."""
    successor = replication.best_successor(now)
    return successor is not None and replication.matches()[successor] > durable


def obstacle(
    replication: Replication,
    configuration: Configuration,
    *,
    own_id: NodeId,
    index: int,
    durable: int,
    now: float,
) -> str:
    """Return why the entry at `index` is not committed and applied here."""
    silent = replication.silent(now)
    voters = [node for node in configuration.members if configuration.is_voter(node)]
    answering = [node for node in voters if node not in silent]
    if not has_quorum(configuration, answering):
        return f"no majority answers; no answer from {_names(silent)}"
    matches = {**replication.matches(), own_id: durable}
    missing = [node for node in answering if matches[node] < index]
    if own_id in missing:
        return "this node's own disk has not taken its entry yet"
    return f"the entry is not on the disk of {_names(missing)}"


def _names(nodes: list[NodeId]) -> str:
    return ", ".join(sorted(nodes)) or "nobody"
