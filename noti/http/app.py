"""Answers HTTP requests: routing, errors for people, the page, and streams the ordinary way.

A stream's connection goes to the hub as soon as its head is written, where the hub can take it. How
a request for a stream is answered is decided in `subscribe.py`.
"""

from collections.abc import AsyncIterator
from importlib import resources
from types import TracebackType
from typing import Any, Protocol, cast

import structlog
import trio
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioRequest
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from noti.address import HUB_PATH
from noti.authorization.authorizer import Authorizer
from noti.authorization.grant import Dialect
from noti.authorization.revoking import Revoking
from noti.completion import Completion
from noti.http import discovery, ops, revocations, subscriptions_api
from noti.http.answers import PLAIN, Answer
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.publish import PublishRequest
from noti.http.publish_endpoint import PATH, PublishEndpoint
from noti.http.quart_glue import header_of, hub_url_in, query_of, response_of
from noti.http.response_headers import common_headers, preflight_headers
from noti.http.subscribe import (
    PATHS,
    QUERY,
    Admission,
    Opening,
    StreamRequest,
)
from noti.http.subscriptions_api import SubscriptionsApi
from noti.streams.hub import Hub
from noti.streams.subscription import Subscription
from noti.trio_clock import TrioClock

log = structlog.get_logger("noti.http")

CONNECTION = "noti.connection"
"""Where the server puts an `Adoptable` into the ASGI scope's extensions."""

BODY_BYTES_MAX = 64 * 1024
"""Where no event is published, of a body no more than this is kept: a QUERY may ask for as much in
its form as in its head."""

JAVASCRIPT = "text/javascript; charset=utf-8"
PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{
        f"/{name}": (name, JAVASCRIPT)
        for name in ("noti.js", "page.js", "events.js", "cluster.js", "dom.js")
    },
}


class Adoptable(Protocol):
    """A connection whose socket can be taken away from the HTTP server."""

    def give_to(self, hub: Hub, opening: Opening) -> None:
        """Let `hub` go on with the stream.

        What the server still writes or reads is ignored from now on.
        """


