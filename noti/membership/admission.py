"""Which peers may exchange Raft messages with this node: nodes of its cluster, or of none yet.

A peer introduces itself with a hello. It is rejected when it belongs to another cluster, or comes
under a name or an id that this node or another one has; the reason says what to do.
"""

from collections.abc import Awaitable, Callable

from noti.errors import ClusterMismatch
from noti.membership.identity import Identity
from noti.membership.ports import RaftStatus
from noti.raft.core.messages import NodeId
from noti.raft.ports import Hello, MessageStream


class PeerAdmission:
    """Answers peers that dial this node; a `noti.rpc.ports.PeerHandler`."""

    def __init__(
        self,
        identity: Identity,
        raft: RaftStatus,
        name_of: Callable[[NodeId], str | None],
        use: Callable[[MessageStream], Awaitable[None]],
    ) -> None:
        """`use` takes the streams of admitted peers, each until it breaks.

        `name_of` returns the name that gossip knows an id by, if any.
        """
        self._identity = identity
        self._raft = raft
        self._name_of = name_of
        self._use = use

    def hello(self) -> Hello:
        """Return how this node introduces itself now."""
        return self._identity.hello(self._raft.status().configuration.cluster_id)

    def admit(self, peer: Hello, *, proven: bool) -> None:
        """Raise `ClusterMismatch` when this node must not talk to the peer.

        When a certificate has proven its name, gossip is not asked, as that may be forged.
        """
        own = self.hello()
        if own.cluster_id and peer.cluster_id and own.cluster_id != peer.cluster_id:
            raise ClusterMismatch(
                f"node {peer.name!r} belongs to cluster {peer.cluster_id}, this node "
                f"{own.name!r} to {own.cluster_id}; check --join, or use an empty --data-dir"
            )
        if peer.node_id == own.node_id:
            raise ClusterMismatch(
                f"node {peer.name!r} has this node's id; a data directory was copied: "
                "start one of the two with an empty --data-dir"
            )
        if peer.name == own.name:
            raise ClusterMismatch(f"another node is named {own.name!r} too; give it another --name")
        known = None if proven else self._name_of(peer.node_id)
        if known not in (None, peer.name):
            raise ClusterMismatch(f"node {peer.name!r} comes with the node id of node {known!r}")

    async def raft_stream(self, stream: MessageStream) -> None:
        """Use the stream of a peer that was admitted."""
        await self._use(stream)
