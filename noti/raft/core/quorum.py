"""Majorities, also of joint configurations.

Enters: a configuration and what each member said. Leaves: decisions. Never: state, I/O.

Source: Raft thesis 4.3 (joint consensus: a majority of both halves). An empty half agrees to
everything.
"""

from collections.abc import Callable, Iterable, Mapping

from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId


def has_quorum(configuration: Configuration, agreeing: Iterable[NodeId]) -> bool:
    """Whether the agreeing nodes are a majority of the voters (of both halves while joint)."""
    agreed = frozenset(agreeing)
    return all(
        sum(node in agreed for node in half) * 2 > len(half)
        for half in (configuration.voters, configuration.outgoing)
        if half
    ) and bool(configuration.voters)


def vote_is_lost(configuration: Configuration, votes: Mapping[NodeId, bool]) -> bool:
    """Whether no quorum can come about any more, given the votes so far."""
    refused = {node for node, granted in votes.items() if not granted}
    still_possible = [node for node in configuration.members if node not in refused]
    return not has_quorum(configuration, still_possible)


def reached_by_quorum(configuration: Configuration, value_of: Callable[[NodeId], int]) -> int:
    """Return the highest number that a quorum has reached or passed; 0 without voters."""
    voters, outgoing = configuration.voters, configuration.outgoing
    if not voters:
        return 0
    reached = sorted(map(value_of, voters))[(len(voters) - 1) // 2]
    if outgoing:
        reached = min(reached, sorted(map(value_of, outgoing))[(len(outgoing) - 1) // 2])
    return reached
