"""What a follower does with the leader's requests for its log, within one term.

Enters: the leader's requests and snapshots, how far our log is on disk. Leaves: the log as the
leader has it, answers through `send`. Never: a term's end; the core makes a new one of these with
each term and leader.

Sources: Raft 5.3 (match index), 6.4 (rounds by which a leader finds out that it still leads).
"""

from collections.abc import Callable

from noti.raft.core.gate import Gate
from noti.raft.core.log import RaftLog
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Entry,
    Message,
    NodeId,
    SnapshotChunk,
    SnapshotReceived,
)


class Following:
    """A follower and its leader."""

    __slots__ = (
        "_confirmed",
        "_gate",
        "_id",
        "_log",
        "_round",
        "_send",
        "_term",
        "announced",
        "last_contact_at",
        "matched",
    )

    def __init__(
        self,
        own_id: NodeId,
        term: int,
        *,
        log: RaftLog,
        gate: Gate,
        send: Callable[[NodeId, Message], None],
        now: float,
    ) -> None:
        """Begin without any contact."""
        self._id, self._term = own_id, term
        self._log, self._gate, self._send = log, gate, send
        self.last_contact_at = now
        """When the leader last spoke; until it does, when this began."""
        self.announced: tuple[float, int] | None = None
        """When it last sent a request for the log, and its commit index then."""
        self.matched = 0
        """Our log equals the leader's up to this index."""
        self._round = 0
        """The newest round of its requests."""
        self._confirmed: tuple[int, int] | None = None

    def had_contact_within(self, seconds: float, now: float) -> bool:
        """Whether the leader spoke in the last `seconds`."""
        return now - self.last_contact_at < seconds

    def fresh_at(self, applied: int) -> float | None:
        """Return when the leader announced a commit that covers all older terms and is applied.

        A commit covers them once it is of its leader's own term (Raft 6.4).
        """
        if self.announced is None:
            return None
        at, commit = self.announced
        return at if commit <= applied and self._log.term_at(commit) == self._term else None

    def note_request(self, request: AppendRequest, now: float) -> None:
        """Note what a request says of its leader; an older one may arrive late."""
        self.announced = (now, request.commit)
        self._round = max(self._round, request.round)

    def append(self, request: AppendRequest, commit: int) -> int:
        """Make the log the leader's, as far as the request allows; return the commit index."""
        if self._gate.installing is not None:
            self.confirm(request.sender)  # to be counted as alive, however slow the disk is
            return commit
        previous = request.previous_index
        known_term = self._log.term_at(previous)
        if known_term is None and previous < commit:
            # Compacted, hence committed, hence equal to the leader's: say how far that goes.
            self.confirm(request.sender, through=commit)
            return commit
        if known_term != request.previous_term:
            hint = self._log.last_index_with_term_at_most(previous, request.previous_term)
            self._send(request.sender, self.rejection(previous, hint, self._log.term_at(hint) or 0))
            return commit
        if request.entries:
            self._take_entries(request.entries, commit)
        last_new = previous + len(request.entries)
        self.matched = max(self.matched, last_new)
        # Entries are confirmed when they are on disk; the mere news of a commit is not at all.
        durable = self._gate.durable
        if durable >= last_new if request.entries else self._has_news():
            self.confirm(request.sender)
        return max(commit, min(request.commit, last_new))

    def confirm(self, leader: NodeId, through: int = 0) -> None:
        """Vouch for what equals the leader's log, now known `through` an index, and is on disk."""
        self.matched = max(self.matched, through)
        match, round_ = self._confirmed = self._confirmation()
        self._send(leader, AppendAccepted(self._id, self._term, match, round_))

    def received(self, chunk: SnapshotChunk, size: int) -> None:
        """Tell the leader how much of its snapshot is here, unless the piece was out of place."""
        if size > 0:
            self._send(chunk.sender, SnapshotReceived(self._id, self._term, chunk.index, size))

    def rejection(self, rejected: int, hint: int, hint_term: int) -> AppendRejected:
        """Return the answer that our log does not agree at `rejected`, and may at the hint."""
        return AppendRejected(self._id, self._term, rejected, hint, hint_term, self._round)

    def stream_is_new(self) -> None:
        """Forget what the leader was answered: it may never have arrived."""
        self._confirmed = None

    def _take_entries(self, entries: tuple[Entry, ...], commit: int) -> None:
        news = self._log.news_in(entries)
        if news and news[0].index <= self._log.last_index:
            assert news[0].index > commit, "the message was checked for that"
            self._log.truncate_from(news[0].index)
            self._gate.drop_entries_from(news[0].index)
        self._log.append(news)
        self._gate.add_entries(news)

    def _has_news(self) -> bool:
        """Whether the leader was answered something else, or may not have received it."""
        return self._confirmed != self._confirmation()

    def _confirmation(self) -> tuple[int, int]:
        return min(self.matched, self._gate.durable), self._round
