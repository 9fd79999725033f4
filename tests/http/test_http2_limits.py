"""What hostile HTTP/2 clients send, as raw frames over real TLS, harms nobody else."""

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
from h2.errors import ErrorCodes
from h2.events import PingReceived, RequestReceived, StreamReset
from h2.settings import SettingCodes
from structlog.testing import capture_logs

from noti.address import Address
from noti.http.http2_limits import (
    RESETS_BURST,
    RESETS_PER_S,
    STEERING_BURST,
    Http2Limits,
    TokenBucket,
    why_malformed,
)
from tests.http.stage import hub, notifications, serving, until
from tests.http.tls_stage import shared_site

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, _, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(
    10
)
UNKNOWN = 77
END_STREAM, END_HEADERS = 1, 4
GET, POST, HTTPS = b"\x82", b"\x83", b"\x87"
STREAM = b"/.well-known/mercure?topic=*"


def frame(kind: int, stream_id: int = 0, content: bytes = b"", flags: int = 0) -> bytes:
    length = struct.pack("!I", len(content))[1:]
    return length + bytes([kind, flags]) + struct.pack("!I", stream_id) + content


def literal(name: int, value: bytes) -> bytes:
    return bytes([name, len(value)]) + value


def head(path: bytes = STREAM, method: bytes = GET) -> bytes:
    return method + HTTPS + literal(1, b"localhost") + literal(4, path)


def request(stream_id: int, path: bytes = STREAM, method: bytes = GET) -> bytes:
    flags = END_HEADERS | (0 if method == POST else END_STREAM)
    return frame(HEADERS, stream_id, head(path, method), flags)


def reset(stream_id: int) -> bytes:
    return frame(RST_STREAM, stream_id, struct.pack("!I", ErrorCodes.CANCEL))


def window(stream_id: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, stream_id, struct.pack("!I", increment))


def setting(code: int, value: int) -> bytes:
    return frame(SETTINGS, 0, struct.pack("!HI", code, value))


@dataclass
class RawClient:
    """A connection that keeps to no rule."""

    stream: trio.SSLStream[trio.SocketStream]
    received: bytearray = field(default_factory=bytearray)
    frames: list[tuple[int, int, bytes]] = field(default_factory=list)
    over: bool = False

    async def read(self) -> None:
        """Keep what comes until the connection is over."""
        try:
            while data := await self.stream.receive_some(65536):
                self.received += data
                self._cut()
        except trio.BrokenResourceError:
            pass
        self.over = True

    def _cut(self) -> None:
        while len(self.received) >= 9:
            end = 9 + int.from_bytes(self.received[:3], "big")
            if len(self.received) < end:
                return
            stream_id = int.from_bytes(self.received[5:9], "big")
            self.frames.append((self.received[3], stream_id, bytes(self.received[9:end])))
            del self.received[:end]

    async def send(self, data: bytes) -> None:
        try:
            await self.stream.send_all(data)
        except trio.BrokenResourceError:
            self.over = True

    def has(self, kind: int, stream_id: int = 0) -> bool:
        return any(one[:2] == (kind, stream_id) for one in self.frames)

    def body(self, stream_id: int) -> bytes:
        return b"".join(one[2] for one in self.frames if one[:2] == (DATA, stream_id))

    @property
    def goaway(self) -> int | None:
        """The error of the last farewell."""
        errors = [one[2][4:8] for one in self.frames if one[0] == GOAWAY]
        return int.from_bytes(errors[-1], "big") if errors else None


@asynccontextmanager
async def raw_client(address: Address) -> AsyncIterator[RawClient]:
    plain = await trio.open_tcp_stream(*address)
    context = shared_site().trusting("h2")
    stream = trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)
    async with plain, trio.open_nursery() as nursery:
        await stream.do_handshake()
        one = RawClient(stream)
        nursery.start_soon(one.read)
        await one.send(PREFACE + frame(SETTINGS))
        yield one
        nursery.cancel_scope.cancel()


