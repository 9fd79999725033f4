"""Decides how a request for a stream is answered, whichever way it came in.

Routing, limits, rights, cursors and headers of streams are here and nowhere else. No I/O, no
waiting.

When there is no room, an `EventSource` is never answered with a status other than 200: it would
give up permanently. A client that does not ask for an event stream by its type gets 429. Where
coming back is of no use, as with a bad token, giving up is right.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from noti.address import HUB_PATH
from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import ANONYMOUS, Action, Dialect, Grant
from noti.authorization.presented import Presented
from noti.authorization.rejection import TokenRejected
from noti.client_key import client_key
from noti.history.selectors import ALL_TOPICS, Selector, SelectorKind
from noti.http.answers import Answer, invalid, plain, rejected
from noti.http.config import HttpConfig
from noti.http.forms import is_media_type, problem_of_type
from noti.http.hub_url import hub_url_of
from noti.http.response_headers import STREAM_HEADERS, header_text
from noti.http.subscription_request import (
    SubscriptionParameters,
    cursor_parameters,
    parameters_of,
)
from noti.ports import Clock
from noti.presence.presence import Presence
from noti.streams import sse
from noti.streams.feed import Audience, View
from noti.streams.framing import EVENT_STREAM, Framing
from noti.streams.hub import Hub
from noti.streams.open_streams import Reader, StreamLimit
from noti.streams.retained import EDGE

CATEGORY: Final = "/category"
PATHS: Final = frozenset({CATEGORY, HUB_PATH})
"""Where streams are."""
QUERY: Final = "QUERY"
"""The method that asks as GET does, with a form beside the query (Mercure 1.0)."""

CURSOR_HEADERS: Final = {Dialect.V0: "Last-Event-ID", Dialect.V1: "Mercure-Last-Event-ID"}
"""Says which event precedes the first one of a stream."""

NOT_READY: Final = "this node is not ready"


# Of each of these classes, an object is made for every client that comes, and nobody changes it.
# Frozen ones take three times as long to make.


@dataclass(slots=True)
class StreamRequest:
    """A GET, HEAD or QUERY for one of `PATHS`."""

    path: str
    query: str = field(repr=False)
    """As it stands in the target, still percent-encoded."""
    header: Callable[[str], str]
    """Returns a header's value by its lower-case name; empty when there is none."""
    peer: str
    """IP address at the other end of the connection."""
    method: str = "GET"
    scheme: str = "http"
    """Of the connection."""
    body: bytes = field(default=b"", repr=False)
    """Of a QUERY."""
    framing: Framing = EVENT_STREAM
    """How the stream is to be written."""


@dataclass(slots=True)
class WantedStream:
    """What a request asks for; whoever sends the same gets the same, if it shows no token."""

    path: str
    asked: SubscriptionParameters
    grant: Grant
    audience: Audience
    requested: str
    """The cursor that counts; empty for none."""
    forwarded_for: str
    """The X-Forwarded-For header."""
    takes_hints: bool
    """Whether it is told when to come back: a browser is, of which there may be thousands, in case
    that the node dies. Others parse events block by block, and would take the hub's `retry:` for
    the first event's own (Mercure: only the publisher's is sent)."""
    may_be_refused: bool
    """Whether it gets a status that says so when there is no room: it is no `EventSource`."""


@dataclass(slots=True)
class Opening:
    """A stream begins."""

    headers: Sequence[tuple[str, str]]
    first: bytes
    """The first bytes of the body."""
    reader: Reader

    @property
    def wire(self) -> bytes:
        """`first` as it goes to a socket."""
        return self.reader.audience.framing.wire(self.first)


