"""What the hub knows of its clients: where each one stands, and why it left. Counts them.

Enters: nothing. Leaves: plain records for the hub, metrics.
Never: sending, deciding.
"""

import socket
from dataclasses import dataclass, field
from enum import Enum

from prometheus_client import Counter, Gauge

from noti.streams.feed import Audience

CLIENTS = Gauge("noti_web_clients", "Streams open now.")
CLIENTS_MAX = Gauge("noti_web_clients_max", "Streams that there may be.")
OPENED = Counter("noti_web_clients_opened_total", "Streams opened.")
CLOSED = Counter("noti_web_clients_closed_total", "Streams closed, by reason.", ["reason"])
DELIVERIES = Counter("noti_web_deliveries_total", "Events handed to clients' connections.")
SENT = Counter("noti_web_sent_bytes_total", "Bytes handed to clients' connections.")

NOTHING = memoryview(b"")
"""Shared by all clients that have nothing unsent: a view of its own would cost 184 bytes."""


class Reason(Enum):
    """Why a stream ended."""

    GONE = "gone"
    """The client hung up, or its connection broke."""
    BEHIND = "behind"
    """The client took what it was sent too slowly, and its share of the backlog is used up; or its
    place is not in a snapshot that this node got.
    """
    OVERRUN = "overrun"
    """This node could not send in time, though the client took all that it was sent."""
    STALLED = "stalled"
    """The client did not take what it was sent."""
    AGED = "aged"
    """It was open as long as a stream may be."""
    SHED = "shed"
    """This node leads, and leaves browsers to the others."""
    DRAINED = "drained"
    """This node shuts down."""


CLOSED_FOR = {reason: CLOSED.labels(reason.value) for reason in Reason}
"""Looked up once; every reason is shown from the start."""


@dataclass(frozen=True, slots=True)
class Reader:
    """Who is to read, and from where on."""

    audience: Audience
    after_seq: int
    address: str
    """By which it is counted."""
    wants_cursors: bool = False
    """Whether it is told where it is (`?cursor=1`), by blocks without an event."""


@dataclass(slots=True, eq=False)
class Stay:
    """One open stream, whatever carries it."""

    group: "Group"
    address: str
    """By which it is counted."""
    ends_at: float
    """When it is ended, in Trio's time."""
    cursor: int
    """Last notification in what was handed over; meaningful while the client is not in step."""
    wants_cursors: bool
    """Whether it is told where it is, by blocks without an event."""
    why: Reason = Reason.AGED
    """What is then said to be the reason."""
    blocked: bool = False
    """The kernel takes no more; for a subscription: its last bytes are still being sent."""
    blocked_at: float = 0.0
    """Since when."""
    slow: bool = False
    """It was blocked since it was last in step."""


@dataclass(slots=True, eq=False, kw_only=True)
class Client(Stay):
    """One adopted socket."""

    sock: socket.socket
    fd: int
    unsent: memoryview = NOTHING
    """The rest of a chunk that the kernel has not taken."""
    waited_s: float = 0.0
    """How long the unsent chunk has waited for the kernel, as far as was seen."""
    live: bool = False
    """It was in step: what it gets is new, not what it asked to be repeated."""
    quiet: bool = False
    """Nothing was sent since heartbeats were last considered."""
    ending: bool = False
    """The last words are said, or unsent; nothing may follow."""


@dataclass(slots=True, eq=False)
class Group:
    """The streams of one audience."""

    audience: Audience
    cursor: int
    """Where the members in step are, while something is on its way to them. A group that is not
    lagging has all that the hub has passed on.
    """
    lagging: bool = True
    in_step: dict[int, Client] = field(default_factory=dict)
    clients: int = 0
    """All of them, in step or not, and the subscriptions too."""
