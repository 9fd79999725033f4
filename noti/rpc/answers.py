"""What nodes say about themselves when asked over gRPC."""

from dataclasses import dataclass
from typing import Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """A node as `GetServers` and `/readiness` show it."""

    id: str
    rpc_addr: str
    is_leader: bool


RoleName: TypeAlias = Literal["leader", "follower", "candidate", "learner"]


@dataclass(frozen=True, slots=True)
class NodeRole:
    """What a node says that it is in its cluster."""

    name: str
    role: RoleName
    term: int
    """Raft's term."""
    leader: str
    """Name of the leader of that term; empty when none is known."""