class Admission:
    """The way in to the streams of one hub."""

    def __init__(
        self,
        hub: Hub,
        ready: Callable[[], bool],
        config: HttpConfig,
        authorizer: Authorizer,
        clock: Clock,
        presence: Presence | None = None,
    ) -> None:
        """`ready` returns whether this node has caught up with its cluster.

        Without `presence`, nobody is told of streams.
        """
        self._presence = presence
        self._hub = hub
        self._ready = ready
        self._config = config
        self._authorizer = authorizer
        self.newer_keys = authorizer.newer_keys
        """What to wait for before an answer that awaits keys."""
        self._clock = clock

    def decide(self, request: StreamRequest, *, caught_up: bool = False) -> Opening | Answer | None:
        """Return what to do; None when this node must catch up with the others first.

        A node that is still catching up would show old events as new ones. And the client may come
        from a node that was further, so that its cursor will be known here in a moment. After
        waiting, call again with `caught_up`.
        """
        wanted = self.wanted(request)
        if isinstance(wanted, Answer):
            return wanted
        return self.decide_on(wanted, request.peer, caught_up=caught_up)

    def wanted(self, request: StreamRequest) -> WantedStream | Answer:
        """Return what a request asks for, as far as it alone and its token decide that."""
        hub_url = hub_url_of(request.header, request.scheme, request.peer, self._config)
        asked = self._asked(request, hub_url)
        if isinstance(asked, Answer):
            return asked
        try:
            grant = self._grant(request, asked, hub_url)
        except TokenRejected as rejection:
            awaits_keys = rejection.unknown_key and self.newer_keys is not None
            return rejected(rejection, hub_url, awaits_keys=awaits_keys)
        if asked.problem:
            return invalid(asked.dialect, asked.problem)
        framing, accept = request.framing, request.header("accept")
        over_http = not framing.is_websocket
        if over_http and asked.dialect is Dialect.V1 and not accepts_streams(accept):
            text = f"There is only {sse.MEDIA_TYPE} here: name it in Accept, or leave Accept out."
            return invalid(asked.dialect, text, 406)
        if request.path == CATEGORY:
            audience = _audience(View.CATEGORY, _ALL, _NOTHING, framing)
        else:
            rights = rights_of(grant, asked.selectors)
            audience = _audience(View.MERCURE, asked.selectors, rights, framing)
        return WantedStream(
            request.path,
            asked,
            grant,
            audience,
            header_text(request.header("last-event-id")) or asked.cursor or "",
            request.header("x-forwarded-for"),
            request.path == CATEGORY
            or asked.wants_cursors
            or is_browser(request.header("user-agent")),
            over_http and sse.MEDIA_TYPE not in accept,
        )

    def decide_on(
        self, wanted: WantedStream, peer: str, *, caught_up: bool = False
    ) -> Opening | Answer | None:
        """Return what to do, as `decide` does."""
        hub, requested = self._hub, wanted.requested
        position = hub.feed.position_of(requested) if requested else None
        if not caught_up and (not self._ready() or (requested and position is None)):
            return None
        key = ""
        if hub.limits.counts_clients:
            key = client_key(peer, wanted.forwarded_for, self._config.trusted_proxies)
        framing = wanted.audience.framing
        reached = hub.limits.reached(key)
        if reached is None and hub.feed.is_crowded(wanted.audience.patterns):
            reached = StreamLimit.PATTERNS
        if reached is not None and wanted.may_be_refused:
            return plain(429, f"Come back later: {reached.value}.", ("Retry-After", "2"))
        if reached is not None:
            return self.turn_away(framing, reached.value)
        if not hub.running:
            return self.turn_away(framing)
        return self._open(wanted, position, key)

    def turn_away(self, framing: Framing = EVENT_STREAM, why: str = NOT_READY) -> Answer:
        """Return the answer after which a client comes back in a moment.

        An `EventSource` does so by itself. A WebSocket is opened, and closed with 1013 and the
        reason, as scripts in a browser learn nothing of any other answer.
        """
        body = framing.turning_away(self._hub.retry_ms(), why)
        if framing.is_websocket:
            return Answer(101, [], body)
        return Answer(200, STREAM_HEADERS, body)

    def _asked(self, request: StreamRequest, hub_url: str) -> SubscriptionParameters | Answer:
        if request.path == CATEGORY:
            return cursor_parameters(request.query)
        assert request.path == HUB_PATH, "the caller looked at `PATHS`"
        body = None
        if request.method == QUERY:
            content_type = request.header("content-type")
            if (problem := problem_of_type(content_type)) is not None:
                return invalid(Dialect.V1, problem, 415 if is_media_type(content_type) else 400)
            body = request.body
        return parameters_of(request.query, self._config.dialects, hub_url, body)

    def _grant(self, request: StreamRequest, asked: SubscriptionParameters, hub_url: str) -> Grant:
        """Return what the client may see; raises `TokenRejected`."""
        header = request.header
        if not (asked.tokens or header("authorization") or header("cookie")):
            without = self._authorizer.without_token
            if without is not None:
                return without
        presented = Presented.by(
            request.header,
            method=request.method,
            hub_url=hub_url,
            query_tokens=asked.tokens,
            dialect=asked.dialect,
        )
        now = self._clock.wall_ms() / 1000
        return self._authorizer.grant(presented, Action.SUBSCRIBE, now=now)

    def _open(self, wanted: WantedStream, position: int | None, client_key: str) -> Opening:
        feed, asked, requested = self._hub.feed, wanted.asked, wanted.requested
        audience = wanted.audience
        framing = audience.framing
        headers = () if framing.is_websocket else _STREAM_HEADERS
        cursor_header = CURSOR_HEADERS[asked.dialect]
        first = framing.greeting()
        if wanted.takes_hints:
            first += framing.retry(self._hub.retry_ms())
        if requested and (position is None or feed.has_gap(audience, position)):
            headers = (*headers, (cursor_header, sse.EARLIEST))
            first += framing.gap(requested)
            return Opening(headers, first, self._reader(wanted, EDGE, client_key))
        if requested:
            headers = (*headers, (cursor_header, requested))
        elif asked.cursor is not None and asked.dialect is Dialect.V1:
            headers = (*headers, (cursor_header, sse.EARLIEST))
        after_seq = feed.newest_seq if position is None else position
        if asked.last and not requested:
            after_seq = feed.before_last(audience, asked.last)
        # Whoever is sent the last events gets a cursor with each of them.
        if asked.wants_cursors and (requested or after_seq == feed.newest_seq):
            # It makes sure that a client whose connection breaks before its first event misses
            # nothing.
            first += framing.cursor(requested or feed.retained.newest_cursor)
        return Opening(headers, first, self._reader(wanted, after_seq, client_key))

    def _reader(self, wanted: WantedStream, after_seq: int, client_key: str) -> Reader:
        grant, asked, audience = wanted.grant, wanted.asked, wanted.audience
        subscriber = None
        if self._presence is not None and audience.view is View.MERCURE:
            version = 1 if asked.dialect is Dialect.V1 else 0
            subscriber = self._presence.new_subscriber(version, asked.selectors, grant.payload_of)
        elif grant is ANONYMOUS:
            return Reader(audience, after_seq, client_key, asked.wants_cursors)
        ends_at = math.inf
        if grant.expires_at is not None:
            ends_at = self._clock.now() + grant.expires_at - self._clock.wall_ms() / 1000
        return Reader(
            audience,
            after_seq,
            client_key,
            asked.wants_cursors,
            ends_at=ends_at,
            subject=grant.subject or "",
            token_id=grant.token_id or "",
            subscriber=subscriber,
        )


