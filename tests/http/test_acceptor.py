"""Promises of the way in, over real loopback sockets, each with TLS, too."""

import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import cast

import pytest
import trio
import trio.testing
from prometheus_client import REGISTRY

from noti.address import Address
from noti.certificates.rejection_log import RejectionLog
from noti.http.acceptor import HttpAcceptor
from noti.http.config import HttpConfig
from noti.http.handshakes import Handshakes
from noti.http.heads import RequestHead
from noti.http.subscribe import Admission
from noti.streams.hub import Hub
from tests import promises
from tests.http.stage import (
    LIMIT_S,
    Client,
    Node,
    admission,
    hub,
    ids,
    notifications,
    running,
    serving,
    until,
)
from tests.http.tls_stage import opened, secured, tls_in_use

STREAM = b"GET /category HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(autouse=True, params=["plain", "tls"])
def _with_and_without_tls(request: pytest.FixtureRequest) -> Iterator[None]:
    with secured(request.param == "tls"):
        yield


@asynccontextmanager
async def client(address: Address) -> AsyncIterator[Client]:
    async with await opened(address) as stream:
        yield Client(stream)


class Taker:
    """What the ordinary way gets."""

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def __call__(self, sock: socket.socket, head: RequestHead, _peer: str) -> None:
        self.got.append(head.received)
        sock.close()


