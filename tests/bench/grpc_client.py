"""A gRPC client that costs little CPU, so that it is the server that is measured.

The nodes, the servers they are compared with and this client share two cores. grpclib needs about a
millisecond of CPU for a call, which would be most of what is measured; this needs a tenth of that.
It speaks HTTP/2 (RFC 9113) as far as that needs it: the request's header block is built once,
frames are cut by hand, and whatever is sent in one turn of the loop goes out in one write.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import hpack

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW_BYTES = 2**30
"""What we are ready to receive; nothing here receives as much."""

INITIAL_WINDOW = 4
"""The setting that says how much may be on its way in one stream."""
MESSAGE_BYTES_MAX = 16_384 - 5
"""What fits one HTTP/2 frame; nothing here sends more."""

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
    window_bytes: int
    answer: Callable[[bytes], None] | None = None
    """For a stream: takes each message that comes."""
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
        self._window_bytes = self._initial_window_bytes = 65_535
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
        stream, call = self._begin()
        self._waiting.append((stream, _GRPC_PREFIX.pack(0, len(message)) + message))
        self._send_what_may_go()
        return call.answered

    def stream(self, answer: Callable[[bytes], None]) -> Callable[[bytes], None]:
        """Open a stream; return what sends a message on it. `answer` takes each that comes."""
        number, call = self._begin()
        call.answer = answer
        self._write(_frame(HEADERS, END_HEADERS, number, self._header_block()))

        def send(message: bytes) -> None:
            data = _GRPC_PREFIX.pack(0, len(message)) + message
            call.window_bytes -= len(data)
            self._window_bytes -= len(data)
            assert call.window_bytes >= 0, "the server takes nothing in"
            assert self._window_bytes >= 0, "the server takes nothing in"
            for start in range(0, len(data), MESSAGE_BYTES_MAX):
                piece = data[start : start + MESSAGE_BYTES_MAX]
                self._write(_frame(DATA, 0, number, piece))

        return send

    def _begin(self) -> tuple[int, _Call]:
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        call = _Call(self._loop.create_future(), self._initial_window_bytes)
        self._calls[stream] = call
        return stream, call

    def close(self) -> None:
        assert self._transport is not None
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = struct.pack(">HI", INITIAL_WINDOW, WINDOW_BYTES)
        transport.write(PREFACE + _frame(SETTINGS, 0, 0, settings))
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
            call = self._calls[stream]
            call.body += payload
            if call.answer is not None:
                self._take_answers(call.body, call.answer)
        elif kind == HEADERS:
            assert flags & END_HEADERS
            assert not flags & PADDED_OR_PRIORITY
            headers = self._decoder.decode(payload)
            if flags & END_STREAM:
                self._finish(stream, {str(name): str(value) for name, value in headers})
        elif kind == WINDOW_UPDATE:
            if stream == 0:
                self._window_bytes += struct.unpack(">I", payload)[0]
                self._send_what_may_go()
            elif stream in self._calls:
                self._calls[stream].window_bytes += struct.unpack(">I", payload)[0]
        elif kind == SETTINGS and not flags & ACK:
            for setting, value in struct.iter_unpack(">HI", payload):
                if setting == INITIAL_WINDOW:
                    for call in self._calls.values():
                        call.window_bytes += value - self._initial_window_bytes
                    self._initial_window_bytes = value
            self._write(_frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self._write(_frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM and stream in self._calls:
            error = ConnectionError(f"the server reset the call: {payload.hex()}")
            self._calls.pop(stream).answered.set_exception(error)
        elif kind == GOAWAY:
            self.connection_lost(ConnectionError("the server is going away"))

    def _take_answers(self, body: bytearray, answer: Callable[[bytes], None]) -> None:
        while len(body) >= _GRPC_PREFIX.size:
            _, length = _GRPC_PREFIX.unpack_from(body)
            end = _GRPC_PREFIX.size + length
            if len(body) < end:
                return
            message = bytes(body[_GRPC_PREFIX.size : end])
            del body[:end]
            answer(message)

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
            headers = _frame(HEADERS, END_HEADERS, stream, self._header_block())
            self._write(headers + _frame(DATA, END_STREAM, stream, body))

    def _header_block(self) -> bytes:
        return self._header_blocks.popleft() if self._header_blocks else self._later_header_block

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
