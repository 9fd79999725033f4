"""Which nodes should vote: from gossip's view to one membership change at a time.

Enters: the configuration, which nodes are alive, which ones asked to be decommissioned, how far
learners are, the time.
Leaves: a change, or none; or that another node has to lead first.
Never: I/O; removes a voter that did not ask for that without promoting a learner that holds the
whole log in its place.

- A node that is alive and belongs to no cluster becomes a learner, once there is a stream to it: it
  receives the log and serves browsers at once. Who only gossips does not, or strangers would.
- A learner that has caught up replaces a voter that is absent: crashed for `hold_down_s`, or
  replaced by a new self after its disk was lost. Both happen in one joint change.
- While no voter is absent, learners become further voters up to `voters_max`, so that the number of
  voters is odd afterwards: a fourth voter makes commits slower, and four survive no more failures
  than three. Only a second voter is better than none: what is committed is then on two disks.
- A dead voter without such a successor stays a voter: gossip alone may not shrink the voter set,
  because that can take the majority away from those who hold the log.
- So does a voter that left on purpose: most come back in a minute, after an upgrade. Only when it
  stays away, all others are alive, and more than `voters_min` remain, it is removed.
- A voter that is being decommissioned becomes a learner, which still serves its browsers, and is
  not promoted again until it was restarted; whatever the number of voters, so long as those that
  stay can commit without it. If they cannot, because too many of them have been absent for
  `hold_down_s`, these are removed in the same joint change: none of those that stay alone holds a
  majority. It has to ask on the authenticated stream between nodes, and to show it in gossip, where
  the next leader will see that it must not be promoted.
"""

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from enum import Enum

from noti.membership.tags import ALIVE_STATES, TAG_CLUSTER, TAG_LEAVING, TAG_NODE_ID
from noti.raft.core.membership import Change
from noti.raft.core.messages import NodeId
from noti.raft.core.status import Status
from noti.swim.core.messages import Member, MemberState

CAUGHT_UP_ENTRIES = 100
"""A learner that lacks fewer than these is promoted: a moment's work, whatever the load."""


@dataclass(frozen=True, slots=True)
class VoterLimits:
    """How many nodes vote, and how long they may be absent."""

    voters_max: int = 5
    """More voters make every commit slower and tolerate no likelier failure."""
    voters_min: int = 3
    """No voter is removed below this: three is the least that survives a loss."""
    hold_down_s: float = 15.0
    """A restart is over by then: a voter that is still absent is replaced by a successor."""
    forget_s: float = 60.0
    """An absent learner, or a voter that left, is removed after this: it was not a restart."""


@dataclass(frozen=True, slots=True)
class LeadershipTransfer:
    """Another node has to lead, which then demotes this one."""


class VoterState(Enum):
    """How far a node is that is to be decommissioned."""

    VOTER = "voter"
    """It votes, or a majority has not agreed yet that it does not."""
    NO_VOTER = "no voter"
    """It does not vote, and a majority of the voters agreed."""
    LAST_VOTER = "last voter"
    """No other node could vote."""
    NO_CLUSTER = "no cluster"
    """It belongs to no cluster yet."""


def voter_state(status: Status, members: Iterable[Member], own_id: NodeId) -> VoterState:
    """Return how far the node `own_id` is, as it sees the cluster itself."""
    configuration = status.configuration
    if not configuration.cluster_id:
        return VoterState.NO_CLUSTER
    if not configuration.is_voter(own_id):
        committed = status.configuration_index <= status.commit_index
        return VoterState.NO_VOTER if committed else VoterState.VOTER
    seen = _members_of(configuration.cluster_id, members)
    successors = set(configuration.learners) & (_alive(seen) - _leaving(seen))
    others = set(configuration.voters) - {own_id}
    return VoterState.VOTER if others or successors else VoterState.LAST_VOTER


def live_voters(status: Status, members: Iterable[Member]) -> list[str]:
    """Return the names of the voters that gossip sees alive, in order.

    During a change these are all members, as it may still need those whom it takes the vote from.
    """
    configuration = status.configuration
    changing = configuration.outgoing or status.configuration_index > status.commit_index
    needed = configuration.members if changing else configuration.voters
    seen = _members_of(configuration.cluster_id, members)
    return sorted(seen[node].name for node in _alive(seen) & set(needed))


def _members_of(cluster_id: str, members: Iterable[Member]) -> dict[NodeId, Member]:
    return {
        member.tags[TAG_NODE_ID]: member
        for member in members
        if member.tags.get(TAG_NODE_ID) and member.tags.get(TAG_CLUSTER, "") in ("", cluster_id)
    }


def _alive(seen: Mapping[NodeId, Member]) -> set[NodeId]:
    return {n for n, member in seen.items() if member.state in ALIVE_STATES}


def _leaving(seen: Mapping[NodeId, Member]) -> set[NodeId]:
    return {n for n, member in seen.items() if TAG_LEAVING in member.tags}