@asynccontextmanager
async def accepting(
    there: Hub, taker: Taker, node: Node | None = None, config: HttpConfig | None = None
) -> AsyncIterator[Address]:
    node, config = node or Node(), config or HttpConfig()
    acceptor = HttpAcceptor(
        admission(there, node, config),
        there,
        config,
        catch_up=node.barrier,
        hand_over=taker,
        handshakes=None if (tls := tls_in_use()) is None else Handshakes(tls, RejectionLog("http")),
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with running(there), trio.open_nursery() as nursery:
            nursery.start_soon(acceptor.run, [listener])
            yield listener.getsockname()
            nursery.cancel_scope.cancel()


async def read_to_end(stream: trio.abc.ReceiveStream) -> bytes:
    with trio.fail_after(LIMIT_S):
        return b"".join([part async for part in stream])


def count(name: str) -> float:
    return REGISTRY.get_sample_value(f"noti_http_{name}_total") or 0.0


async def test_a_stream_goes_to_the_hub_without_the_ordinary_way() -> None:
    there, taker = hub(), Taker()
    async with accepting(there, taker) as address, client(address) as one:
        response = await one.request("/category")
        assert dict(response.headers)[b"content-type"] == b"text/event-stream"
        assert b"date" in dict(response.headers)
        await until(lambda: there.clients == 1)
        [adopted] = there._sending.adopted.values()
        for option in (socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT):
            sock = cast("socket.socket", adopted.connection)
            assert sock.getsockopt(socket.IPPROTO_TCP, option), "inherited by listeners"
        there.publish(notifications(1, 3))
        assert ids(await one.read_until("id-3")) == ["id-1", "id-2", "id-3"]
    assert taker.got == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /category HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /category HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"GET /category HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET /category HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /category HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"GET /category HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        b"GET http://x/category HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_everything_else_goes_the_ordinary_way_with_every_byte(request_bytes: bytes) -> None:
    taker = Taker()
    async with accepting(hub(), taker) as address:
        stream = await opened(address)
        async with stream:
            await stream.send_all(request_bytes)
            await until(lambda: bool(taker.got))
    assert request_bytes.startswith(taker.got[0])
    assert len(taker.got[0]) >= min(len(request_bytes), 16 * 1024)


async def test_a_head_may_come_byte_by_byte() -> None:
    there = hub()
    async with accepting(there, Taker()) as address:
        stream = await opened(address)
        async with stream:
            for n in range(len(STREAM)):
                await stream.send_all(STREAM[n : n + 1])
                await trio.testing.wait_all_tasks_blocked()
            await until(lambda: there.clients == 1)


@promises.HOSTILE_CLIENT_HARMS_NOBODY
@pytest.mark.slow
async def test_a_head_that_never_ends_and_one_that_never_begins_are_closed() -> None:
    before = count("heads_timed_out")
    config = HttpConfig(head_timeout_s=0.1)
    async with accepting(hub(), Taker(), config=config) as address:
        silent, endless = await trio.open_tcp_stream(*address), await opened(address)
        async with silent, endless:
            await endless.send_all(STREAM[:-2])
            assert (await read_to_end(endless)).startswith(b"HTTP/1.1 408 ")
            assert await read_to_end(silent) == b""
    assert count("heads_timed_out") == before + 2


@promises.HOSTILE_CLIENT_HARMS_NOBODY
async def test_too_many_silent_connections_make_room_for_an_honest_one() -> None:
    there = hub()
    async with accepting(there, Taker(), config=HttpConfig(pending_connections_max=3)) as address:
        silent = [await trio.open_tcp_stream(*address) for _ in range(6)]
        async with client(address) as honest:
            await honest.request("/category")
            await until(lambda: there.clients == 1)
        for stream in silent[:3]:
            assert await read_to_end(stream) == b""
        for stream in silent:
            await stream.aclose()


@promises.HOSTILE_CLIENT_HARMS_NOBODY
async def test_a_thousand_half_requests_are_bounded_and_let_an_honest_one_in() -> None:
    """Over TLS, half handshakes."""
    there, config = hub(), HttpConfig(pending_connections_max=200)
    arriving = {"listener": "http_arriving"}
    half = b"\x16\x03\x01\x02\x00\x01\x00" if tls_in_use() else STREAM[:7]
    async with accepting(there, Taker(), config=config) as address, AsyncExitStack() as stack:
        for _ in range(1000):
            stream = await trio.open_tcp_stream(*address)
            await stack.enter_async_context(stream)
            await stream.send_all(half)
        async with client(address) as honest:
            await honest.request("/category")
            await until(lambda: there.clients == 1)
        assert (REGISTRY.get_sample_value("noti_connections", arriving) or 0) <= 200


async def test_those_whose_cursor_is_unknown_wait_for_one_catch_up_together() -> None:
    there = hub()
    there.publish(notifications(1, 3))
    all_here = trio.Event()
    missed = [notifications(4, 6)]
    node = Node(on_barrier=lambda: there.publish(missed.pop() if missed else []))
    barrier, asked = node.barrier, []

    async def wait_for_all() -> None:
        await all_here.wait()
        await barrier()

    def ready() -> bool:
        asked.append(1)
        if len(asked) == 20:
            all_here.set()
        return True

    node.barrier, node.ready = wait_for_all, ready  # type: ignore[method-assign]
    async with accepting(there, Taker(), node) as address, trio.open_nursery() as nursery:

        async def resume() -> None:
            async with client(address) as one:
                response = await one.request("/category", [("Last-Event-ID", "id-5")])
                assert dict(response.headers)[b"last-event-id"] == b"id-5"
                assert ids(await one.read_until("id-6")) == ["id-6"]

        for _ in range(20):
            nursery.start_soon(resume)
    assert node.barriers in (1, 2), "one for those who came first, one for all who came meanwhile"


async def test_no_descriptor_left_is_logged_and_survived(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    there, failures = hub(), [OSError(errno.EMFILE, "Too many open files")] * 2
    accept = socket.socket.accept

    def fail_first(self: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", fail_first)
    async with accepting(there, Taker()) as address, client(address) as one:
        await one.request("/category")
        await until(lambda: there.clients == 1)
    told = "".join(capfd.readouterr())
    assert told.count("no file descriptor is left") == 1, "once, and not for every connection"


async def test_a_request_that_breaks_the_code_is_answered_and_hurts_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    there = hub()
    async with (
        serving(there, tls=tls_in_use()) as address,
        client(address) as good,
        client(address) as bad,
    ):
        await good.request("/category")
        with monkeypatch.context() as broken:
            broken.setattr(Admission, "decide_on", lambda *_, **__: 1 / 0)
            assert (await bad.request("/category")).status_code == 500
        there.publish(notifications(1, 1))
        await good.read_until("id-1")


@pytest.mark.parametrize("checkpoints", range(6))
async def test_cancelled_acceptor_closes_all_that_nobody_took(checkpoints: int) -> None:
    streams = []
    async with accepting(hub(), Taker(), Node(is_ready=False)) as address:
        for first in (b"", STREAM[:9], STREAM):
            stream = await opened(address)
            if first:
                await stream.send_all(first)
            streams.append(stream)
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
    for stream in streams:
        async with stream:
            with trio.fail_after(LIMIT_S), suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass
