"""Who votes: the configuration of a cluster and its encoding.

Enters: node ids. Leaves: frozen configurations and their bytes, as entries of the log and in
snapshots.
Never: decides about changes, counts votes (`quorum.py`), I/O.
"""

from dataclasses import dataclass

import msgpack

from noti.errors import MessageInvalid
from noti.raft.core.messages import NodeId

_NODES_MAX = 1024
"""More members than any cluster of ours; a larger count is garbage."""


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