class VoterPolicy:
    """One leader's view; made anew with each leadership, as absence is timed from there."""

    def __init__(self, limits: VoterLimits) -> None:
        """Start with no node absent."""
        self.limits = limits
        self._absent_since: dict[NodeId, float] = {}

    def advise(
        self,
        status: Status,
        members: Iterable[Member],
        demotion_requested: Set[NodeId],
        connected: Set[NodeId],
        now: float,
    ) -> Change | LeadershipTransfer:
        """Return what should happen next; an empty change for nothing.

        `demotion_requested` are the nodes that asked this leader to be demoted, `connected` those
        to which it has a stream: others are not added; one that has left, and still has a stream,
        is sending its browsers away, and they shall see what happens meanwhile.
        """
        configuration = status.configuration
        seen = _members_of(configuration.cluster_id, members)
        alive, leaving = _alive(seen), _leaving(seen)
        self._note_absence([n for n in configuration.members if n not in alive], now)

        demotion = self._demote(status, alive, leaving & demotion_requested, now)
        if demotion:
            return demotion
        # Whoever gossips may show an id, but not exchange hellos under it.
        newcomers = (alive & connected) - set(configuration.members)
        if newcomers:
            return Change(add=frozenset(newcomers))
        forgotten = self._absent_for(configuration.learners, self.limits.forget_s, now)
        left = {n for n, member in seen.items() if member.state is MemberState.LEFT}
        left_learners = left & set(configuration.learners)
        absent_learners = {*forgotten, *left_learners} - connected
        if absent_learners:
            return Change(remove=frozenset(absent_learners))
        promotion = self._promote(status, alive - leaving, now)
        return promotion or self._remove_absent(status, left, now)

    def _demote(
        self, status: Status, alive: set[NodeId], leaving: set[NodeId], now: float
    ) -> Change | LeadershipTransfer | None:
        """Demote a voter that asked for it; the leader only after all others that did."""
        voters = set(status.configuration.voters)
        for node in sorted(leaving & voters, key=lambda n: (n == status.leader, n)):
            staying = voters - {node}
            absent: list[NodeId] = []
            if not _is_majority(staying & alive, staying):
                absent = self._absent_for(sorted(staying), self.limits.hold_down_s, now)
                staying -= set(absent)
            if not _is_majority(staying & alive, staying):
                continue
            if node == status.leader:
                return LeadershipTransfer()
            return Change(demote=frozenset({node}), remove=frozenset(absent))
        return None

    def _promote(self, status: Status, alive: set[NodeId], now: float) -> Change:
        """Promote a learner that has caught up, in place of an absent voter if there is one."""
        configuration = status.configuration
        matches: Mapping[NodeId, int] = dict(status.followers)
        caught_up = [
            learner
            for learner in configuration.learners
            if learner in alive
            and matches.get(learner, 0) + CAUGHT_UP_ENTRIES > status.last_index
            and matches.get(learner, 0) >= min(status.commit_index, status.first_index)
        ]
        if not caught_up:
            return Change()
        absent = [voter for voter in configuration.voters if voter in self._absent_since]
        replaced = self._absent_for(absent, self.limits.hold_down_s, now)
        if replaced:
            return Change(promote=frozenset(caught_up[:1]), remove=frozenset(replaced[:1]))
        wanted = additional_voters(
            len(configuration.voters), len(caught_up), self.limits.voters_max
        )
        return Change() if absent else Change(promote=frozenset(caught_up[:wanted]))

    def _remove_absent(self, status: Status, left: set[NodeId], now: float) -> Change:
        """Remove a voter that left on purpose and stays away, while all others are alive."""
        voters = status.configuration.voters
        absent = [voter for voter in voters if voter in self._absent_since]
        removed = self._absent_for(sorted(left & set(absent)), self.limits.forget_s, now)
        if len(absent) == 1 and removed and len(voters) > self.limits.voters_min:
            return Change(remove=frozenset(removed))
        return Change()

    def _note_absence(self, absent: Iterable[NodeId], now: float) -> None:
        self._absent_since = {n: self._absent_since.get(n, now) for n in absent}

    def _absent_for(self, nodes: Iterable[NodeId], at_least_s: float, now: float) -> list[NodeId]:
        return [
            n
            for n in nodes
            if n in self._absent_since and now - self._absent_since[n] >= at_least_s
        ]


def additional_voters(voters: int, learners: int, voters_max: int) -> int:
    """Return how many learners that have caught up should become voters beside those there are."""
    to_odd = 1 + voters % 2
    if to_odd <= learners and voters + to_odd <= voters_max:
        return to_odd
    return 1 if voters == 1 and learners and voters_max > 1 else 0


def _is_majority(some: Collection[NodeId], of: Collection[NodeId]) -> bool:
    return 2 * len(some) > len(of)
