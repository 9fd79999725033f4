"""What the hub knows of its clients: where each one stands, and why it left. Counts them.

Enters: nothing. Leaves: plain records for the hub, metrics.
Never: sending, deciding.
"""

import socket
from dataclasses import dataclass, field
from enum import Enum

from prometheus_client import Counter, Gauge

from noti.web.feed import Audience

CLIENTS = Gauge("noti_web_clients", "Streams open now.")
OPENED = Counter("noti_web_clients_opened_total", "Streams opened.")
CLOSED = Counter("noti_web_clients_closed_total", "Streams closed, by reason.", ["reason"])
DELIVERIES = Counter("noti_web_deliveries_total", "Events handed to clients' connections.")
SENT = Counter("noti_web_sent_bytes_total", "Bytes handed to clients' connections.")


class Reason(Enum):
    """Why a stream ended."""

    GONE = "gone"
    """The client hung up, or its connection broke."""
    BEHIND = "behind"
    """History moved past the client's cursor."""
    STALLED = "stalled"
    """The client accepted no byte for too long."""
    DRAINED = "drained"
    """This node shuts down."""


@dataclass(slots=True, eq=False)
class Client:
    """One adopted socket."""

    sock: socket.socket
    fd: int
    group: "Group"
    cursor: int
    """Last notification in what was handed over; meaningful while the client is not in step."""
    unsent: memoryview = field(default_factory=lambda: memoryview(b""))
    """The rest of a chunk that the kernel has not taken."""
    stalled_at: float = 0.0
    """When the client last accepted a byte; meaningful while it is blocked."""
    quiet: bool = False
    """Nothing was sent since heartbeats were last considered."""


@dataclass(slots=True, eq=False)
class Group:
    """The adopted clients of one audience."""

    audience: Audience
    cursor: int
    """Where the members in step are."""
    in_step: dict[int, Client] = field(default_factory=dict)
    clients: int = 0
    """All of them, in step or not, and the subscriptions too."""
