"""The settings of the web room, each with its reason.

Enters: numbers and texts from the node's configuration. Leaves: two frozen values.
Never: reading files, environment or flags.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HubConfig:
    """How events are sent to clients."""

    history_size: int = 1000
    """Notifications that a client can resume from; the same number as the store keeps."""
    heartbeat_s: float = 15.0
    """A silent stream gets a comment at the latest after this; proxies cut at 30 to 100 s (HAProxy
    30, nginx 60).
    """
    stall_timeout_s: float = 10.0
    """A client that accepts not one byte for so long while some wait for it is disconnected."""
    chunk_bytes_max: int = 64 * 1024
    """About the most that one client holds unsent in our memory; one larger event still passes."""
    send_buffer_bytes: int = 128 * 1024
    """Kernel memory per client; left alone, the kernel would let a slow client pin 4 MiB."""
    slice_s: float = 0.002
    """Sending pauses after this long and lets the rest of the node run."""
    drain_timeout_s: float = 1.0
    """How long ending all streams may take at shutdown."""
    retry_ms_min: int = 500
    retry_ms_max: int = 2000
    """Clients reconnect after a random delay between these two, so that a node's clients do not
    come at once.
    """
    clients_max: int = 50_000
    """Streams on one node, each a file descriptor; further ones are told to come back later."""

    def __post_init__(self) -> None:
        assert self.history_size > 0
        assert self.heartbeat_s > 0
        assert self.stall_timeout_s > 0
        assert 0 < self.retry_ms_min <= self.retry_ms_max
        assert self.chunk_bytes_max <= self.send_buffer_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """How HTTP is answered."""

    cors_origins: tuple[str, ...] = ()
    """Other origins (`https://example.org`) whose pages may read from this node; `*` for all."""
    topics_max: int = 100
    """Topics in one subscription; the reference hub has the same limit."""
    topic_length_max: int = 1024
    """Characters in one topic; a whole request head may have 16 KiB."""
    catch_up_wait_s: float = 2.0
    """How long a stream waits for this node to catch up with the others before it is told to come
    back later; a follower that hears its leader needs a tenth of a second.
    """
    idle_timeout_s: float = 20.0
    """A connection without a request is closed after this; above the page's 1.5 s of polling."""
    send_timeout_s: float = 10.0
    """A client that does not take an ordinary answer for so long is disconnected."""
    grace_s: float = 1.0
    """How long answers in progress may take at shutdown."""
