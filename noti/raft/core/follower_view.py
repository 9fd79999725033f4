"""What a follower and its leader know about each other, within one term.

Enters: what the leader says, how far our log is known to equal its log, how far it is on our disk.
Leaves: the answers to it. Never: entries, sending, a term's end; the core makes a new one of these
with each term and leader.

Sources: Raft 5.3 (match index), 6.4 (rounds by which a leader finds out that it still leads).
"""

from noti.raft.core.log import RaftLog
from noti.raft.core.messages import AppendAccepted, AppendRejected, NodeId


class Following:
    """A follower's view of its leader."""

    __slots__ = ("_confirmed", "announced", "heard_at", "matched", "round")

    def __init__(self, now: float) -> None:
        """Begin without having heard anything."""
        self.heard_at = now
        """When the leader last spoke; until it does, when this began."""
        self.announced: tuple[float, int] | None = None
        """When it last sent a request for the log, and its commit index then."""
        self.round = 0
        """The newest round of its requests."""
        self.matched = 0
        """Our log equals the leader's up to this index."""
        self._confirmed: tuple[int, int] | None = None

    def heard_within(self, seconds: float, now: float) -> bool:
        """Whether the leader spoke in the last `seconds`."""
        return now - self.heard_at < seconds

    def requested(self, commit: int, round_: int, now: float) -> None:
        """Note a request for the log; an older one may arrive late."""
        self.announced = (now, commit)
        self.round = max(self.round, round_)

    def fresh_at(self, applied: int, log: RaftLog, term: int) -> float | None:
        """Return when the leader announced a commit that is applied by now and covers all older
        terms, as it does once it is of its own (Raft 6.4).
        """
        if self.announced is None:
            return None
        at, commit = self.announced
        return at if commit <= applied and log.term_at(commit) == term else None

    def confirmation(self, own_id: NodeId, term: int, durable: int) -> AppendAccepted:
        """Return the answer that tells the leader up to where it may count on us; it is told."""
        match, round_ = self._confirmed = (min(self.matched, durable), self.round)
        return AppendAccepted(own_id, term, match, round_)

    def rejection(
        self, own_id: NodeId, term: int, rejected: int, hint: int, hint_term: int
    ) -> AppendRejected:
        """Return the answer that our log does not agree at `rejected`, and may at the hint."""
        return AppendRejected(own_id, term, rejected, hint, hint_term, self.round)

    def has_news(self, durable: int) -> bool:
        """Whether the leader was told something else, or may not have heard it."""
        return self._confirmed != (min(self.matched, durable), self.round)

    def stream_is_new(self) -> None:
        """Forget what the leader was told: it may never have arrived."""
        self._confirmed = None
