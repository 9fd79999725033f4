"""Answers HTTP requests: routing, cursors, headers, and the first bytes of every stream.

Enters: requests. Leaves: responses; a stream's connection goes to the hub as soon as its head is
written.
Never: sending events to many clients (that is the hub's), deciding what is committed.

A stream is never refused for the node's sake with a status other than 200: `EventSource` would give
up for ever.
"""

import re
from collections.abc import AsyncIterator
from importlib import resources
from types import TracebackType
from typing import Protocol, cast

import structlog
import trio
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from noti.notifications.topics import EVERYTHING
from noti.web import ops, sse
from noti.web.config import WebConfig
from noti.web.feed import Audience, View
from noti.web.hub import Hub
from noti.web.subscription import Subscription
from noti.web.view import NodeView

log = structlog.get_logger("noti.web")

CONNECTION = "noti.connection"
"""Where the server puts an `Adoptable` into the ASGI scope's extensions."""

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "private, no-cache, no-store, no-transform, must-revalidate, max-age=0",
    "X-Accel-Buffering": "no",
}
"""No charset (the format is always UTF-8), nothing cached or compressed, no buffering in nginx."""

PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Adoptable(Protocol):
    """A connection whose socket can be taken away from the HTTP server."""

    def give_to(self, hub: Hub, audience: Audience, after_seq: int) -> None:
        """Let `hub` go on from `after_seq`; what the server still writes or reads is ignored from
        now on.
        """


class BadRequest(HTTPException):
    """A request that cannot be answered; the description tells the client what to do."""

    code = 400


