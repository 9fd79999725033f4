"""Who should have which seat in the cluster: from gossip's view to one membership change at a time.

Enters: the configuration, who is alive, who asked to go, how far followers are, the time.
Leaves: a change, or none; or that somebody else has to lead first.
Never: I/O; takes the seat of a voter away who did not ask for that, without giving it to somebody
who holds the whole log.

- Whoever is alive and belongs to no cluster becomes a learner: it receives the log and serves
  browsers at once.
- A learner that has caught up gets the seat of a voter that is gone: crashed for `hold_down_s`, or
  replaced by a new self after its disk was lost. Both happen in one joint change.
- While nobody is gone, it gets a seat of its own if there are fewer than `voters_max`.
- A dead voter without such a successor keeps its seat: gossip alone may not shrink the voter set,
  because that can take the majority away from those who hold the log.
- So does a voter that left on purpose: most come back in a minute, after an upgrade. Only when it
  stays away, all others are here, and more than `voters_min` remain, its seat is taken down.
- A voter that asks to go for good becomes a learner, which still serves its browsers, and gets no
  seat again until it was restarted; whatever the number of voters, so long as those who stay can
  commit without it. If they can not, because too many of them have been away for `hold_down_s`,
  these lose their seats in the same joint change: nobody of those who stay alone holds a majority.
  It has to ask on the authenticated stream between nodes, and to show it in gossip, where whoever
  leads next will see that it must not get a seat.
"""

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from enum import Enum

from noti.membership.tags import TAG_CLUSTER, TAG_LEAVING, TAG_NODE_ID
from noti.raft.core.changes import Change
from noti.raft.core.events import Status
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import Member, MemberState

CAUGHT_UP_ENTRIES = 100
"""A learner that lacks fewer than these is promoted: a moment's work, whatever the load."""


@dataclass(frozen=True, slots=True)
class SeatingConfig:
    """How seats are given."""

    voters_max: int = 5
    """More voters make every commit slower and tolerate no likelier failure."""
    voters_min: int = 3
    """Seats are never taken down below this: three is the least that survives a loss."""
    hold_down_s: float = 15.0
    """A restart is over by then, so who is still away gives its seat to a successor."""
    forget_s: float = 60.0
    """A learner that is away, or a voter that left, is dropped after this: it was not a restart."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """Somebody else has to lead, who then takes this node's seat away."""


class Standing(Enum):
    """How far a node is that wants to give up its seat."""

    VOTES = "votes"
    """It has a seat."""
    FREE = "free"
    """It has none, and a majority of those who have one agreed."""
    LAST = "last"
    """Nobody but it could vote."""
    STRANGER = "stranger"
    """It belongs to no cluster yet."""


def standing(status: Status, members: Iterable[Member], own_id: NodeId) -> Standing:
    """Return how far the node `own_id` is, as it sees the cluster itself."""
    configuration = status.configuration
    if not configuration.cluster_id:
        return Standing.STRANGER
    if not configuration.is_voter(own_id):
        committed = status.configuration_index <= status.commit_index
        return Standing.FREE if committed else Standing.VOTES
    seen = _members_of(configuration.cluster_id, members)
    heirs = set(configuration.learners) & (_here(seen) - _leaving(seen))
    others = set(configuration.voters) - {own_id}
    return Standing.VOTES if others or heirs else Standing.LAST


def _members_of(cluster_id: str, members: Iterable[Member]) -> dict[NodeId, Member]:
    return {
        member.tags[TAG_NODE_ID]: member
        for member in members
        if member.tags.get(TAG_NODE_ID) and member.tags.get(TAG_CLUSTER, "") in ("", cluster_id)
    }


def _here(seen: Mapping[NodeId, Member]) -> set[NodeId]:
    return {n for n, member in seen.items() if member.state <= MemberState.SUSPECT}


def _leaving(seen: Mapping[NodeId, Member]) -> set[NodeId]:
    return {n for n, member in seen.items() if TAG_LEAVING in member.tags}