class BoundedRequest(TrioRequest):
    """A request whose body is bounded by what it can be good for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        method, _, path, *_ = args
        if (method, path) != ("POST", PATH):
            kwargs["max_content_length"] = BODY_BYTES_MAX
        super().__init__(*args, **kwargs)


class App(QuartTrio):
    """Quart, with its log lines in ours."""

    request_class = BoundedRequest

    def log_exception(
        self,
        exception_info: tuple[type, BaseException, TracebackType] | tuple[None, None, None],
    ) -> None:
        """Log what a handler did not expect; the client gets a plain 500."""
        log.error("request failed", path=request.path, exc_info=exception_info)


def create_app(
    hub: Hub,
    node: NodeView,
    admission: Admission,
    endpoint: PublishEndpoint | None,
    config: HttpConfig,
    authorizer: Authorizer,
    revoking: Revoking | None = None,
    subscriptions: SubscriptionsApi | None = None,
    *,
    with_operations: bool,
) -> App:
    """Return the application for browsers, and for operators if they have no other address.

    It holds nothing open. Without `endpoint`, nothing can be published; without `subscriptions`,
    their addresses do not exist.
    """
    app = _empty_app()
    _add_page(app)
    _add_streams(app, hub, node, admission, config)
    discovery.add_routes(app, config, authorizer.config, subscriptions=subscriptions is not None)
    if subscriptions is not None:
        subscriptions_api.add_routes(app, subscriptions)
    if revoking is not None:
        revocations.add_routes(app, authorizer, revoking, config, TrioClock())
    if endpoint is not None:
        _add_publishing(app, endpoint, config)
    if with_operations:
        ops.add_routes(app, hub, node)
    _add_errors(app)
    _add_headers(app, config)
    return app


def create_operations_app(hub: Hub, node: NodeView, config: HttpConfig) -> App:
    """Return the application for operators alone."""
    app = _empty_app()
    ops.add_routes(app, hub, node)
    _add_errors(app)
    _add_headers(app, config)
    return app


def _empty_app() -> App:
    app = App("noti", static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None  # Streams have no end; the server bounds each write.
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX
    return app


def _add_publishing(app: App, endpoint: PublishEndpoint, config: HttpConfig) -> None:
    app.config["MAX_CONTENT_LENGTH"] = endpoint.body_bytes_max
    app.config["BODY_TIMEOUT"] = config.body_timeout_s

    async def publish() -> Response:
        wanted = PublishRequest(
            request.path,
            query_of(request),
            header_of(request),
            request.remote_addr or "",
            hub_url_in(request, config),
            request.http_version,
        )
        grant = endpoint.admit(wanted)
        if isinstance(grant, Answer):
            return response_of(grant)
        room = endpoint.reserve(request.content_length)
        if isinstance(room, Answer):
            return response_of(room)
        try:
            body = await request.get_data(cache=False, as_text=False, parse_form_data=False)
            completion: Completion[Answer] = Completion()
            endpoint.submit(grant, wanted, body, completion)
        finally:
            room.release()
        # If the client goes away, the event is committed all the same.
        return response_of(await completion.wait())

    app.add_url_rule(PATH, endpoint="publish", view_func=publish, methods=["POST"])


def _add_streams(
    app: App, hub: Hub, node: NodeView, admission: Admission, config: HttpConfig
) -> None:
    async def stream() -> Response:
        form = b""
        if request.method == QUERY:
            form = await request.get_data(cache=False, as_text=False, parse_form_data=False)
        wanted = StreamRequest(
            request.path,
            query_of(request),
            header_of(request),
            request.remote_addr or "",
            method=request.method,
            scheme=request.scheme,
            body=form,
        )
        decision = admission.decide(wanted)
        if isinstance(decision, Answer) and decision.awaits_keys and admission.newer_keys:
            await admission.newer_keys()
            decision = admission.decide(wanted)
        if decision is None:
            with trio.move_on_after(config.catch_up_wait_s) as patience:
                await node.barrier()
            decision = (
                admission.turn_away()
                if patience.cancelled_caught
                else admission.decide(wanted, caught_up=True)
            )
        match decision:
            case Opening() as opening if request.method == "HEAD":
                return Response(b"", headers=Headers(opening.headers))
            case Opening() as opening:
                hub.hold(opening.reader)
                connection = cast("Adoptable | None", request.scope["extensions"].get(CONNECTION))
                body = StreamBody(opening, connection, hub)
                return Response(body, headers=Headers(opening.headers))
            case Answer() as answer:
                return response_of(answer)
            case None:
                raise AssertionError("after catching up, there is a decision")

    for path in sorted(PATHS):
        methods = ["GET"]
        if path == HUB_PATH and Dialect.V1 in config.dialects:
            methods.append(QUERY)
        app.add_url_rule(path, endpoint=path, view_func=stream, methods=methods)


class StreamBody(ResponseBody):
    """A stream's body: its first bytes, and what follows them.

    Either the hub takes the connection over, or events follow one by one.
    """

    def __init__(self, opening: Opening, connection: Adoptable | None, hub: Hub) -> None:
        self._opening = opening
        self._first = opening.first
        self._connection = connection
        self._hub = hub
        self._subscription: Subscription | None = None
        self._ended = False

    async def __aenter__(self) -> AsyncIterator[bytes]:
        if self._connection is None:
            self._subscription = Subscription(self._hub, self._opening.reader)
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
        if self._ended or self._subscription is None:
            if self._connection is not None:
                self._connection.give_to(self._hub, self._opening)
            raise StopAsyncIteration
        data = await self._subscription.next()
        if data is None:
            self._ended = True
            return self._hub.retry_hint()
        return data


def _add_page(app: App) -> None:
    folder = resources.files("noti.http") / "static"
    for path, (name, content_type) in PAGE_FILES.items():
        response = (folder.joinpath(name).read_bytes(), content_type)

        async def page(response: tuple[bytes, str] = response) -> Response:
            body, content_type = response
            headers = {"Cache-Control": "no-cache", "Link": discovery.LINK}
            return Response(body, content_type=content_type, headers=headers)

        app.add_url_rule(path, endpoint=name, view_func=page)


def _add_errors(app: App) -> None:
    @app.errorhandler(HTTPException)
    async def explain(error: HTTPException) -> Response:
        match error:
            case NotFound():
                text = (
                    f"Nothing is at {request.path}. Try / for the page, /category or"
                    " /.well-known/mercure?topic=* for events, /status for this node (at"
                    " --ops-addr, if there is one)."
                )
            case MethodNotAllowed():
                allowed = ", ".join(sorted(error.valid_methods or ()))
                text = f"{request.path} does not answer {request.method}; it answers {allowed}."
            case _:
                text = error.description or error.name
        response = Response(f"{text}\n", status=error.code or 500, content_type=PLAIN)
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods or ()))
        return response


def _add_headers(app: App, config: HttpConfig) -> None:
    @app.after_request
    async def finish(response: Response) -> Response:
        for name, value in common_headers(request.headers.get("Origin", ""), config):
            response.headers.add(name, value)
        if request.method == "OPTIONS" and "Access-Control-Allow-Origin" in response.headers:
            for name, value in preflight_headers(response.headers.get("Allow", "")):
                response.headers.add(name, value)
        return response