FLOODS = {
    "rapid reset": b"".join(request(n) + reset(n) for n in range(1, 6001, 2)),
    "rapid reset, one by one": b"".join(request(n) + reset(n - 2) for n in range(3, 6001, 2)),
    "pings": frame(PING, 0, b"12345678") * 40_000,
    "settings": setting(4, 65_535) * 40_000,
    "unknown frames": frame(UNKNOWN) * 40_000,
    "empty data": request(1, b"/.well-known/mercure", POST) + frame(DATA, 1) * 40_000,
    "priorities": frame(PRIORITY, 1, b"\0\0\0\0\5") * 40_000,
    "a long head": frame(HEADERS, 1, head())
    + frame(CONTINUATION, 1, b"\0\1a\1b" * 3000) * 63
    + frame(CONTINUATION, 1, b"", END_HEADERS),
}
FLOODS["rapid reset, one by one"] = request(1) + FLOODS["rapid reset, one by one"]

ERRORS = {
    "empty continuations": (
        frame(HEADERS, 1, head()) + frame(CONTINUATION, 1) * 1000,
        ErrorCodes.PROTOCOL_ERROR,
    ),
    "too many streams": (b"".join(map(request, range(1, 500, 2))), ErrorCodes.PROTOCOL_ERROR),
    "overflowing window": (window(0, 2**31 - 1) * 2, ErrorCodes.FLOW_CONTROL_ERROR),
    "overflowing first window": (setting(4, 2**31), ErrorCodes.FLOW_CONTROL_ERROR),
    "window opened by nothing": (window(0, 0), ErrorCodes.PROTOCOL_ERROR),
    "data of no stream": (frame(DATA, 7, b"x"), ErrorCodes.PROTOCOL_ERROR),
    "a frame too long": (frame(DATA, 1, b"x" * 20_000), ErrorCodes.FRAME_SIZE_ERROR),
    "an id of the server's": (request(2), ErrorCodes.PROTOCOL_ERROR),
    "an id used before": (request(5) + request(3), ErrorCodes.PROTOCOL_ERROR),
}


async def test_a_neighbour_gets_its_events_during_every_flood() -> None:
    there = hub()
    async with serving(there, tls=shared_site().tls) as address, raw_client(address) as neighbour:
        await neighbour.send(request(1))
        await until(lambda: there.clients == 1)
        for seq, flood in enumerate(FLOODS.values(), 1):
            async with raw_client(address) as hostile:
                await hostile.send(flood)
                there.publish(notifications(seq, seq))
                await until(lambda seq=seq: b"id: id-%d\n" % seq in neighbour.body(1))  # type: ignore[misc]
                await until(lambda: hostile.over)
        await until(lambda: there.clients == 1)
        assert not neighbour.over


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_ends_its_connection_as_the_rules_have_it(kind: str) -> None:
    there = hub()
    with capture_logs() as logs:
        async with serving(there, tls=shared_site().tls) as address:
            async with raw_client(address) as hostile:
                # Piece by piece: what is on its way when we close destroys what we said last.
                for start in range(0, len(FLOODS[kind]), 16_384):
                    if hostile.goaway is not None or hostile.over:
                        break
                    await hostile.send(FLOODS[kind][start : start + 16_384])
                    await trio.testing.wait_all_tasks_blocked(0.002)
                await until(lambda: hostile.over)
            assert hostile.goaway in (ErrorCodes.ENHANCE_YOUR_CALM, None)
            await until(lambda: not there.clients)
    assert not [line for line in logs if line["log_level"] in ("warning", "error")]


@pytest.mark.parametrize("kind", ERRORS)
async def test_an_error_of_the_connection_is_named_in_its_goaway(kind: str) -> None:
    sent, error = ERRORS[kind]
    there = hub()
    async with serving(there, tls=shared_site().tls) as address, raw_client(address) as hostile:
        await hostile.send(sent)
        await until(lambda: hostile.over)
        assert hostile.goaway == error
        await until(lambda: not there.clients)