def rights_of(grant: Grant, selectors: frozenset[Selector]) -> frozenset[Selector]:
    """Return what decides which private events a reader of `selectors` sees.

    Those who may see all that they ask for are told apart no further, whatever else their tokens
    allow: they share what is sent. Other rights must stay: an event has several topics, one that
    is asked for, and one for which there is a right.
    """
    rights = grant.subscribe
    if not rights:
        return rights
    if ALL_TOPICS in rights or all(_covered(one, rights) for one in selectors):
        return _ALL
    return rights


_STREAM_HEADERS: Final = tuple(STREAM_HEADERS)
_ALL: Final = frozenset({ALL_TOPICS})
_NOTHING: Final[frozenset[Selector]] = frozenset()

AUDIENCES_KNOWN_MAX: Final = 1024
"""As many as queries that are remembered."""


@lru_cache(maxsize=AUDIENCES_KNOWN_MAX)
def _audience(
    view: View, selectors: frozenset[Selector], rights: frozenset[Selector], framing: Framing
) -> Audience:
    """Most clients of one application are one audience; the hub finds it by its hash."""
    return Audience(view, selectors, rights, framing)


def _covered(selector: Selector, rights: frozenset[Selector]) -> bool:
    """Return whether a right certainly matches each topic that a selector matches."""
    return selector in rights or (
        selector.kind is SelectorKind.EXACT and any(one.matches(selector.text) for one in rights)
    )


def is_browser(user_agent: str) -> bool:
    """Return whether a User-Agent header is a browser's: all begin so, for history's sake."""
    return user_agent.startswith("Mozilla/")


def accepts_streams(accept: str) -> bool:
    """Return whether an Accept header lets a stream through; without one, it may be anything."""
    if not accept.strip():
        return True
    qualities: dict[str, bool] = {}
    for part in accept.lower().split(","):
        media_range, *parameters = (piece.strip() for piece in part.split(";"))
        refused = any(re.fullmatch(r"q=0(\.0{0,3})?", one) for one in parameters)
        qualities.setdefault(media_range, not refused)
    for media_range in (sse.MEDIA_TYPE, "text/*", "*/*"):
        if media_range in qualities:
            return qualities[media_range]
    return False
