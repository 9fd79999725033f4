"""What happens to the gossip core, and what it orders.

Enters: nothing. Leaves: frozen dataclasses; events are facts, effects are orders to the shell.
Never: behaviour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from noti.swim.core.messages import Address, Member, MemberState, Message, PushPull


@dataclass(frozen=True, slots=True)
class PacketReceived:
    """A packet arrived and was decoded."""

    messages: tuple[Message, ...]
    source: Address


@dataclass(frozen=True, slots=True)
class PacketUnsendable:
    """The operating system refused to send a packet."""

    to: Address


@dataclass(frozen=True, slots=True)
class StreamPingAnswered:
    """The TCP ping with this sequence was answered."""

    sequence: int


@dataclass(frozen=True, slots=True)
class StateReceived:
    """A peer's full state arrived, as a question or as an answer."""

    state: PushPull
    source: Address | None = None
    """The other end of the stream, where known: its host, or the address that we dialled."""
    dialled: bool = False
    """Whether we dialled it."""


@dataclass(frozen=True, slots=True)
class ExchangeEnded:
    """An `ExchangeState` was carried out, or failed."""

    to: Address
    """As ordered."""
    join: bool
    """As ordered."""
    reached: Address | None
    """The address that answered: our own when the seed is this node; None: none did."""


@dataclass(frozen=True, slots=True)
class TagsChanged:
    """The node has new tags for all members."""

    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MembersProtected:
    """These are the cluster's own nodes: never forgotten, and never crowded out."""

    names: Mapping[str, str]
    """By identity (the tag `id`); an empty name where only the identity is known."""


@dataclass(frozen=True, slots=True)
class LeaveRequested:
    """The node is about to stop, on purpose."""


@dataclass(frozen=True, slots=True)
class UserEventRequested:
    """The operator has an event for all members, no longer than Serf allows."""

    name: bytes
    payload: bytes
    coalesce: bool


@dataclass(frozen=True, slots=True)
class QueryRequested:
    """The operator asks all members, not at greater length than Serf allows."""

    query_id: int
    """Chosen at random, as other nodes choose theirs."""
    name: bytes
    payload: bytes
    nodes: tuple[str, ...] = ()
    """Only these are to answer, if there are any, …"""
    tags: Mapping[str, str] = field(default_factory=dict)
    """… if their tags match these expressions."""
    timeout_s: float | None = None
    """None: as is usual for the cluster's size."""
    wants_acks: bool = False
    relay_factor: int = 0


@dataclass(frozen=True, slots=True)
class ForceLeaveRequested:
    """The operator says that a member has left for good."""

    name: str
    prune: bool


@dataclass(frozen=True, slots=True)
class TimerExpired:
    """The time that `deadline()` named has come."""


Event: TypeAlias = (
    PacketReceived
    | PacketUnsendable
    | StreamPingAnswered
    | StateReceived
    | ExchangeEnded
    | TagsChanged
    | MembersProtected
    | LeaveRequested
    | UserEventRequested
    | QueryRequested
    | ForceLeaveRequested
    | TimerExpired
)


@dataclass(frozen=True, slots=True)
class SendPacket:
    """Send a UDP packet."""

    payload: bytes
    to: Address


@dataclass(frozen=True, slots=True)
class PingByStream:
    """Ping over TCP, in parallel with indirect pings; an answer becomes `StreamPingAnswered`."""

    sequence: int
    node: str
    to: Address
    timeout_s: float


@dataclass(frozen=True, slots=True)
class ExchangeState:
    """Exchange full state over TCP; always ends in `ExchangeEnded`."""

    to: Address
    """The host may be a name."""
    join: bool


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A member appeared, moved, changed its state or its tags, or left the list."""

    member: Member
    previous: MemberState | None
    """Its state before; None when it is new."""
    forgotten: bool = False
    """It left the list."""


@dataclass(frozen=True, slots=True)
class NameConflict:
    """Two nodes use one name; the new one is ignored, also when it is the name of this node."""

    name: str
    known: Address
    rejected: Address


@dataclass(frozen=True, slots=True)
class IdentityConflict:
    """A member shows the identity of another node; it counts as one without an identity."""

    name: str
    address: Address
    identity: str
    owner: str
    """The name of the node that the identity belongs to."""


@dataclass(frozen=True, slots=True)
class OtherCluster:
    """A member of another cluster gossips with us; it is ignored."""

    name: str
    address: Address
    cluster: str


@dataclass(frozen=True, slots=True)
class GossipRejected:
    """Something that was received decoded, and was rejected all the same."""

    reason: str
    """The label by which it is counted: "incarnation", "versions", "members", …"""
    text: str


@dataclass(frozen=True, slots=True)
class ReachedByStreamOnly:
    """A member answers TCP but not UDP: something blocks UDP, or its address is wrong for UDP."""

    name: str
    address: Address


@dataclass(frozen=True, slots=True)
class StreamOnlyChanged:
    """So many members answer TCP but not UDP now."""

    count: int


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """How badly this node itself does, by its own probes, has changed; 0 is well."""

    score: int


@dataclass(frozen=True, slots=True)
class RanLate:
    """This node was too busy, or stopped, to gossip in time; it accuses nobody for that."""

    late_s: float


@dataclass(frozen=True, slots=True)
class Refuted:
    """Another member suspected this node, or declared it dead; this node has refuted that."""

    accuser: str


@dataclass(frozen=True, slots=True)
class LeaveFinished:
    """The announcements of leaving were sent; the sockets may close."""


@dataclass(frozen=True, slots=True)
class UserEventReceived:
    """A member sent an event; its payload is not for us."""

    name: str
    payload_bytes: int


@dataclass(frozen=True, slots=True)
class QueryReceived:
    """A member asks all members."""

    name: str
    source_name: str


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    """A member answered a query of ours, or acks that it took it."""

    query_id: int
    node: str
    is_ack: bool
    payload: bytes = field(repr=False)
    """May hold keys."""


@dataclass(frozen=True, slots=True)
class QueryEnded:
    """The time of a query of ours is over: no answer counts any more."""

    query_id: int


Report: TypeAlias = (
    NameConflict
    | IdentityConflict
    | OtherCluster
    | GossipRejected
    | ReachedByStreamOnly
    | StreamOnlyChanged
    | HealthChanged
    | RanLate
    | Refuted
    | UserEventReceived
    | QueryReceived
)
"""What is only counted and logged."""

Effect: TypeAlias = (
    SendPacket
    | PingByStream
    | ExchangeState
    | MemberChanged
    | LeaveFinished
    | Report
    | QueryAnswered
    | QueryEnded
)
