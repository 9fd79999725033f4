"""Who should have which seat in the cluster: from gossip's view to one membership change at a time.

Enters: the configuration, who is alive, how far followers are, the time. Leaves: a change, or none.
Never: I/O; takes a voter's seat away without giving it to somebody who holds the whole log.

- Whoever is alive and belongs to no cluster becomes a learner: it receives the log and serves
  browsers at once.
- A learner that has caught up gets the seat of a voter that is gone: crashed for `hold_down_s`, or
  replaced by a new self after its disk was lost. Both happen in one joint change.
- While nobody is gone, it gets a seat of its own if there are fewer than `voters_max`.
- A dead voter without such a successor keeps its seat: gossip alone may not shrink the voter set,
  because that can take the majority away from those who hold the log.
- So does a voter that left on purpose: most come back in a minute, after an upgrade. Only when it
  stays away, all others are here, and more than `voters_min` remain, its seat is taken down.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noti.raft.changes import Change
from noti.raft.events import Status
from noti.raft.messages import NodeId
from noti.roster import TAG_CLUSTER, TAG_NODE_ID
from noti.swim.messages import Member, MemberState

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


class Seating:
    """One leader's judgement; made anew with each leadership, as absence is timed from there."""

    def __init__(self, config: SeatingConfig) -> None:
        """Start without having missed anybody."""
        self._config = config
        self._missed_since: dict[NodeId, float] = {}

    def advise(self, status: Status, members: Iterable[Member], now: float) -> Change:
        """Return what should change next; an empty change for nothing."""
        configuration = status.configuration
        seen = {
            member.tags[TAG_NODE_ID]: member
            for member in members
            if member.tags.get(TAG_NODE_ID)
            and member.tags.get(TAG_CLUSTER, "") in ("", configuration.cluster_id)
        }
        here = {n for n, member in seen.items() if member.state <= MemberState.SUSPECT}
        self._note_absence([n for n in configuration.members if n not in here], now)

        strangers = here - set(configuration.members)
        if strangers:
            return Change(add=frozenset(strangers))
        forgotten = self._away(configuration.learners, self._config.forget_s, now)
        left = {n for n, member in seen.items() if member.state is MemberState.LEFT}
        left_learners = left & set(configuration.learners)
        if forgotten or left_learners:
            return Change(remove=frozenset({*forgotten, *left_learners}))
        return self._fill_seats(status, here, now) or self._take_down_seat(status, left, now)

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
