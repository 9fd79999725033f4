"""Answers requests for streams the ordinary way: through Quart.

A stream's connection goes to the hub as soon as its head is written, where the hub can take it.
How a request is answered is decided in `subscribe.py`.
"""

from collections.abc import AsyncIterator, Callable
from typing import Protocol, cast

import trio
from quart import Response, request
from quart.wrappers.response import ResponseBody
from quart_trio import QuartTrio
from werkzeug.datastructures import Headers

from noti.address import HUB_PATH
from noti.authorization.grant import Dialect
from noti.http.answers import Answer
from noti.http.config import HttpConfig
from noti.http.node_view import NodeView
from noti.http.quart_glue import header_of, query_of, response_of
from noti.http.subscribe import PATHS, QUERY, Admission, Opening, StreamRequest
from noti.streams.hub import Hub
from noti.streams.subscription import Subscription

CONNECTION = "noti.connection"
"""Where the server puts an `Adoptable` into the ASGI scope's extensions."""


SENDER = "noti.sender"
"""Where the server puts a `StreamSender`, instead, for a connection that has several streams."""


class StreamSender(Protocol):
    """A connection that sends its streams by itself, once their heads are on their way."""

    async def __call__(
        self,
        subscription: Subscription,
        hub: Hub,
        first: bytes,
        last_words: Callable[[], bytes],
    ) -> None:
        """Send `first` and what follows; return when the stream is over, with its last words."""


class Adoptable(Protocol):
    """A connection whose socket can be taken away from the HTTP server."""

    def give_to(self, hub: Hub, opening: Opening) -> None:
        """Let `hub` go on with the stream.

        What the server still writes or reads is ignored from now on.
        """


def add_routes(
    app: QuartTrio, hub: Hub, node: NodeView, admission: Admission, config: HttpConfig
) -> None:
    """Add the addresses of streams."""

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
                return Response(b"", headers=Headers(list(opening.headers)))
            case Opening() as opening:
                hub.hold(opening.reader)
                connection = cast("Adoptable | None", request.scope["extensions"].get(CONNECTION))
                sender = cast("StreamSender | None", request.scope["extensions"].get(SENDER))
                body = StreamBody(opening, connection, hub, sender)
                return Response(body, headers=Headers(list(opening.headers)))
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

    Either the hub takes the connection over, or the connection sends what follows, or events follow
    one by one.
    """

    def __init__(
        self,
        opening: Opening,
        connection: Adoptable | None,
        hub: Hub,
        sender: StreamSender | None = None,
    ) -> None:
        self._opening = opening
        self._first = opening.first
        self._connection = connection
        self._hub = hub
        self._sender = sender
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
        first, self._first = self._first, b""
        if self._sender is not None and self._subscription is not None:
            await self._sender(self._subscription, self._hub, first, self._last_words)
            raise StopAsyncIteration
        if first:
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
            return self._last_words()
        return data

    def _last_words(self) -> bytes:
        return self._opening.reader.audience.framing.retry(self._hub.retry_ms())
