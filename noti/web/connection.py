"""One TCP connection as Hypercorn sees it, whose socket the hub can take away.

Enters: a stream, requests that Hypercorn parsed. Leaves: answers, or the socket to the hub.
Never: a byte of Hypercorn's on a socket that was given away.
"""

import socket
from typing import cast

import trio
from hypercorn.typing import (
    ASGIReceiveCallable,
    ASGIReceiveEvent,
    ASGISendCallable,
    ASGISendEvent,
    HTTPScope,
    Scope,
)
from prometheus_client import Counter

from noti.web.admission import Opening
from noti.web.app import CONNECTION, App
from noti.web.hub import Hub

REFUSED = Counter("noti_web_requests_refused_total", "Requests that are not HTTP.")

BAD_REQUEST = (
    b"This is not a request that this server understands: it speaks HTTP/1.1 and HTTP/2.\n"
)


class Connection:
    """One TCP connection as Hypercorn sees it: a stream that can be emptied of its socket."""

    adoptable = True
    """Whether the hub can take its socket."""

    def __init__(
        self, stream: trio.SocketStream, app: App, send_timeout_s: float, early: bytes = b""
    ) -> None:
        """`early` is what was received already."""
        self._stream = stream
        self._early = early
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
        if self.adoptable and scope["http_version"] == "1.1" and scope["method"] == "GET":
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

    def give_to(self, hub: Hub, opening: Opening) -> None:
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
        hub.adopt(taken, opening.audience, opening.after_seq, opening.address)

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
            await self._send(data)
        if limit.cancelled_caught:
            self.close()
            raise trio.BrokenResourceError("the client does not take its answer")

    async def _send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive_some(self, bytes_max: int) -> bytes:
        """Receive; raises `trio.ClosedResourceError` as soon as the socket is given away."""
        if self._early:
            await trio.lowlevel.checkpoint()
            early, self._early = self._early[:bytes_max], self._early[bytes_max:]
            return early
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


def _with_explanation(head: bytes) -> bytes:
    """Give the bodyless answer that Hypercorn has for what is not HTTP a body for people."""
    length = b"content-length: %d" % len(BAD_REQUEST)
    return head.replace(b"content-length: 0", length) + BAD_REQUEST
