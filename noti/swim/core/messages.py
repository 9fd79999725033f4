"""The messages of SWIM, as memberlist has them.

Enters: nothing. Leaves: frozen dataclasses used by the core and the codecs.
Never: encoding, I/O, clocks.

Source: memberlist wire protocol 2 (delegate protocol 5), the one that Serf agents use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

Address: TypeAlias = tuple[str, int]
"""IP address as text, and port: `noti.address.Address`, without importing Trio."""

INCARNATION_MAX = 2**32 - 1
"""Incarnations and sequence numbers are 32 bits on the wire."""

VERSIONS = bytes([1, 5, 2, 2, 5, 5])
"""Our own: protocol min, max, current; delegate (Serf) min, max, current."""

VERSIONS_UNKNOWN = bytes(6)
"""A node whose versions are unknown."""

STREAM_PING_VERSION = 3
"""Highest protocol version from which a member answers pings over TCP."""

META_BYTES_MAX = 512
"""memberlist's limit on a node's metadata, here the encoded tags."""


class MemberState(IntEnum):
    """A member as this node sees it; the numbers are those of the wire."""

    ALIVE = 0
    SUSPECT = 1
    DEAD = 2
    LEFT = 3


@dataclass(frozen=True, slots=True)
class Member:
    """What the rest of noti learns about a member."""

    name: str
    address: Address
    tags: Mapping[str, str]
    state: MemberState
    incarnation: int
    versions: bytes = VERSIONS_UNKNOWN
    leaving: bool = False
    """It announced that it leaves, or an operator did, in Serf's layer."""


@dataclass(frozen=True, slots=True)
class Ping:
    """A probe, answered by `Ack` with the same sequence."""

    sequence: int
    target: str
    """Name of the node that is to answer; empty for any."""
    source: Address | None
    """Where the sender wants the answer; None: the source of the packet."""
    source_name: str


@dataclass(frozen=True, slots=True)
class IndirectPing:
    """Asks another node to ping `target`, and to pass its ack on under this sequence."""

    sequence: int
    target: str
    address: Address
    """Where the target is."""
    wants_nack: bool
    """Answer `Nack` when the target does not answer: then the helper itself is well."""
    source: Address | None
    source_name: str


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to a ping, direct or relayed."""

    sequence: int
    payload: bytes | None
    """Serf's network coordinate; we send none and ignore theirs."""


@dataclass(frozen=True, slots=True)
class Nack:
    """The answer to an indirect ping whose target did not answer."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Alive:
    """A node is alive, at this address, with these tags."""

    incarnation: int
    node: str
    address: Address
    meta: bytes
    versions: bytes


@dataclass(frozen=True, slots=True)
class Suspect:
    """A node did not answer `accuser`'s probes."""

    incarnation: int
    node: str
    accuser: str


@dataclass(frozen=True, slots=True)
class Dead:
    """A node is dead; it has left when the accuser is the node itself."""

    incarnation: int
    node: str
    accuser: str


@dataclass(frozen=True, slots=True)
class User:
    """A message of the layer above, here Serf's; see `serf`."""

    payload: bytes


Message: TypeAlias = Ping | IndirectPing | Ack | Nack | Alive | Suspect | Dead | User
"""What a packet carries, one or several at a time."""


@dataclass(frozen=True, slots=True)
class RemoteNode:
    """One node in a full state."""

    name: str
    address: Address
    meta: bytes
    incarnation: int
    state: MemberState
    versions: bytes


@dataclass(frozen=True, slots=True)
class PushPull:
    """Everything that a node knows; exchanged over TCP, each side sends its own."""

    join: bool
    """The dialler is joining, not just keeping in step; an answer repeats the flag."""
    nodes: tuple[RemoteNode, ...]
    user_state: bytes
    """Serf's part of the state; see `serf`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The other side's reason to reject what we sent on a stream."""

    reason: str


StreamMessage: TypeAlias = Ping | Ack | PushPull | User | Failure
"""What a TCP stream carries, one in each direction."""
