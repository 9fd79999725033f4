"""When a node campaigns, and how votes add up.

Enters: time, lost leaders, votes. Leaves: a deadline, outcomes. Never: terms, messages, roles.

Sources: Raft 5.2 (randomised timeouts); thesis 9.6 (pre-vote).
"""

from enum import Enum

from noti.raft.core.config import RaftConfig, Rng
from noti.raft.core.membership import Configuration, has_quorum, vote_is_lost
from noti.raft.core.messages import NodeId

EARLY_ROUNDS = 3
"""Early campaigns after a broken stream; if the others still have a leader by then, so be it."""


class ElectionTimer:
    """The moment of the next campaign."""

    def __init__(
        self, config: RaftConfig, rng: Rng, configuration: Configuration, *, now: float
    ) -> None:
        """Start as `begin` does."""
        self._config = config
        self._rng = rng
        self._early_rounds = 0
        self._lost: NodeId | None = None
        self.deadline = now
        self.begin(now, configuration)

    def begin(self, now: float, configuration: Configuration) -> None:
        """Wait a full timeout for a leader, as a node does that has just come up.

        A voter without others has nobody to hear of, and need not wait.
        """
        if configuration.voters == (self._config.node_id,) and not configuration.outgoing:
            self.deadline = now
        else:
            self.reset(now)

    def reset(self, now: float) -> None:
        """Wait a full, random timeout again: 1x to 2x, so that ties are rare."""
        timeout = self._config.election_timeout_s
        self.deadline = now + self._rng.uniform(timeout, 2 * timeout)

    def leader_spoke(self, now: float) -> None:
        """Note that there is a leader: no early campaigns, and a full timeout."""
        self._early_rounds = 0
        self.reset(now)

    def leader_lost(self, leader: NodeId, now: float, configuration: Configuration) -> None:
        """Campaign early, in turn with the other voters that are left.

        All of them lose the stream in the same moment, and a tie would cost a whole timeout. Some
        may notice a little later than we do, so it is worth more than one round.
        """
        self._early_rounds, self._lost = EARLY_ROUNDS, leader
        self.round_lost(now, configuration)

    def round_lost(self, now: float, configuration: Configuration) -> None:
        """Try again early if rounds are left; otherwise leave the deadline as it is."""
        if self._early_rounds == 0:
            return
        self._early_rounds -= 1
        left = [voter for voter in configuration.voters if voter != self._lost]
        own = self._config.node_id
        turn = left.index(own) if own in left else len(left)
        step_s = self._config.reset_step_s
        soon = now + turn * step_s + self._rng.uniform(0.0, step_s / 4)
        self.deadline = min(self.deadline, soon)

    def yield_to_rival(self, now: float) -> None:
        """Give somebody who is about to ask for our vote the time to do so."""
        self.deadline = max(self.deadline, now + self._config.heartbeat_interval_s)


class VoteResult(Enum):
    """What the votes so far mean."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"


class Ballot:
    """The votes of one round."""

    def __init__(self) -> None:
        """Start without votes."""
        self._votes: dict[NodeId, bool] = {}

    def count(self, voter: NodeId, granted: bool, configuration: Configuration) -> VoteResult:
        """Note a vote; return what all of them mean under `configuration`."""
        self._votes[voter] = granted
        if has_quorum(configuration, [node for node, yes in self._votes.items() if yes]):
            return VoteResult.WON
        return VoteResult.LOST if vote_is_lost(configuration, self._votes) else VoteResult.OPEN
