"""Everything that bends Hypercorn but its parsers: its connections, its log lines.

Hypercorn serves a process; here it serves one connection at a time, which the acceptor has taken,
whose socket the hub may take away, and which has a slot. It has no settings for that. So this
module, with `strict_parsers.py`, uses what Hypercorn does not promise to keep
(`test_hypercorn_glue.py` names whichever is gone):

- `TCPServer`, `WorkerContext`: serve one connection, without Hypercorn's own listening sockets.
- a connection as `TCPServer` uses it: `Connection`, and `SecuredConnection` in `tls.py`.
- `hypercorn.protocol`'s names for its two protocols, replaced by stricter ones, once for the
  process: Hypercorn makes its parsers itself. Nothing else that uses h11 or h2 is changed.
- `Logger`: what it is asked to log while it serves a connection.
- how it rejects a WebSocket, how it answers what is not HTTP, and that it reports a complete
  response as a disconnect.
"""

import re
import socket
import sys
from typing import Any, Protocol, TypeAlias, cast

import hypercorn.protocol
import structlog
import trio
from hypercorn.config import Config
from hypercorn.logging import Logger
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    ConnectionState,
    HTTPScope,
    LifespanState,
    ResponseSummary,
    Scope,
    WebsocketScope,
    WWWScope,
)

from noti.connection_slots import Slot, SlotsFull
from noti.descriptors import reject
from noti.http import heads, request_counts
from noti.http.app import App
from noti.http.config import HttpConfig
from noti.http.heads import RequestRejection
from noti.http.stream_routes import CONNECTION
from noti.http.strict_parsers import INVALID, StrictH2, StrictH11
from noti.http.subscribe import Opening
from noti.streams import sse
from noti.streams.hub import Hub

log = structlog.get_logger("noti.http")


HYPERCORNS_REJECTION = re.compile(
    rb"HTTP/1\.1 (4\d\d|501) \r\ncontent-length: 0\r\nconnection: close\r\n"
)
"""What Hypercorn says to what is not HTTP; our application's answers have bodies."""

BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})
"""Methods whose requests are answered without a look at a body."""

Socket: TypeAlias = socket.socket
"""A connection has a property of that name."""


class Hypercorn:
    """Serves the connections of one node."""

    def __init__(self, config: HttpConfig) -> None:
        names: Any = hypercorn.protocol
        names.H11Protocol, names.H2Protocol = StrictH11, StrictH2
        self._config = Config()
        self._config.logger_class = HypercornLog
        self._config.include_server_header = False
        self._config.keep_alive_timeout = config.idle_timeout_s
        # A connection may carry streams beside any number of requests, and would end with them.
        self._config.keep_alive_max_requests = sys.maxsize
        self.change(config)
        self._context = WorkerContext(None)

    def change(self, config: HttpConfig) -> None:
        """Serve further connections so."""
        self._config.h11_max_incomplete_size = config.head_bytes_max
        self._config.h2_max_header_list_size = config.head_bytes_max

    async def serve(self, connection: "Connection") -> None:
        """Serve a connection until it ends. Cancellation: leaves the connection open."""
        state = ConnectionState(LifespanState({}))
        stream = cast("Any", connection)
        await TCPServer(connection.application, self._config, self._context, state, stream)

    async def end_idle(self) -> None:
        """Close connections without a request, now and from now on."""
        await self._context.terminated.set()


class ConnectionStream(Protocol):
    """What carries a connection: a `trio.SocketStream`, or the same over TLS."""

    socket: Any
    """With the two addresses."""

    async def send_all(self, data: bytes) -> None:
        """Send."""

    async def receive_some(self, max_bytes: int) -> bytes | bytearray:
        """Receive."""

    async def send_eof(self) -> None:
        """End our side, if that can be done without closing."""

    async def aclose(self) -> None:
        """Close."""


