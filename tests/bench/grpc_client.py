"""A gRPC client for unary calls that costs little CPU, so that it is the server that is measured.

The nodes, the servers they are compared with and this client share two cores. grpclib needs about a
millisecond of CPU for a call, which would be most of what is measured; this needs a tenth of that.
It speaks HTTP/2 (RFC 9113) as far as unary calls need it: the request's header block is built once,
frames are cut by hand, and whatever calls are made in one turn of the loop go out in one write.
"""

import asyncio
import struct
from collections import deque
from dataclasses import dataclass, field

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_BYTES = 2**30
"""What we are ready to receive; nothing here receives as much."""

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED_OR_PRIORITY = 0x8 | 0x20

_FRAME = struct.Struct(">HBBBI")
_GRPC_PREFIX = struct.Struct(">BI")


class CallFailed(Exception):
    """The server answered with a status other than 0."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"gRPC status {status}: {message}")
        self.status = status


@dataclass(slots=True)
class _Call:
    answered: "asyncio.Future[bytes]"
    body: bytearray = field(default_factory=bytearray)


class GrpcClient(asyncio.Protocol):
    """One connection, one method, any number of calls at once; made by `connect`."""

    def __init__(self, authority: str, path: str) -> None:
        encoder = hpack.Encoder()
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        # The first puts all headers into the server's table; from then on they are references.
        self._header_blocks = deque([encoder.encode(headers)])
        self._later_header_block = encoder.encode(headers)
        self._decoder = hpack.Decoder()
        self._calls: dict[int, _Call] = {}
        self._next_stream = 1
        self._outbox: list[bytes] = []
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._window_bytes = 65_535
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, host: str, port: int, path: str) -> "GrpcClient":
        """Open a connection for calls of one method, `/package.Service/Method`."""
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: cls(f"{host}:{port}", path), host, port
        )
        return client

    def call(self, message: bytes) -> "asyncio.Future[bytes]":
        """Send a request; the future holds the answer, or raises `CallFailed` or
        `ConnectionError`."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        call = self._calls[stream] = _Call(self._loop.create_future())
        self._waiting.append((stream, _GRPC_PREFIX.pack(0, len(message)) + message))
        self._send_what_may_go()
        return call.answered

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(PREFACE + _frame(SETTINGS, 0, 0, b""))
        transport.write(_frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW_BYTES)))

    def connection_lost(self, exc: Exception | None) -> None:
        for call in self._calls.values():
            if not call.answered.done():
                call.answered.set_exception(ConnectionError(f"the connection ended: {exc}"))
        self._calls.clear()

    def data_received(self, data: bytes) -> None:
        self._received += data
        position = 0
        while len(self._received) - position >= 9:
            high, low, kind, flags, stream = _FRAME.unpack_from(self._received, position)
            end = position + 9 + (high << 8 | low)
            if end > len(self._received):
                break
            self._take_frame(kind, flags, stream, bytes(self._received[position + 9 : end]))
            position = end
        del self._received[:position]

    def _take_frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == DATA:
            assert not flags & PADDED_OR_PRIORITY, "no server that we measure pads"
            self._calls[stream].body += payload
        elif kind == HEADERS:
            assert flags & END_HEADERS
            assert not flags & PADDED_OR_PRIORITY
            headers = self._decoder.decode(payload)
            if flags & END_STREAM:
                self._finish(stream, {str(name): str(value) for name, value in headers})
        elif kind == WINDOW_UPDATE and stream == 0:
            self._window_bytes += struct.unpack(">I", payload)[0]
            self._send_what_may_go()
        elif kind == SETTINGS and not flags & ACK:
            self._write(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._write(_frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM and stream in self._calls:
            error = ConnectionError(f"the server reset the call: {payload.hex()}")
            self._calls.pop(stream).answered.set_exception(error)
        elif kind == GOAWAY:
            self.connection_lost(ConnectionError("the server is going away"))

    def _finish(self, stream: int, trailers: dict[str, str]) -> None:
        call = self._calls.pop(stream)
        status = int(trailers.get("grpc-status", "2"))
        if call.answered.done():
            return
        if status:
            call.answered.set_exception(CallFailed(status, trailers.get("grpc-message", "")))
        else:
            call.answered.set_result(bytes(call.body[_GRPC_PREFIX.size :]))

    def _send_what_may_go(self) -> None:
        while self._waiting and len(self._waiting[0][1]) <= self._window_bytes:
            stream, body = self._waiting.popleft()
            self._window_bytes -= len(body)
            block = self._header_blocks.popleft() if self._header_blocks else None
            headers = _frame(HEADERS, END_HEADERS, stream, block or self._later_header_block)
            self._write(headers + _frame(DATA, END_STREAM, stream, body))

    def _write(self, data: bytes) -> None:
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(data)

    def _flush(self) -> None:
        assert self._transport is not None
        self._transport.write(b"".join(self._outbox))
        self._outbox.clear()


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    size = len(payload)
    return _FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload
