"""Who votes: the configuration of a cluster, its encoding, the steps to another, and majorities.

Enters: node ids; what should change; what each member said. Leaves: frozen configurations and their
bytes, as entries of the log and in snapshots; the next configuration, or why not; decisions.
Never: proposes, state, I/O.

One voter more or less is one step, because any two majorities then overlap (thesis 4.1). Anything
larger goes through a joint configuration (thesis 4.3), which takes a majority of both halves, and
which the leader leaves as soon as it is committed. Learners may change in any number: they do not
vote.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import msgpack

from noti.errors import MessageInvalid
from noti.raft.core.messages import NodeId

_NODES_MAX = 1024
"""More members than any cluster of ours; a larger count is invalid."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """A set of members. Takes effect when it is appended, not when it is committed (thesis 4.1)."""

    cluster_id: str = ""
    """The cluster that this configuration belongs to; empty only in the empty configuration."""
    voters: tuple[NodeId, ...] = ()
    """Sorted; a majority of them elects and commits."""
    outgoing: tuple[NodeId, ...] = ()
    """While joint.

    The old voters, of whom a majority is needed as well (thesis 4.3); else empty.
    """
    learners: tuple[NodeId, ...] = ()
    """Sorted; they receive the log and never vote."""

    @property
    def members(self) -> tuple[NodeId, ...]:
        """Everybody who receives the log, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, node_id: NodeId) -> bool:
        """Whether the node's vote counts in either half."""
        return node_id in self.voters or node_id in self.outgoing


def encode_configuration(configuration: Configuration) -> bytes:
    """Return the configuration as bytes, equal for equal configurations."""
    return msgpack.packb(
        [
            configuration.cluster_id,
            list(configuration.voters),
            list(configuration.outgoing),
            list(configuration.learners),
        ]
    )


def decode_configuration(data: bytes) -> Configuration:
    """Undo `encode_configuration`; raises `MessageInvalid` on anything else."""
    try:
        unpacked = msgpack.unpackb(data)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageInvalid(f"membership configuration does not decode: {error}") from None
    match unpacked:
        case [str(cluster_id), [*voters], [*outgoing], [*learners]]:
            nodes = (*voters, *outgoing, *learners)
        case _:
            raise MessageInvalid("membership configuration does not have the right fields")
    if len(nodes) > _NODES_MAX or not all(isinstance(node, str) for node in nodes):
        raise MessageInvalid("membership configuration holds something that is not a node id")
    return Configuration(cluster_id, tuple(voters), tuple(outgoing), tuple(learners))


@dataclass(frozen=True, slots=True)
class Change:
    """What should become of the members; ids that are already so are no error."""

    add: frozenset[NodeId] = frozenset()
    """To receive the log as learners."""
    promote: frozenset[NodeId] = frozenset()
    """Learners that should vote."""
    remove: frozenset[NodeId] = frozenset()
    """To be neither voter nor learner any more."""
    demote: frozenset[NodeId] = frozenset()
    """Voters that should be learners."""

    def __bool__(self) -> bool:
        return bool(self.add or self.promote or self.remove or self.demote)


def next_configuration(current: Configuration, change: Change) -> Configuration | None:
    """Return the configuration to append for `change`; None when it changes nothing.

    Raises `ValueError` when it must not be done: the cluster is between two configurations, a node
    to promote is no learner, or nobody would be left to vote.
    """
    if current.outgoing:
        raise ValueError("the last change is not finished")
    strangers = change.promote - set(current.learners) - set(current.voters)
    if strangers:
        raise ValueError(f"only learners can be promoted, not {sorted(strangers)}")
    voters = (set(current.voters) | change.promote) - change.remove - change.demote
    demoted = change.demote & set(current.voters)
    learners = ((set(current.learners) | change.add | demoted) - voters) - change.remove
    if not voters:
        raise ValueError("the last voter cannot be removed")
    following = replace(
        current,
        voters=tuple(sorted(voters)),
        outgoing=current.voters if len(voters ^ set(current.voters)) > 1 else (),
        learners=tuple(sorted(learners)),
    )
    return None if following == current else following


def leave_joint(current: Configuration) -> Configuration:
    """Return the configuration that ends a joint one."""
    assert current.outgoing, "not joint"
    return replace(current, outgoing=())


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
    rejected = {node for node, granted in votes.items() if not granted}
    still_possible = [node for node in configuration.members if node not in rejected]
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
