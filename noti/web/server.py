"""Listens for HTTP and runs Hypercorn on each connection, so that the hub can take a connection's
socket away.

Enters: connections. Leaves: answers, through Quart on Hypercorn, or sockets to the hub.
Never: a traceback to a client, an answer on a connection that was given away.

Shutdown order: stop accepting; end streams and let answers in progress finish, bounded; then
return.
"""

import socket
import sys
from functools import partial
from typing import Any, cast

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
    WWWScope,
)
from prometheus_client import Counter

from noti.errors import AddressInUse
from noti.ports import Address
from noti.web.app import CONNECTION, App, create_app
from noti.web.config import WebConfig
from noti.web.feed import Audience
from noti.web.hub import Hub
from noti.web.view import NodeView

log = structlog.get_logger("noti.web")

REFUSED = Counter("noti_web_requests_refused_total", "Requests that are not HTTP.")

BAD_REQUEST = (
    b"This is not a request that this server understands: it speaks HTTP/1.1 and HTTP/2.\n"
)


class Frontend:
    """A node's HTTP address."""

    def __init__(self, bind: Address, hub: Hub, node: NodeView, config: WebConfig) -> None:
        self._bind = bind
        self._hub = hub
        self._config = config
        self._app = create_app(hub, node, config)
        self._hypercorn = _hypercorn_config(config)
        self._connections: set[Connection] = set()
        self._closed = trio.lowlevel.ParkingLot()

    async def run(
        self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled, and run the hub meanwhile. Started with the address that it
        listens on.

        Raises `AddressInUse` before anything is started. Cancellation: browsers' streams end in
        order; returns within the two grace times of the configuration.
        """
        listeners = await _listen(self._bind)
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._serve_until, stop, listeners)
            host, port = listeners[0].socket.getsockname()[:2]
            log.info("listening for http", host=host, port=port)
            task_status.started((host, port))
            try:
                await trio.sleep_forever()
            finally:
                stop.set()

    async def _serve_until(
        self,
        stop: trio.Event,
        listeners: list[trio.SocketListener],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until `stop`. Shielded, because a cancellation from above becomes `stop`, and has a
        deadline from then on.
        """
        context = WorkerContext(None)
        with trio.CancelScope(shield=True) as service:
            async with trio.open_nursery() as serving:
                await serving.start(self._hub.run)
                async with trio.open_nursery() as connections:
                    async with trio.open_nursery() as accepting:
                        accepting.start_soon(
                            partial(
                                trio.serve_listeners,
                                partial(self._serve_connection, context),
                                listeners,
                                handler_nursery=connections,
                            )
                        )
                        task_status.started()
                        await stop.wait()
                        accepting.cancel_scope.cancel()
                    config = self._config
                    hub_s = self._hub.config.drain_timeout_s
                    service.deadline = trio.current_time() + config.grace_s + hub_s
                    self._hub.drain()
                    await context.terminated.set()
                    with trio.move_on_after(config.grace_s):
                        await self._all_closed()
                    for connection in self._connections:
                        connection.close()  # Also ends the sends that Hypercorn shields.
                    connections.cancel_scope.cancel()

    async def _all_closed(self) -> None:
        while self._connections:
            await self._closed.park()

    async def _serve_connection(self, context: WorkerContext, stream: trio.SocketStream) -> None:
        connection = Connection(stream, self._app, self._config.send_timeout_s)
        self._connections.add(connection)
        try:
            state = ConnectionState(LifespanState({}))
            await TCPServer(
                connection.application, self._hypercorn, context, state, cast("Any", connection)
            )
        except Exception as error:  # noqa: BLE001 - one connection's trouble is nobody else's
            log.warning("connection failed", error=repr(error))
        finally:
            connection.close()
            self._connections.discard(connection)
            self._closed.unpark_all()


class Connection:
    """One TCP connection as Hypercorn sees it: a stream that can be emptied of its socket."""

    def __init__(self, stream: trio.SocketStream, app: App, send_timeout_s: float) -> None:
        self._stream = stream
        self._app = app
        self._send_timeout_s = send_timeout_s
        self._answering = False
        self._given_away = False

    @property
    def socket(self) -> trio.socket.SocketType:
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
        """Run the application for one request of this connection (an ASGI application, wrapped for
        Hypercorn).
        """
        if self._given_away:
            return  # A request that the client sent behind the one that became a stream.
        self._answering = True
        try:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000, "reason": None})
            elif scope["type"] == "http":
                await self._answer(scope, receive, send)
        finally:
            self._answering = False

    async def _answer(
        self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if not scope["path"].startswith(("/", "http://", "https://")):
            headers = [(b"content-type", b"text/plain; charset=utf-8")]
            await send({"type": "http.response.start", "status": 400, "headers": headers})
            await send({"type": "http.response.body", "body": BAD_REQUEST, "more_body": False})
            return
        if scope["http_version"] == "1.1" and scope["method"] == "GET":
            cast("dict[str, object]", scope["extensions"])[CONNECTION] = self
        complete = False

        async def send_noting_the_end(message: ASGISendEvent) -> None:
            nonlocal complete
            if message["type"] == "http.response.body":
                complete = not message.get("more_body", False)
            await send(message)

        async def receive_until_complete() -> ASGIReceiveEvent:
            message = await receive()
            if complete and message["type"] == "http.disconnect":
                # Hypercorn reports every complete response as a disconnect, upon which Quart
                # cancels the task in which Hypercorn just makes the connection ready for the next
                # request, or closes it. It would stay half ready for ever.
                await trio.sleep_forever()
            return message

        await self._app(scope, receive_until_complete, send_noting_the_end)

    def give_to(self, hub: Hub, audience: Audience, after_seq: int) -> None:
        """Hand the socket to the hub and look closed to Hypercorn from now on."""
        if self._given_away or not hub.running:
            return
        try:
            taken = socket.fromfd(
                self._stream.socket.fileno(), self._stream.socket.family, socket.SOCK_STREAM
            )
        except OSError:
            return  # The client hung up and the descriptor is closed already.
        taken.setblocking(False)
        self._given_away = True
        # Closes this descriptor only, and wakes the task that reads from it; the connection lives
        # on in `taken`.
        self._stream.socket.close()
        hub.adopt(taken, audience, after_seq)

    async def send_all(self, data: bytes) -> None:
        """Send, within a time limit (Hypercorn shields its sends); to nobody when the socket was
        given away.
        """
        if self._given_away:
            await trio.lowlevel.checkpoint()
            return
        if not self._answering and data.startswith(b"HTTP/1.1 4"):
            REFUSED.inc()
            data = _with_explanation(data)
        with trio.move_on_after(self._send_timeout_s) as limit:
            await self._stream.send_all(data)
        if limit.cancelled_caught:
            self.close()
            raise trio.BrokenResourceError("the client does not take its answer")

    async def receive_some(self, bytes_max: int) -> bytes:
        """Receive; raises `trio.ClosedResourceError` as soon as the socket is given away."""
        return await self._stream.receive_some(bytes_max)

    async def send_eof(self) -> None:
        """End our side of the connection, unless it goes on elsewhere: `shutdown` would end it for
        the hub too.
        """
        if self._given_away:
            await trio.lowlevel.checkpoint()
        else:
            await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close our descriptor."""
        await self._stream.aclose()

    def close(self) -> None:
        """Close our descriptor at once; tasks that wait for it get `trio.ClosedResourceError`."""
        self._stream.socket.close()


class _Log(Logger):
    """Hypercorn's log lines in ours."""

    def __init__(self, config: Config) -> None:
        self.access_logger = None
        self.error_logger = None

    async def access(
        self, request: WWWScope, response: ResponseSummary | None, request_time: float
    ) -> None:
        log.debug(
            "request",
            path=request["path"],
            status=None if response is None else response["status"],
            took_ms=round(request_time * 1000, 1),
        )

    async def log(self, level: int, message: str, *args: Any, **_: Any) -> None:
        log.log(level, message, args=args)

    async def info(self, message: str, *args: Any, **_: Any) -> None:
        log.info(message, args=args)

    async def warning(self, message: str, *args: Any, **_: Any) -> None:
        log.warning(message, args=args)

    async def error(self, message: str, *args: Any, **_: Any) -> None:
        log.error(message, args=args)

    async def critical(self, message: str, *args: Any, **_: Any) -> None:
        log.critical(message, args=args)

    async def exception(self, message: str, *args: Any, **_: Any) -> None:
        log.error("request failed", where=message, error=repr(sys.exc_info()[1]))


def _hypercorn_config(config: WebConfig) -> Config:
    hypercorn = Config()
    hypercorn.logger_class = _Log
    hypercorn.include_server_header = False
    hypercorn.keep_alive_timeout = config.idle_timeout_s
    return hypercorn


async def _listen(bind: Address) -> list[trio.SocketListener]:
    host, port = bind
    try:
        return await trio.open_tcp_listeners(port, host=host or None)
    except OSError as error:
        reason = error.strerror or str(error)
        raise AddressInUse(
            f"--http-addr {host}:{port} cannot be used: {reason}; choose another address"
        ) from error


def _with_explanation(head: bytes) -> bytes:
    """Give the bodyless answer that Hypercorn has for what is not HTTP a body for people."""
    length = b"content-length: %d" % len(BAD_REQUEST)
    return head.replace(b"content-length: 0", length) + BAD_REQUEST
