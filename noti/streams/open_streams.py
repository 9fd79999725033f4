"""What is known of the open streams.

Of each, its client, its cursor, what is unsent, why it ended; of all together, how many there are,
and whether there is room for another one.
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from noti.client_counts import ClientCounts
from noti.history.subscriber import Subscriber
from noti.streams.end_reason import EndReason
from noti.streams.feed import Audience

NOTHING = memoryview(b"")
"""Shared by all streams that have nothing unsent: a view of its own would cost 184 bytes."""


class State(Enum):
    """Where a stream stands; which one follows which: `sending.py`."""

    BEHIND = "behind"
    """It has a cursor of its own, and its socket takes bytes: just arrived, replaying, or with the
    rest of a chunk to send.
    """
    IN_STEP = "in step"
    """It has all that its group has, and shares the group's cursor."""
    BLOCKED = "blocked"
    """The rest of a chunk waits until the kernel takes more; for a subscription: until its response
    asks for the next bytes.
    """
    ENDING = "ending"
    """Only its closing chunk, and the rest of a chunk before it, are still to be sent."""
    ENDING_BLOCKED = "ending, blocked"
    """The same, and the kernel takes no more."""
    CLOSED = "closed"


class StreamSocket(Protocol):
    """What carries a stream: a non-blocking socket. Only the hub calls it."""

    def fileno(self) -> int:
        """Return its descriptor."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Return how many bytes the kernel took; raises `OSError`."""

    def recv(self, size: int, /) -> bytes:
        """Return what came, up to `size` bytes, empty at the end; raises `OSError`."""

    def close(self) -> None:
        """Close it."""


@dataclass(slots=True)  # one for every client: a frozen one takes three times as long to make
class Reader:
    """A client that is to get a stream, and from where on. Nobody changes it."""

    audience: Audience
    after_seq: int
    client_key: str
    """By which the stream is counted."""
    wants_cursors: bool = False
    """Whether it gets its cursor (`?cursor=1`), by blocks without an event."""
    ends_at: float = math.inf
    """When its token expires, in Trio's time: the stream ends then at the latest."""
    subject: str = ""
    """Whom its token names (`sub`); empty for nobody."""
    token_id: str = ""
    """Which token that is (`jti`); empty for none."""
    subscriber: Subscriber | None = None
    """What the cluster is told of the stream; None when nobody is told of it."""


class StreamObserver(Protocol):
    """Whoever wants to know which streams are open; no call may wait, or take long."""

    def opened(self, stream_id: int, reader: Reader) -> None:
        """Note that a stream has begun; `stream_id` is of this process, and of no other stream."""

    def closed(self, stream_id: int) -> None:
        """Note that it has ended, for whatever reason."""


@dataclass(slots=True, eq=False, kw_only=True)
class OpenStream:
    """One open stream, whatever carries it."""

    group: "Group"
    stream_id: int
    """Of this process, and of no other stream."""
    client_key: str
    """By which it is counted."""
    ends_at: float
    """When it is ended, in Trio's time."""
    cursor: int
    """Last notification in what was handed over; meaningful while the stream is not in step."""
    wants_cursors: bool = False
    """Whether it gets its cursor, by blocks without an event."""
    ends_for: EndReason = EndReason.AGED
    """Why it is then ended."""
    state: State = State.BEHIND
    blocked_at: float = 0.0
    """Since when it is blocked."""
    slow: bool = False
    """It was blocked since it was last in step."""
    bearer: Reader | None = None
    """Who has it, if a token says so (`bearers.py`)."""
    slot: int | None = None
    """When it is to be ended, if that must be at the moment (`bearers.py`)."""

    @property
    def is_blocked(self) -> bool:
        """Whether what was begun waits for the client."""
        return self.state is State.BLOCKED or self.state is State.ENDING_BLOCKED


@dataclass(slots=True, eq=False, kw_only=True)
class AdoptedStream(OpenStream):
    """One stream on a socket of its own."""

    connection: StreamSocket
    fd: int
    unsent: memoryview = NOTHING
    """The rest of a chunk that the kernel has not taken."""
    waited_s: float = 0.0
    """How long the unsent chunk has waited for the kernel, as far as was seen."""
    live: bool = False
    """It was in step: what it gets is new, not what it asked to be repeated."""
    quiet: bool = False
    """Nothing was sent since heartbeats were last considered."""


@dataclass(slots=True, eq=False)
class Group:
    """The streams of one audience."""

    audience: Audience
    cursor: int
    """Where the members in step are, while something is on its way to them. A group that is not
    lagging has all that the hub has passed on.
    """
    lagging: bool = True
    in_step: dict[int, AdoptedStream] = field(default_factory=dict)
    """By descriptor."""
    streams: int = 0
    """All of them, in step or not, and the subscriptions too."""


class StreamLimit(Enum):
    """Which limit is reached."""

    NODE = "this node has as many streams as it may have"
    CLIENT = "your address has as many streams as one may have"
    PATTERNS = "this node has as many patterns that begin like one of yours as it may have"


class StreamLimits:
    """The streams of one node."""

    def __init__(self, streams_max: int, streams_per_client_max: int) -> None:
        """`streams_per_client_max` of 0 means that clients are not told apart."""
        self.streams_max = streams_max
        """How many there may be; it may change."""
        self._per_client_max = streams_per_client_max
        self.by_client = ClientCounts()
        """How many each client has, where that matters."""
        self.count = 0
        """Streams open now."""

    def change(self, streams_max: int, streams_per_client_max: int) -> None:
        """Hold to other limits from now on, in which open streams count as they did."""
        self.streams_max = streams_max
        self._per_client_max = streams_per_client_max

    @property
    def counts_clients(self) -> bool:
        """Whether it matters from where a client comes."""
        return self._per_client_max > 0

    def reached(self, client_key: str) -> StreamLimit | None:
        """Return the limit for which this client gets no stream; None when it does."""
        if self.count >= self.streams_max:
            return StreamLimit.NODE
        if self._per_client_max and self.by_client.of(client_key) >= self._per_client_max:
            return StreamLimit.CLIENT
        return None

    def begin(self, client_key: str) -> None:
        """Count a stream; the key is empty where clients are not told apart."""
        self.count += 1
        if client_key:
            self.by_client.add(client_key)

    def end(self, client_key: str) -> None:
        """Count a stream that ended."""
        self.count -= 1
        if client_key:
            self.by_client.remove(client_key)
