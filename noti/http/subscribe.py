"""Decides how a request for a stream is answered, whichever way it came in.

Routing, limits, cursors and headers of streams are here and nowhere else. No I/O, no waiting.

When there is no room, an `EventSource` is never answered with a status other than 200: it would
give up permanently. A client that does not ask for an event stream by its type gets 429.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import parse_qsl

from noti.client_key import client_key
from noti.errors import MessageInvalid
from noti.history.selectors import ALL_TOPICS, topic_selector
from noti.http.config import HttpConfig
from noti.streams import sse
from noti.streams.feed import Audience, View
from noti.streams.hub import Hub
from noti.streams.open_streams import Reader
from noti.streams.retained import EDGE

CATEGORY = "/category"
MERCURE = "/.well-known/mercure"
PATHS = frozenset({CATEGORY, MERCURE})
"""Where streams are."""

Headers: TypeAlias = list[tuple[str, str]]

STREAM_HEADERS: Headers = [
    ("Content-Type", sse.MEDIA_TYPE),
    (
        "Cache-Control",
        "private, no-cache, no-store, no-transform, must-revalidate, max-age=0",
    ),
    ("X-Accel-Buffering", "no"),
]
"""No charset (the format is always UTF-8), nothing cached or compressed, no buffering in nginx."""

PLAIN = "text/plain; charset=utf-8"
GREETING = sse.comment("ok")
"""Sent at once, so that no proxy takes a quiet stream for a dead one."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """A GET or HEAD for one of `PATHS`."""

    path: str
    query: str
    """As it stands in the target, still percent-encoded."""
    header: Callable[[str], str]
    """Returns a header's value by its lower-case name; empty when there is none."""
    peer: str
    """IP address at the other end of the connection."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A stream begins."""

    headers: Headers
    first: bytes
    """The first bytes of the body."""
    reader: Reader


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response; no stream."""

    status: int
    headers: Headers
    body: bytes


class Admission:
    """The way in to the streams of one hub."""

    def __init__(self, hub: Hub, ready: Callable[[], bool], config: HttpConfig) -> None:
        """`ready` returns whether this node has caught up with its cluster."""
        self._hub = hub
        self._ready = ready
        self._config = config

    def decide(self, request: StreamRequest, *, caught_up: bool = False) -> Opening | Answer | None:
        """Return what to do; None when this node must catch up with the others first.

        A node that is still catching up would show old events as new ones. And the client may come
        from a node that was further, so that its cursor will be known here in a moment. After
        waiting, call again with `caught_up`.
        """
        topics, asked_in_query, wants_cursors, last = _read_query(request.query)
        audience = self._audience(request.path, topics)
        if isinstance(audience, str):
            return Answer(400, [("Content-Type", PLAIN)], f"{audience}\n".encode())
        requested = request.header("last-event-id") or asked_in_query
        position = self._hub.feed.position_of(requested) if requested else None
        if not caught_up and (not self._ready() or (requested and position is None)):
            return None
        key = request.peer
        if self._hub.limits.counts_clients:
            forwarded_for = request.header("x-forwarded-for")
            key = client_key(key, forwarded_for, self._config.trusted_proxies)
        reached = self._hub.limits.reached(key)
        if reached is not None and sse.MEDIA_TYPE not in request.header("accept"):
            headers = [("Content-Type", PLAIN), ("Retry-After", "2")]
            return Answer(429, headers, f"Come back later: {reached.value}.\n".encode())
        if reached is not None or not self._hub.running:
            return self.turn_away()
        return self._open(audience, requested, position, key, wants_cursors, last)

    def turn_away(self) -> Answer:
        """Return the answer after which an `EventSource` comes back in a moment."""
        return Answer(200, STREAM_HEADERS, GREETING + self._hub.retry_hint())

    def _open(
        self,
        audience: Audience,
        requested: str,
        position: int | None,
        key: str,
        wants_cursors: bool,
        last: int,
    ) -> Opening:
        feed = self._hub.feed
        headers = list(STREAM_HEADERS)
        first = GREETING + self._hub.retry_hint()
        if requested and position is None:
            headers.append(("Last-Event-ID", sse.EARLIEST))
            first += sse.gap_frame(requested)
            return Opening(headers, first, Reader(audience, EDGE, key, wants_cursors))
        if requested:
            headers.append(("Last-Event-ID", requested))
        after_seq = feed.newest_seq if position is None else position
        if last and not requested:
            after_seq = feed.before_last(audience, last)
        # Whoever is sent the last events gets a cursor with each of them.
        if wants_cursors and (requested or after_seq == feed.newest_seq):
            # It makes sure that a client whose connection breaks before its first event misses
            # nothing.
            first += sse.cursor(requested or feed.retained.newest_cursor)
        return Opening(headers, first, Reader(audience, after_seq, key, wants_cursors))

    def _audience(self, path: str, topics: Sequence[str]) -> Audience | str:
        """Return the audience that the client belongs to, or what is invalid in the request."""
        if path == CATEGORY:
            return Audience(View.CATEGORY, frozenset({ALL_TOPICS}))
        assert path == MERCURE, "the caller looked at `PATHS`"
        if not topics:
            return (
                'Missing "topic" parameter: add ?topic=NAME, several times for several topics,'
                " or ?topic=* for all."
            )
        if len(topics) > self._config.topics_max:
            return f"Too many topics: at most {self._config.topics_max} in one subscription."
        length_max = self._config.topic_length_max
        for topic in topics:
            if len(topic) > length_max:
                return f"A topic has at most {length_max} characters."
        try:
            return Audience(View.MERCURE, frozenset(map(topic_selector, topics)))
        except MessageInvalid as error:
            return f"{error}."


CURSOR_PARAMETERS = (
    "lastEventId",  # the polyfills of Yaffle and others
    "evs_last_event_id",  # amvtek's
    "lastEventID",  # Mercure 0.x
    "last_event_id",  # Mercure 1.0
    "Last-Event-ID",  # Mercure before 0.14, and what Symfony still sends beside the other one
)
"""Names under which clients that cannot send a header send their cursor. Polyfills come first:
they add theirs when they come back, to an address that names where the page began."""


LAST_MAX = 1000
"""Events that `?last=` may ask for; more is what cursors are for."""


@lru_cache(maxsize=1024)
def _read_query(query: str) -> tuple[tuple[str, ...], str, bool, int]:
    """Return the topics, the last event id (empty: none), whether cursors are wanted, and `last`.

    With `last`, a reader without a cursor begins with so many events that history holds for it.

    Most clients of one application ask with the same query; it is read once.
    """
    fields = parse_qsl(query, keep_blank_values=True)
    topics = tuple(value for name, value in fields if name == "topic")
    first = dict(reversed(fields))  # of several, the first
    asked = next(filter(None, map(first.get, CURSOR_PARAMETERS)), "")
    last = first.get("last", "")
    count = min(int(last), LAST_MAX) if last.isascii() and last.isdigit() and len(last) < 10 else 0
    return topics, asked, first.get("cursor") == "1", count


def common_headers(origin: str, config: HttpConfig) -> Headers:
    """Return what every response carries: safety in browsers, and who may read it (CORS).

    `origin` is the request's Origin header. A named origin may send cookies; `*` never allows that.
    """
    headers = [
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Content-Security-Policy", "default-src 'self'; img-src 'self' data:"),
    ]
    allowed = config.cors_origins
    if not allowed:
        return headers
    headers.append(("Vary", "Origin"))
    if origin in allowed:
        headers.append(("Access-Control-Allow-Origin", origin))
        headers.append(("Access-Control-Allow-Credentials", "true"))
    elif "*" in allowed:
        headers.append(("Access-Control-Allow-Origin", "*"))
    else:
        return headers
    headers.append(("Access-Control-Allow-Headers", "Last-Event-ID, Cache-Control"))
    headers.append(("Access-Control-Expose-Headers", "Last-Event-ID"))
    return headers
