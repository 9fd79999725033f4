"""What a node offers on its RPC address, and the network that carries it."""

from typing import Protocol

import trio

from noti.address import Address
from noti.publishing.ports import Publishing
from noti.raft.core.messages import NodeId
from noti.raft.ports import Hello, MessageStream, PeerNetwork, Standing
from noti.rpc.answers import NodeRole, ServerInfo


class PeerHandler(Protocol):
    """What a node offers to its peers."""

    def hello(self) -> Hello:
        """Who this node is, now."""

    def admit(self, peer: Hello, *, proven: bool) -> None:
        """Raise `ClusterMismatch` when a stream from `peer` must be rejected.

        `proven` is whether a certificate proved its name.
        """

    def standing(self, node_id: NodeId) -> Standing:
        """Return what an id is to this node now."""

    async def raft_stream(self, stream: MessageStream) -> None:
        """Use an incoming stream until it ends.

        Must not let `PeerUnavailable` or `MessageInvalid` escape.
        """


class NodeReport(Protocol):
    """What a node reports to gRPC clients."""

    def servers(self) -> list[ServerInfo]:
        """The members of the cluster, sorted by id."""

    def is_leader(self) -> bool:
        """Whether this node leads."""

    def role(self) -> NodeRole:
        """What this node is in its cluster, and in which term."""

    def serving(self) -> bool:
        """Whether this node is ready to serve browsers (gRPC health)."""


class RpcNetwork(PeerNetwork, Protocol):
    """gRPC between nodes, and from publishers and operators."""

    async def serve_rpc(
        self,
        bind: Address,
        peers: PeerHandler,
        node: NodeReport,
        publishing: Publishing,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; raises `AddressInUse`."""
