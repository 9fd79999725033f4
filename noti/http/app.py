"""Answers HTTP requests that do not go a short way: routing, publishing, the page, errors."""

from collections.abc import Callable, Iterator, Mapping
from importlib import resources
from types import TracebackType
from typing import Any

import structlog
from quart import Response, request
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioRequest
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from noti.authorization.authorizer import Authorizer
from noti.authorization.revoking import Revoking
from noti.completion import Completion
from noti.http import backups, discovery, ops, revocations, stream_routes, subscriptions_api
from noti.http.answers import PLAIN, Answer
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.ops import Operations
from noti.http.publish import PublishRequest
from noti.http.publish_endpoint import PATH, PublishEndpoint
from noti.http.quart_glue import header_of, hub_url_in, query_of, response_of
from noti.http.response_headers import common_headers, preflight_headers
from noti.http.subscribe import (
    Admission,
)
from noti.http.subscriptions_api import SubscriptionsApi
from noti.streams.hub import Hub
from noti.trio_clock import TrioClock

log = structlog.get_logger("noti.http")

BODY_BYTES_MAX = 64 * 1024
"""Where no event is published, of a body no more than this is kept: a QUERY may ask for as much in
its form as in its head."""

JAVASCRIPT = "text/javascript; charset=utf-8"
HTML = "text/html; charset=utf-8"
STYLE = {"/page.css": ("page.css", "text/css; charset=utf-8")}
PAGE_FILES = {
    "/": ("index.html", HTML),
    **STYLE,
    **{
        f"/{name}": (name, JAVASCRIPT)
        for name in ("noti.js", "page.js", "events.js", "subscribers.js", "dom.js")
    },
}
"""The page for everybody, with events."""
OPERATORS_FILES = {
    "/": ("cluster.html", HTML),
    **STYLE,
    **{f"/{name}": (name, JAVASCRIPT) for name in ("cluster.js", "dom.js")},
}
"""The page for operators, of the cluster."""

BROWSERS_FIND = (
    "Try / for the page, /category or /.well-known/mercure?topic=* for events; /status and /metrics"
    " are at --ops-addr, port 8403 unless that says another."
)
OPERATORS_FIND = (
    "Try / for the page, /status for this node; events are at --http-addr, port 8402 unless that"
    " says another."
)


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
    probes: Operations,
    pieces_of_state: Callable[[], Iterator[bytes]] | None = None,
) -> App:
    """Return the application for browsers and publishers.

    It holds nothing open. Without `endpoint`, nothing can be published; without `subscriptions` and
    `pieces_of_state`, their addresses do not exist.
    """
    app = _empty_app()
    _add_page(app, PAGE_FILES)
    stream_routes.add_routes(app, hub, node, admission, config)
    discovery.add_routes(app, config, authorizer, subscriptions=subscriptions is not None)
    if subscriptions is not None:
        subscriptions_api.add_routes(app, subscriptions)
    if revoking is not None:
        revocations.add_routes(app, authorizer, revoking, config, TrioClock())
    if pieces_of_state is not None:
        backups.add_routes(app, authorizer, node, pieces_of_state, config, TrioClock())
    if endpoint is not None:
        _add_publishing(app, endpoint, config)
    ops.add_routes(app, probes, ops.PROBES)
    _add_errors(app, BROWSERS_FIND)
    _add_headers(app, config)
    return app


def create_operations_app(operations: Operations) -> App:
    """Return the application for operators, which pages of no other origin may read."""
    app = _empty_app()
    _add_page(app, OPERATORS_FILES)
    ops.add_routes(app, operations, ops.PATHS)
    _add_errors(app, OPERATORS_FIND)
    _add_headers(app, HttpConfig())
    return app


def _empty_app() -> App:
    app = App("noti", static_folder=None)
    app.config["RESPONSE_TIMEOUT"] = None  # Streams have no end; the server bounds each write.
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX
    return app


def bound_bodies(app: App, config: HttpConfig) -> None:
    """Let events be as long as the configuration says."""
    app.config["MAX_CONTENT_LENGTH"] = config.publish_body_bytes_max


def _add_publishing(app: App, endpoint: PublishEndpoint, config: HttpConfig) -> None:
    bound_bodies(app, config)
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


def _add_page(app: App, files: Mapping[str, tuple[str, str]]) -> None:
    folder = resources.files("noti.http") / "static"
    for path, (name, content_type) in files.items():
        response = (folder.joinpath(name).read_bytes(), content_type)

        async def page(response: tuple[bytes, str] = response) -> Response:
            body, content_type = response
            headers = {"Cache-Control": "no-cache", "Link": discovery.LINK}
            return Response(body, content_type=content_type, headers=headers)

        app.add_url_rule(path, endpoint=name, view_func=page)


def _add_errors(app: App, found: str) -> None:
    """`found` says what is at this address, in a sentence."""

    @app.errorhandler(HTTPException)
    async def explain(error: HTTPException) -> Response:
        match error:
            case NotFound():
                text = f"Nothing is at {request.path}. {found}"
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