MALFORMED = {
    "a path that is not ASCII": head(b"/caf\xe9"),
    "a method that is not ASCII": head(method=literal(2, b"G\xe9T")),
    "no path": literal(2, b"CONNECT") + literal(1, b"localhost"),
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_a_malformed_request_ends_alone(kind: str) -> None:
    there = hub()
    async with serving(there, tls=shared_site().tls) as address, raw_client(address) as one:
        await one.send(request(1))
        await until(lambda: there.clients == 1)
        await one.send(frame(HEADERS, 3, MALFORMED[kind], END_HEADERS | END_STREAM))
        await until(lambda: one.has(RST_STREAM, 3))
        there.publish(notifications(1, 1))
        await until(lambda: b"id: id-1\n" in one.body(1))


async def test_a_body_sent_after_its_answer_harms_no_stream_of_the_connection() -> None:
    there = hub()
    async with serving(there, tls=shared_site().tls) as address, raw_client(address) as one:
        await one.send(request(1) + request(3, b"/nowhere", POST))
        await until(lambda: one.has(HEADERS, 3) and there.clients == 1)
        for _ in range(20):  # more than the connection's window: it is opened again
            await one.send(frame(DATA, 3, b"x" * 16_000))
            await trio.testing.wait_all_tasks_blocked()
        there.publish(notifications(1, 1))
        await until(lambda: b"id: id-1\n" in one.body(1))
        assert not one.over


async def test_a_stream_outlives_any_number_of_requests_beside_it() -> None:
    there = hub()
    async with serving(there, tls=shared_site().tls) as address, raw_client(address) as one:
        await one.send(request(1) + window(0, 2**30))
        await until(lambda: there.clients == 1)
        for first in range(3, 2300, 64):
            asked = range(first, first + 64, 2)
            await one.send(b"".join(request(n, b"/x") for n in asked))
            await until(lambda asked=asked: {(DATA, n, b"") for n in asked} <= set(one.frames))  # type: ignore[misc]
        there.publish(notifications(1, 1))
        await until(lambda: b"id: id-1\n" in one.body(1))
        assert one.goaway is None


async def test_priorities_of_streams_that_never_come_fill_nothing() -> None:
    there = hub()
    async with serving(there, tls=shared_site().tls) as address, raw_client(address) as one:
        await one.send(b"".join(frame(PRIORITY, n, b"\0\0\0\0\5") for n in range(1, 5001, 2)))
        await one.send(request(5001))
        there.publish(notifications(1, 1))
        await until(lambda: b": ok" in one.body(5001))
        assert not one.over


async def test_closed_windows_hold_up_no_other_stream_and_no_other_connection() -> None:
    there = hub()
    async with serving(there, tls=shared_site().tls) as address:
        async with raw_client(address) as hostile, raw_client(address) as neighbour:
            await hostile.send(setting(4, 0) + b"".join(map(request, range(1, 100, 2))))
            await hostile.send(request(101) + window(101, 60_000))
            await neighbour.send(request(1))
            await until(lambda: there.clients == 52)
            there.publish(notifications(1, 1))
            await until(lambda: b"id: id-1\n" in hostile.body(101))
            await until(lambda: b"id: id-1\n" in neighbour.body(1))
            assert not hostile.body(1)
        await until(lambda: not there.clients)


async def test_websockets_over_http_2_are_not_offered() -> None:
    async with serving(hub(), tls=shared_site().tls) as address, raw_client(address) as one:
        await until(lambda: one.has(SETTINGS))
        content = next(content for kind, _, content in one.frames if kind == SETTINGS and content)
        settings = dict(struct.iter_unpack("!HI", content))
        assert not settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL)


def test_a_bucket_lets_its_burst_through_and_then_its_rate() -> None:
    bucket = TokenBucket(burst=10, per_s=2)
    assert bucket.take(10, 0.0)
    assert not bucket.take(1, 0.0)
    assert bucket.take(1, 1.0)
    assert not bucket.take(11, 100.0)


def test_resets_at_the_rate_of_a_lively_browser_go_on_for_ever() -> None:
    limits, now = Http2Limits(), 0.0
    for _ in range(10 * RESETS_BURST):
        now += 1 / RESETS_PER_S
        assert limits.bears([StreamReset(stream_id=1)], now)


def test_resets_and_steering_frames_are_counted_apart() -> None:
    limits = Http2Limits()
    assert limits.bears([PingReceived(ping_data=b"12345678")] * STEERING_BURST, 0.0)
    assert limits.bears([StreamReset(stream_id=1)] * RESETS_BURST, 0.0)
    assert not limits.bears([StreamReset(stream_id=1)], 0.0)


def test_a_request_without_a_path_is_malformed_and_an_ordinary_one_is_not() -> None:
    fields = [(b":method", b"GET"), (b":path", b"/")]
    assert why_malformed(RequestReceived(stream_id=1, headers=fields)) is None
    assert why_malformed(RequestReceived(stream_id=1, headers=fields[:1]))
