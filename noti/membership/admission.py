"""Which peers may exchange Raft messages with this node: nodes of its cluster, or of none yet.

A peer introduces itself with a hello. It is rejected when it belongs to another cluster, comes
under a name or an id that this node or another one has, or when one of the two is too old for the
level of the other's cluster; the reason says what to do.
"""

from collections.abc import Awaitable, Callable

from noti.errors import ClusterMismatch
from noti.history.levels import too_old
from noti.raft.core.messages import NodeId
from noti.raft.ports import Hello, MessageStream, Standing


class PeerAdmission:
    """Answers peers that dial this node; a `noti.rpc.ports.PeerHandler`."""

    def __init__(
        self,
        hello: Callable[[], Hello],
        name_of: Callable[[NodeId], str | None],
        is_member: Callable[[NodeId], bool],
        use: Callable[[MessageStream], Awaitable[None]],
    ) -> None:
        """`hello` returns how this node introduces itself now.

        `name_of` returns the name that gossip knows an id by, if any, and `is_member` whether the
        configuration has it. `use` takes the streams of admitted peers, each until it breaks.
        """
        self._hello = hello
        self._name_of = name_of
        self._is_member = is_member
        self._use = use

    def hello(self) -> Hello:
        """Return how this node introduces itself now."""
        return self._hello()

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
        _reject_too_old(own, peer)

    def standing(self, node_id: NodeId) -> Standing:
        """Return what an id is to this node now."""
        if self._is_member(node_id):
            return Standing.MEMBER
        return Standing.UNKNOWN if self._name_of(node_id) is None else Standing.GOSSIPS

    async def raft_stream(self, stream: MessageStream) -> None:
        """Use the stream of a peer that was admitted."""
        await self._use(stream)


def _reject_too_old(own: Hello, peer: Hello) -> None:
    for node, other in ((peer, own), (own, peer)):
        if node.supports < other.level:
            raise ClusterMismatch(
                f"node {node.name!r} is too old: {too_old(other.level, node.supports)}"
            )