class App(QuartTrio):
    """Quart, with its log lines in ours."""

    def log_exception(
        self,
        exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        """Log what a handler did not expect; the client gets a plain 500."""
        log.error("request failed", path=request.path, exc_info=exception_info)


def create_app(hub: Hub, node: NodeView, config: WebConfig) -> App:
    """Return the application; it holds nothing open."""
    app = App("noti", static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None  # Streams have no end; the server bounds each write.
    _add_page(app)
    _add_streams(app, hub, node, config)
    ops.add_routes(app, hub, node)
    _add_errors(app)
    _add_headers(app, config)
    return app


def _add_streams(app: App, hub: Hub, node: NodeView, config: WebConfig) -> None:
    @app.get("/category")
    async def category() -> Response:
        everything = Audience(View.CATEGORY, frozenset({EVERYTHING}))
        return await _stream(hub, node, everything, config.catch_up_wait_s)

    @app.get("/.well-known/mercure")
    async def mercure() -> Response:
        topics = request.args.getlist("topic")
        if not topics:
            raise BadRequest(
                'Missing "topic" parameter: add ?topic=NAME, several times for several topics,'
                " or ?topic=* for all."
            )
        if len(topics) > config.topics_max:
            raise BadRequest(f"Too many topics: at most {config.topics_max} in one subscription.")
        for topic in topics:
            if not topic or len(topic) > config.topic_length_max or _CONTROL.search(topic):
                raise BadRequest(
                    f"A topic has 1 to {config.topic_length_max} characters, none of them a control"
                    " character."
                )
        audience = Audience(View.MERCURE, frozenset(topics))
        return await _stream(hub, node, audience, config.catch_up_wait_s)


async def _stream(hub: Hub, node: NodeView, audience: Audience, wait_s: float) -> Response:
    """Return the response that begins a stream where the client wants to begin it."""
    headers = dict(STREAM_HEADERS)
    requested = (
        request.headers.get("Last-Event-ID")
        or request.args.get("lastEventID")
        or request.args.get("last_event_id")
    )
    first = sse.comment("ok") + hub.farewell()
    position = hub.feed.position_of(requested) if requested else None
    if not node.ready() or (requested and position is None):
        # A node that is still catching up would show old events as new ones. And the client may
        # come from a node that was further, so that its cursor will be known here in a moment.
        with trio.move_on_after(wait_s) as patience:
            await node.barrier()
        if patience.cancelled_caught:
            return Response(first, headers=headers)
        position = hub.feed.position_of(requested) if requested else None
    if not hub.accepting:
        return Response(first, headers=headers)
    if not requested:
        # The cursor makes sure that a client whose connection breaks before its first event misses
        # nothing.
        after_seq = hub.feed.newest_seq
        first += sse.cursor(hub.feed.newest_id)
    elif position is not None:
        after_seq = position
        headers["Last-Event-ID"] = requested
        first += sse.cursor(requested)
    else:
        after_seq = hub.feed.oldest_seq - 1
        headers["Last-Event-ID"] = sse.EARLIEST
        first += sse.gap_frame(requested)
    if request.method == "HEAD":
        return Response(b"", headers=headers)
    connection = cast("Adoptable | None", request.scope["extensions"].get(CONNECTION))
    return Response(StreamBody(first, connection, hub, audience, after_seq), headers=headers)


class StreamBody(ResponseBody):
    """A stream's body: first bytes, then either the hub takes the connection, or events follow one
    by one.
    """

    def __init__(
        self,
        first: bytes,
        connection: Adoptable | None,
        hub: Hub,
        audience: Audience,
        after_seq: int,
    ) -> None:
        self._first = first
        self._connection = connection
        self._hub = hub
        self._audience = audience
        self._after_seq = after_seq
        self._subscription: Subscription | None = None
        self._over = False

    async def __aenter__(self) -> AsyncIterator[bytes]:
        if self._connection is None:
            self._subscription = Subscription(self._hub, self._audience, self._after_seq)
            self._subscription.__enter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._subscription is not None:
            self._subscription.__exit__(*exc_info)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        # Being asked again means that the server has written the response's head and the first
        # bytes.
        if self._over or self._subscription is None:
            if self._connection is not None:
                self._connection.give_to(self._hub, self._audience, self._after_seq)
            raise StopAsyncIteration
        data = await self._subscription.next()
        if data is None:
            self._over = True
            return self._hub.farewell()
        return data


def _add_page(app: App) -> None:
    folder = resources.files("noti.web") / "static"
    for path, (name, content_type) in PAGE_FILES.items():
        response = (folder.joinpath(name).read_bytes(), content_type)

        async def page(response: tuple[bytes, str] = response) -> Response:
            body, content_type = response
            return Response(body, content_type=content_type, headers={"Cache-Control": "no-cache"})

        app.add_url_rule(path, endpoint=name, view_func=page)


def _add_errors(app: App) -> None:
    @app.errorhandler(HTTPException)
    async def explain(error: HTTPException) -> Response:
        match error:
            case NotFound():
                text = (
                    f"Nothing is at {request.path}. Try / for the page, /category or"
                    " /.well-known/mercure?topic=* for events, /status for this node."
                )
            case MethodNotAllowed():
                allowed = ", ".join(sorted(error.valid_methods or ()))
                text = f"{request.path} does not answer {request.method}; it answers {allowed}."
            case _:
                text = error.description or error.name
        response = Response(f"{text}\n", status=error.code or 500, content_type=ops.PLAIN)
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response


def _add_headers(app: App, config: WebConfig) -> None:
    @app.after_request
    async def finish(response: Response) -> Response:
        headers = response.headers
        headers["X-Content-Type-Options"] = "nosniff"
        headers["X-Frame-Options"] = "DENY"
        headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' data:"
        if config.cors_origins:
            headers.add("Vary", "Origin")
            origin = request.headers.get("Origin", "")
            if "*" in config.cors_origins or origin in config.cors_origins:
                headers["Access-Control-Allow-Origin"] = (
                    "*" if "*" in config.cors_origins else origin
                )
                headers["Access-Control-Allow-Headers"] = "Last-Event-ID, Cache-Control"
                headers["Access-Control-Expose-Headers"] = "Last-Event-ID"
        return response
