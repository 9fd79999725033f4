"""Opens an event stream over WebSocket: its text comes in messages (subprotocol `sse`).

It is read as the body of a response is, so that whoever reads event streams need not know. Pings
are answered, and are signs of life like any other byte.
"""

import math
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from noti.client.http import CONNECT_S_MAX, RECEIVE_BYTES, connect, our_errors, target_of
from noti.client.reconnection import EVENT_STREAM
from noti.errors import LocalError, MessageInvalid, PeerUnavailable

SCHEMES: Final = ("ws", "wss")
SUBPROTOCOL: Final = "sse"
OK: Final = 200


class WebSocketResponse:
    """What the server answers: a stream that begins, or why there is none."""

    def __init__(self, connection: "_WebSocketConnection", silence_s: float) -> None:
        self.status = 0
        """As of a response: 200 for a stream."""
        self.headers: Mapping[str, str] = {}
        """By lower-case name."""
        self._connection = connection
        self._silence_s = silence_s

    async def read_head(self) -> None:
        """Wait for the answer."""
        match await self._connection.receive():
            case AcceptConnection() as accepted:
                media_type = EVENT_STREAM if accepted.subprotocol == SUBPROTOCOL else ""
                self.status = OK
                self.headers = {**_by_name(accepted.extra_headers), "content-type": media_type}
            case RejectConnection() as rejected:
                self.status = rejected.status_code
                self.headers = _by_name(rejected.headers)
            case event:
                raise MessageInvalid(f"that is no WebSocket: {type(event).__name__}")

    async def read_some(self) -> bytes:
        """Return the next bytes of the stream, or of the explanation; none at its end.

        Raises `trio.TooSlowError` after the silence that is granted, and `PeerUnavailable` with the
        reason if the server gives one.
        """
        while True:
            try:
                with trio.fail_after(self._silence_s):
                    event = await self._connection.receive()
            except PeerUnavailable:
                if self.status == OK:
                    raise
                return b""  # So may an explanation end.
            match event:
                case TextMessage(data=text):
                    return text.encode()
                case RejectData(data=data, body_finished=finished):
                    if data or finished:
                        return bytes(data)
                case CloseConnection(code=code, reason=reason):
                    why = f": {reason}" if reason and reason.isprintable() else ""
                    raise PeerUnavailable(f"the stream ended ({int(code)}{why})")
                case BytesMessage():
                    raise MessageInvalid("a message that is no text")
                case _:
                    pass


@asynccontextmanager
async def open_websocket(
    url: str,
    tls: ssl.SSLContext,
    *,
    headers: Sequence[tuple[str, str]] = (),
    head_s: float = math.inf,
    silence_s: float = math.inf,
) -> AsyncIterator[WebSocketResponse]:
    """Open one; hang up at the end. Arguments, errors and cancellation as of `open_response`."""
    target = target_of(url, SCHEMES)
    protocol = WSConnection(ConnectionType.CLIENT)
    try:
        request = protocol.send(
            Request(
                host=target.netloc,
                target=target.path,
                subprotocols=[SUBPROTOCOL],
                extra_headers=[(name.encode(), value.encode("ascii")) for name, value in headers],
            )
        )
    except (LocalProtocolError, h11.LocalProtocolError, UnicodeEncodeError):
        # h11 would say which header, and with it a secret.
        problem = "it, or a header, has characters that HTTP does not allow"
        raise LocalError(f"{url!r} cannot be asked for: {problem}") from None
    with trio.fail_after(min(head_s, CONNECT_S_MAX)), our_errors(target.host):
        stream = await connect(target, tls)
    async with stream:
        connection = _WebSocketConnection(protocol, stream)
        response = WebSocketResponse(connection, silence_s)
        with trio.fail_after(head_s):
            await connection.send(request)
            await response.read_head()
        yield response


def is_websocket(url: str) -> bool:
    """Return whether a URL is one of a WebSocket."""
    return urlsplit(url).scheme in SCHEMES


class _WebSocketConnection:
    """The protocol on a stream."""

    def __init__(self, protocol: WSConnection, stream: trio.abc.Stream) -> None:
        self._protocol = protocol
        self._stream = stream
        self._events: list[Event] = []

    async def send(self, data: bytes) -> None:
        with our_errors():
            await self._stream.send_all(data)

    async def receive(self) -> Event:
        """Return the next event; what must be answered has been."""
        while not self._events:
            with our_errors():
                data = bytes(await self._stream.receive_some(RECEIVE_BYTES))
            if not data:
                raise PeerUnavailable("it hung up")
            try:
                self._protocol.receive_data(data)
                self._events = list(self._protocol.events())
            except RemoteProtocolError as error:
                raise MessageInvalid(f"that is no WebSocket: {error}") from None
        event = self._events.pop(0)
        if isinstance(event, Ping | CloseConnection):
            # If it is away, or closing already, the next event says so.
            with suppress(LocalProtocolError, PeerUnavailable):
                await self.send(self._protocol.send(event.response()))
        return event


def _by_name(headers: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