class Connection:
    """One TCP connection as Hypercorn sees it: a stream that can be emptied of its socket."""

    def __init__(
        self, stream: ConnectionStream, app: App, config: HttpConfig, early: bytes = b""
    ) -> None:
        """`early` is what was received already."""
        self._stream = stream
        self._early = early
        self._app = app
        self._config = config
        self._slot: Slot | None = None
        self._answering = 0
        self._streaming = 0
        self._adopted = False

    def take_slot(self, slot: Slot) -> None:
        """Have this slot for as long as the connection is open and no stream."""
        self._slot = slot

    def mark_idle(self) -> None:
        """Note that it is the client's turn: nothing was asked yet."""
        if self._slot is not None:
            self._slot.mark_idle()

    @property
    def socket(self) -> Any:
        """For Hypercorn, which asks it for the two addresses."""
        return self._stream.socket

    async def application(
        self,
        scope: Scope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        sync_spawn: object,
        call_soon: object,
    ) -> None:
        """Answer one request of this connection (an ASGI application, wrapped for Hypercorn)."""
        if self._adopted:
            return  # A request that the client sent behind the one that became a stream.
        assert self._slot is not None, "every connection that is served has a slot"
        self._answering += 1
        self._slot.mark_busy()
        try:
            if scope["type"] == "websocket":
                await self._send_no_websocket(scope, send)
            elif scope["type"] == "http":
                await self._answer(scope, receive, send, self._slot)
        finally:
            self._answering -= 1
            if not self._answering:
                self._slot.mark_idle()

    async def _answer(
        self,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        slot: Slot,
    ) -> None:
        rejection = self._why_rejected(scope, slot)
        if rejection is not None:
            await self._send_rejection(scope, send, rejection)
            return
        if scope["http_version"] == "1.1" and scope["method"] == "GET":
            cast("dict[str, object]", scope["extensions"])[CONNECTION] = self
        complete, streams = False, False
        awaits_body = scope["method"] not in BODILESS

        async def send_noting(message: ASGISendEvent) -> None:
            nonlocal complete, streams
            if message["type"] == "http.response.start":
                request_counts.count(scope["method"], scope["path"], message["status"])
                streams = (b"content-type", sse.MEDIA_TYPE.encode()) in message["headers"]
                if streams:
                    self._begin_streaming(slot)
            elif message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        async def receive_until_complete() -> ASGIReceiveEvent:
            nonlocal awaits_body
            if awaits_body and self._answering == 1:
                # It is the client's turn: whoever sends half a request makes room for others.
                slot.mark_idle()
            message = await receive()
            if awaits_body:
                slot.mark_busy()
                awaits_body = bool(message.get("more_body"))
            if complete and message["type"] == "http.disconnect":
                # Hypercorn reports every complete response as a disconnect, upon which Quart
                # cancels the task in which Hypercorn just makes the connection ready for the next
                # request, or closes it. It would stay half ready permanently.
                await trio.sleep_forever()
            return message

        try:
            await self._app(scope, receive_until_complete, send_noting)
        finally:
            if streams:
                self._end_streaming(slot)

    def _why_rejected(self, scope: HTTPScope, slot: Slot) -> RequestRejection | None:
        """Return why the application is not asked."""
        if not scope["path"].startswith(("/", "http://", "https://")):
            return heads.BAD_REQUEST
        target_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        line_bytes = len(scope["method"]) + target_bytes + bool(scope["query_string"])
        always = request_counts.answers_always(scope["method"], scope["path"])
        rejection = heads.why_head_invalid(
            scope["http_version"], line_bytes, list(scope["headers"]), self._config.head_bytes_max
        )
        if rejection is None and slot.full and not always:
            return heads.BUSY if slot.full is SlotsFull.NODE else heads.BUSY_FOR_YOU
        return rejection

    async def _send_rejection(
        self, scope: HTTPScope, send: ASGISendCallable, rejection: RequestRejection
    ) -> None:
        """Answer, and close."""
        request_counts.count(scope["method"], scope["path"], rejection.status)
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        if scope["http_version"] != "2":  # which has no such header, and other connections
            headers.append((b"connection", b"close"))
        if rejection in (heads.BUSY, heads.BUSY_FOR_YOU):
            headers += [(name.lower().encode(), text.encode()) for name, text in heads.RETRY_AFTER]
        body = f"{rejection.text}\n".encode()
        await send({"type": "http.response.start", "status": rejection.status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _send_no_websocket(self, scope: WebsocketScope, send: ASGISendCallable) -> None:
        """Answer who wants to speak WebSocket, and close."""
        request_counts.count("GET", scope["path"], heads.NO_WEBSOCKET.status)
        body = f"{heads.NO_WEBSOCKET.text}\n".encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send(
            {
                "type": "websocket.http.response.start",
                "status": heads.NO_WEBSOCKET.status,
                "headers": headers,
            }
        )
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})

    def _begin_streaming(self, slot: Slot) -> None:
        """Be counted with the streams."""
        self._streaming += 1
        slot.release()

    def _end_streaming(self, slot: Slot) -> None:
        self._streaming -= 1
        if not self._streaming and not self._adopted:
            slot.take_again()

    def give_to(self, hub: Hub, opening: Opening) -> None:
        """Hand the socket to the hub and look closed to Hypercorn from now on."""
        if self._adopted or not hub.running:
            return
        try:
            taken = self._taken_socket()
        except OSError:
            return  # The client hung up and the descriptor is closed already.
        self._adopted = True
        hub.adopt(taken, opening.reader)

    def _taken_socket(self) -> Socket:
        """Return the non-blocking socket; this stream looks closed then. Raises `OSError`."""
        taken = socket.fromfd(
            self._stream.socket.fileno(), self._stream.socket.family, socket.SOCK_STREAM
        )
        taken.setblocking(False)
        # Closes this descriptor only, and wakes the task that reads from it; the connection lives
        # on in `taken`.
        self._stream.socket.close()
        return taken

    async def send_all(self, data: bytes) -> None:
        """Send, within a time limit; to nobody when the socket was adopted.

        Hypercorn shields its sends, so the limit is here.
        """
        if self._adopted:
            await trio.lowlevel.checkpoint()
            return
        if (rejected := HYPERCORNS_REJECTION.match(data)) is not None:
            INVALID.inc()
            data = self._with_explanation(data, int(rejected[1]))
        with trio.move_on_after(self._config.send_timeout_s) as limit:
            try:
                await self._stream.send_all(data)
            except trio.BusyResourceError:
                # Hypercorn is about to close, for what came behind the request.
                raise trio.BrokenResourceError("the connection is being closed") from None
        if limit.cancelled_caught:
            self.close()
            raise trio.BrokenResourceError("the client does not take its answer")

    async def receive_some(self, bytes_max: int) -> bytes:
        """Receive; raises `trio.ClosedResourceError` as soon as the socket is adopted."""
        if self._early:
            await trio.lowlevel.checkpoint()
            early, self._early = self._early[:bytes_max], self._early[bytes_max:]
            return early
        return bytes(await self._stream.receive_some(bytes_max))

    async def send_eof(self) -> None:
        """End our side of the connection, unless it goes on elsewhere.

        `shutdown` would end it for the hub too.
        """
        if self._adopted:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close our descriptor."""
        await self._stream.aclose()

    def close(self) -> None:
        """Close our descriptor at once, and give the slot back.

        Tasks that wait for it get `trio.ClosedResourceError`.
        """
        self._close_stream()
        if self._slot is not None:
            self._slot.release()

    def _close_stream(self) -> None:
        self._stream.socket.close()

    def reject(self, response: bytes) -> None:
        """Answer and close, without waiting; nobody has begun to serve the connection."""
        reject(socket.socket(fileno=self._stream.socket.detach()), response)

    def _with_explanation(self, head: bytes, status: int) -> bytes:
        """Give the bodyless answer that Hypercorn has for what is not HTTP a body for people."""
        too_long = heads.too_long(self._config.head_bytes_max)
        rejection = too_long if status == too_long.status else heads.BAD_REQUEST
        request_counts.count_unread(status)
        body = f"{rejection.text}\n".encode()
        return head.replace(b"content-length: 0", b"content-length: %d" % len(body)) + body


class HypercornLog(Logger):
    """Hypercorn's log lines in ours: no access log, no traceback for a request."""

    def __init__(self, config: Config) -> None:
        self.access_logger = self.error_logger = None  # so that its other methods log nothing

    async def access(
        self, request: WWWScope, response: ResponseSummary | None, request_time: float
    ) -> None:
        """Log a request, at debug level."""
        log.debug(
            "request",
            path=request["path"],
            status=None if response is None else response["status"],
            took_ms=round(request_time * 1000, 1),
        )

    async def exception(self, message: str, *args: Any, **_: Any) -> None:
        """Log what kind of exception a request raised."""
        log.error("request failed", where=message, error=repr(sys.exc_info()[1]))
