"""The settings of streams, each with its reason."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class HubConfig:
    """How events are sent to clients; shared by all parts of a hub, and changed as a whole."""

    backlog_bytes: int = 64 * 1024 * 1024
    """Memory for what is not history any more, and clients still need: a minute of a thousand
    events a second of 500 bytes of data. One client may use all of it, as it is kept once for all.
    """
    heartbeat_s: float = 15.0
    """A silent stream gets a comment at the latest after this; proxies cut at 30 to 100 s (HAProxy
    30, nginx 60).
    """
    held_s: float = 2.0
    """How long that is kept for a stream from the decision to begin it, if its head takes a while:
    milliseconds, as a rule.
    """
    stall_timeout_s: float = 10.0
    """A client whose socket was full for so long before a chunk was through is disconnected, also
    when it takes a byte now and then.
    """
    chunk_bytes_max: int = 64 * 1024
    """About the most that one client holds unsent in our memory; one larger event still passes."""
    send_buffer_bytes: int = 128 * 1024
    """Kernel memory per client; left alone, the kernel would let a slow client pin 4 MiB."""
    slice_s: float = 0.0001
    """Sending pauses after this long and lets the rest of the node run: a commit takes several
    turns of the loop, each of them behind such a slice. Ten times as much delivers no more events,
    and doubles the time of a commit beside them.
    """
    work_slice_s: float = 0.001
    """The same for what comes in bursts and is over soon: streams that begin, heartbeats. There,
    fewer turns of the scheduler count for more: it begins a quarter more streams in a second.
    """
    lifetime_s: float = 3600.0
    """A stream is ended after this, give or take a tenth, and its client comes back: to another
    node, if there is a new one. 0 for never.
    """
    drain_window_s: float = 0.0
    """At shutdown, streams are ended at random moments of so long a time, while they go on."""
    drain_timeout_s: float = 1.0
    """How long the closing chunk to slow clients may take after that."""
    retry_ms_min: int = 500
    retry_ms_max: int = 2000
    """Clients reconnect after a random delay between these two, so that a node's clients do not
    come at once.
    """
    clients_max: int = 50_000
    """Streams on one node, each a file descriptor; further ones are told to come back later."""
    clients_per_address_max: int = 0
    """Streams from one IPv4 address or IPv6 /64; 0 for any number: many browsers may share one."""

    def __post_init__(self) -> None:
        assert self.backlog_bytes > 0
        assert self.heartbeat_s > 0
        assert self.stall_timeout_s > 0
        assert 0 < self.retry_ms_min <= self.retry_ms_max
        assert self.chunk_bytes_max <= self.send_buffer_bytes
