"""Clients of WebSockets: one that keeps to the protocol, and one that says what it likes."""

import json
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import h11
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from noti.address import Address
from tests.http.stage import LIMIT_S

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = [
    ("host", "localhost"),
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", KEY),
]


@asynccontextmanager
async def web_socket(
    address: Address,
    target: str,
    *headers: tuple[str, str],
    subprotocols: Iterable[str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[WebSocketConnection]:
    """Open one with a foreign library."""
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    with trio.fail_after(LIMIT_S):
        async with await connected(address, tls) as stream, trio.open_nursery() as nursery:
            opened = await wrap_client_stream(
                nursery,
                stream,
                "localhost",
                target,
                subprotocols=subprotocols,
                extra_headers=encoded,
            )
            async with opened:
                yield opened


async def connected(
    address: Address, tls: ssl.SSLContext | None
) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    stream = await trio.open_tcp_stream(*address)
    if tls is None:
        return stream
    return trio.SSLStream(stream, tls, server_hostname="localhost", https_compatible=True)


async def messages_until_closed(opened: WebSocketConnection) -> tuple[list[str], int, str]:
    """Return what comes, and with which code and reason it ends."""
    messages: list[str] = []
    with suppress(ConnectionClosed):
        while True:
            messages.append(str(await opened.get_message()))
    closed = opened.closed
    assert closed is not None
    return messages, closed.code, closed.reason or ""


async def next_event(opened: WebSocketConnection) -> dict[str, Any]:
    """Return the next object that is an event."""
    while True:
        message: dict[str, Any] = json.loads(await opened.get_message())
        if "topics" in message:
            return message


class Speaker:
    """A client that says what it is told to say, byte by byte if need be."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        """Of an answer that opens nothing."""
        self._protocol = Connection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        address: Address,
        target: str,
        headers: Iterable[tuple[str, str]] = HANDSHAKE,
        tls: ssl.SSLContext | None = None,
        behind: bytes = b"",
    ) -> AsyncIterator["Speaker"]:
        """Ask, with `behind` after the head."""
        async with await connected(address, tls) as stream:
            one = cls(stream)
            lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
            await stream.send_all("\r\n".join([*lines, "", ""]).encode("latin-1") + behind)
            with trio.fail_after(LIMIT_S):
                await one._read_head()
            yield one

    async def _read_head(self) -> None:
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method="GET", target="/", headers=[*HANDSHAKE]))
        http.send(h11.EndOfMessage())
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(bytes(await self.stream.receive_some(65536)))
        assert isinstance(event, h11.Response | h11.InformationalResponse), event
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}
        if self.status == 101:
            self._protocol.receive_data(bytes(http.trailing_data[0]))
            return
        while not isinstance(event, h11.EndOfMessage):
            event = http.next_event()
            if isinstance(event, h11.Data):
                self.body += bytes(event.data)
            elif event is h11.NEED_DATA:
                http.receive_data(bytes(await self.stream.receive_some(65536)))

    async def say(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def hear(self) -> Event | None:
        """Return the next thing that the server says, whole messages only; None at its end."""
        text = ""
        with trio.fail_after(LIMIT_S):
            while True:
                while not self._events:
                    self._events = list(self._protocol.events())
                    if not self._events:
                        data: bytes | bytearray
                        try:
                            data = await self.stream.receive_some(65536)
                        except trio.BrokenResourceError:
                            data = b""
                        if not data:
                            return None
                        self._protocol.receive_data(bytes(data))
                event = self._events.pop(0)
                if isinstance(event, TextMessage):
                    text += event.data
                    if not event.message_finished:
                        continue
                    return TextMessage(text)
                assert not isinstance(event, BytesMessage), "a server sends text alone"
                return event

    async def hear_close(self) -> tuple[int, str]:
        """Return code and reason of the close, after which the connection ends."""
        while not isinstance(event := await self.hear(), CloseConnection):
            assert event is not None, "the connection ended without a close"
        with trio.fail_after(LIMIT_S):
            assert not await self.stream.receive_some(65536)
        return int(event.code), event.reason or ""

    async def hear_pong(self) -> bytes:
        """Return the payload of the next pong."""
        while not isinstance(event := await self.hear(), Pong):
            assert isinstance(event, TextMessage | Ping), event
        return bytes(event.payload)
