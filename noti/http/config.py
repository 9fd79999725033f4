"""The settings of HTTP, each with its reason."""

from dataclasses import dataclass

from noti.authorization.grant import Dialect
from noti.setting_values import IpNetwork


@dataclass(slots=True, kw_only=True)
class HttpConfig:
    """How HTTP is answered; shared by all parts of a listener, and changed as a whole."""

    cors_origins: tuple[str, ...] = ()
    """Other origins (`https://example.org`, `https://*.example.org`) whose pages may read from this
    node; `*` for all."""
    public_url: str | None = None
    """The hub's URL as browsers know it; None to take what each request names."""
    dialects: frozenset[Dialect] = frozenset(Dialect)
    """Which versions of the Mercure protocol are spoken."""
    plain_too: bool = False
    """Whether HTTP is answered beside HTTPS, where there is a certificate."""
    catch_up_wait_s: float = 2.0
    """How long a stream waits for this node to catch up with the others before it is told to come
    back later; a node in touch with its leader needs a tenth of a second.
    """
    announced_within_s: float = 0.2
    """How long who asks for subscriptions waits first, for streams that other nodes have just begun
    or ended: these are known everywhere some 20 ms later, unless very many come at once.
    """
    trusted_proxies: tuple[IpNetwork, ...] = ()
    """Networks whose X-Forwarded-For is believed when clients are counted by address."""
    leader_sheds: bool = False
    """Whether browsers are sent away when this node becomes leader, over `shed_window_s`. A client
    that comes while it leads is served: there may be no other node.
    """
    shed_window_s: float = 10.0
    """How long sending browsers away takes, so that the other nodes are not overrun."""
    head_timeout_s: float = 10.0
    """A connection without a whole request is closed after this, be it in a handshake."""
    head_bytes_max: int = 64 * 1024
    """A longer request head is rejected: 100 topics of some 600 characters fit."""
    publish_body_bytes_max: int = 1_114_112
    """Longest body of a request to publish: the longest event, 1 MiB, and other fields."""
    publish_bodies_bytes_max: int = 64 * 1024 * 1024
    """All bodies that are being read: those of some thousand ordinary publishers, or of 60 with the
    longest events, twice what may wait to be committed."""
    body_timeout_s: float = 10.0
    """A body that is not complete so long after its head is cut off."""
    pending_connections_max: int = 4096
    """Connections without a whole request, or in a TLS handshake; the oldest makes room for the
    next. A node that dies sends its neighbours some thousand at once.
    """
    connections_max: int = 4096
    """Connections that are no streams; the one that is idle longest makes room for the next."""
    connections_per_address_max: int = 0
    """The same for one IPv4 address or IPv6 /64, and for those without a whole request; 0 for any
    number: a proxy that is not named in `trusted_proxies` is one address.
    """
    idle_timeout_s: float = 20.0
    """A connection without a request is closed after this; above the page's 1.5 s of polling."""
    send_timeout_s: float = 10.0
    """A client that does not take an ordinary answer for so long is disconnected."""
    grace_s: float = 1.0
    """How long answers in progress may take at shutdown."""