class Seating:
    """One leader's judgement; made anew with each leadership, as absence is timed from there."""

    def __init__(self, config: SeatingConfig) -> None:
        """Start without having missed anybody."""
        self._config = config
        self._missed_since: dict[NodeId, float] = {}

    def advise(
        self,
        status: Status,
        members: Iterable[Member],
        asked: Set[NodeId],
        connected: Set[NodeId],
        now: float,
    ) -> Change | HandOver:
        """Return what should happen next; an empty change for nothing.

        `asked` are those who asked this leader to take their seat, `connected` those to whom it has
        a stream: who has left, and still has one, is sending its browsers away, and they shall see
        what happens meanwhile.
        """
        configuration = status.configuration
        seen = _members_of(configuration.cluster_id, members)
        here, leaving = _here(seen), _leaving(seen)
        self._note_absence([n for n in configuration.members if n not in here], now)

        relief = self._relieve(status, here, leaving & asked, now)
        if relief:
            return relief
        strangers = here - set(configuration.members)
        if strangers:
            return Change(add=frozenset(strangers))
        forgotten = self._away(configuration.learners, self._config.forget_s, now)
        left = {n for n, member in seen.items() if member.state is MemberState.LEFT}
        left_learners = left & set(configuration.learners)
        absent_learners = {*forgotten, *left_learners} - connected
        if absent_learners:
            return Change(remove=frozenset(absent_learners))
        filled = self._fill_seats(status, here - leaving, now)
        return filled or self._take_down_seat(status, left, now)

    def _relieve(
        self, status: Status, here: set[NodeId], leaving: set[NodeId], now: float
    ) -> Change | HandOver | None:
        """Take the seat of one who asked for that; the leader's only when no other is to go."""
        voters = set(status.configuration.voters)
        for node in sorted(leaving & voters, key=lambda n: (n == status.leader, n)):
            staying = voters - {node}
            gone: list[NodeId] = []
            if not _is_majority(staying & here, staying):
                gone = self._away(sorted(staying), self._config.hold_down_s, now)
                staying -= set(gone)
            if not _is_majority(staying & here, staying):
                continue
            if node == status.leader:
                return HandOver()
            return Change(demote=frozenset({node}), remove=frozenset(gone))
        return None

    def _fill_seats(self, status: Status, here: set[NodeId], now: float) -> Change:
        configuration = status.configuration
        matches: Mapping[NodeId, int] = dict(status.followers)
        ready = [
            learner
            for learner in configuration.learners
            if learner in here
            and matches.get(learner, 0) + CAUGHT_UP_ENTRIES > status.last_index
            and matches.get(learner, 0) >= min(status.commit_index, status.first_index)
        ]
        if not ready:
            return Change()
        successor = frozenset(ready[:1])
        absent = [voter for voter in configuration.voters if voter in self._missed_since]
        gone = self._away(absent, self._config.hold_down_s, now)
        if gone:
            return Change(promote=successor, remove=frozenset(gone[:1]))
        if not absent and len(configuration.voters) < self._config.voters_max:
            return Change(promote=successor)
        return Change()

    def _take_down_seat(self, status: Status, left: set[NodeId], now: float) -> Change:
        voters = status.configuration.voters
        absent = [voter for voter in voters if voter in self._missed_since]
        gone = self._away(sorted(left & set(absent)), self._config.forget_s, now)
        if len(absent) == 1 and gone and len(voters) > self._config.voters_min:
            return Change(remove=frozenset(gone))
        return Change()

    def _note_absence(self, absent: Iterable[NodeId], now: float) -> None:
        self._missed_since = {n: self._missed_since.get(n, now) for n in absent}

    def _away(self, nodes: Iterable[NodeId], longer_than_s: float, now: float) -> list[NodeId]:
        return [
            n
            for n in nodes
            if n in self._missed_since and now - self._missed_since[n] >= longer_than_s
        ]


def _is_majority(some: Collection[NodeId], of: Collection[NodeId]) -> bool:
    return 2 * len(some) > len(of)
