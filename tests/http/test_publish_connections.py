"""Promises of the short way from a publisher's connection to the log, over loopback sockets.

Each with TLS, too.
"""

import re
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from noti.address import Address
from noti.http.config import HttpConfig
from noti.http.publish_connections import LINGER_S
from noti.http.publish_exchange import REQUESTS_MAX
from tests import promises
from tests.http.publishing_stage import Log, post, publishing
from tests.http.stage import LIMIT_S, hub, ids, notifications, until
from tests.http.test_connection_limits import taken
from tests.http.tls_stage import opened, secured


@pytest.fixture(autouse=True, params=["plain", "tls"])
def _with_and_without_tls(request: pytest.FixtureRequest) -> Iterator[None]:
    with secured(request.param == "tls"):
        yield


only_plain = pytest.mark.parametrize("_with_and_without_tls", ["plain"], indirect=True)
"""Marks tests about sockets as such."""

LIVENESS = b"GET /liveness HTTP/1.1\r\nHost: x\r\n\r\n"

HALVES = {
    "body": post()[:-2],
    "refused": post(token="")[:-2],
    "chunks": post(b"5\r\ntop").replace(b"Content-Length: 6", b"Transfer-Encoding: chunked"),
}


class Publisher:
    """One connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = b""

    async def send(self, *parts: bytes) -> None:
        for data in parts:
            await self.stream.send_all(data)

    async def read_until(self, text: bytes, count: int = 1) -> bytes:
        with trio.fail_after(LIMIT_S):
            while self.received.count(text) < count:
                data = await self.stream.receive_some(65536)
                assert data, self.received
                self.received += data
        return self.received

    async def read_all(self) -> bytes:
        with trio.fail_after(LIMIT_S):
            while data := await self.stream.receive_some(65536):
                self.received += data
        return self.received

    async def drip(self, every_s: float) -> None:
        """Send byte by byte, until it is cut off."""
        with suppress(trio.BrokenResourceError):
            while True:
                await trio.sleep(every_s)
                await self.send(b"x")

    def statuses(self) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", self.received)]


@asynccontextmanager
async def publisher(address: Address) -> AsyncIterator[Publisher]:
    async with await opened(address) as stream:
        yield Publisher(stream)


async def test_a_connection_is_kept_for_many_requests() -> None:
    log = Log()
    async with publishing(log) as address, publisher(address) as one:
        for number in range(5):
            await one.send(post(b"topic=a&id=no-%d" % number))
            await one.read_until(b"no-%d" % number)
    assert one.statuses() == [200] * 5
    assert [draft.id for draft in log.drafts] == [f"no-{number}" for number in range(5)]


async def test_a_request_may_come_byte_by_byte() -> None:
    async with publishing(Log()) as address, publisher(address) as one:
        for byte in post(b"topic=a&id=whole"):
            await one.send(bytes([byte]))
        await one.read_until(b"whole")


async def test_pipelined_requests_commit_together_and_are_answered_in_order() -> None:
    log = Log(held=True)
    count = 2 * REQUESTS_MAX
    async with publishing(log) as address, publisher(address) as one:
        await one.send(b"".join(post(b"topic=a&id=no-%d." % number) for number in range(count)))
        await until(lambda: len(log.waiting) == REQUESTS_MAX)
        log.held = False
        log.commit(last_first=True)
        await one.read_until(b"no-", count)
    assert re.findall(rb"no-(\d+)\.", one.received) == [b"%d" % number for number in range(count)]


async def test_what_comes_in_one_turn_is_submitted_together() -> None:
    log = Log()
    async with publishing(log) as address, publisher(address) as one:
        await one.send(post() * 3)
        await one.read_until(b"200 OK", 3)
    assert log.at_once == [False, False, True]


async def test_a_stream_may_follow_on_the_same_connection() -> None:
    there = hub()
    async with publishing(Log(), there=there) as address, publisher(address) as one:
        await one.send(post(), b"GET /category HTTP/1.1\r\nHost: x\r\n\r\n")
        await one.read_until(b"text/event-stream")
        await until(lambda: there.clients == 1)
        there.publish(notifications(1, 1))
        await one.read_until(b"id-1")
        assert ids(one.received.decode()) == ["id-1"]


@pytest.mark.parametrize("cut", [0, 1, 10, len(LIVENESS)])
async def test_any_request_may_follow_and_publishing_again(cut: int) -> None:
    log = Log()
    async with publishing(log) as address, publisher(address) as one:
        await one.send(post() + LIVENESS[:cut])
        await one.read_until(b"200 OK")
        await one.send(LIVENESS[cut:])
        await one.read_until(b"application/json")
        await one.send(post())
        await until(lambda: len(log.drafts) == 2)
        await one.read_until(b"HTTP/1.1 200", 3)


async def test_a_chunked_body_may_follow_on_the_same_connection() -> None:
    log = Log()
    async with publishing(log) as address, publisher(address) as one:
        chunked = post(b"", "old", "Transfer-Encoding: chunked")
        await one.send(post(), chunked.replace(b"Content-Length: 0\r\n", b""))
        await one.send(b"7\r\ntopic=b\r\n0\r\n\r\n")
        await one.read_until(b"HTTP/1.1 200", 2)
    assert [draft.topics for draft in log.drafts] == [("a",), ("b",)]


async def test_a_client_that_asks_is_told_to_go_on() -> None:
    async with publishing(Log()) as address, publisher(address) as one:
        head, _, body = post(b"topic=a&id=x1", "old", "Expect: 100-continue").partition(b"\r\n\r\n")
        await one.send(head + b"\r\n\r\n")
        await one.read_until(b"100 Continue")
        await one.send(body)
        await one.read_until(b"x1")


async def test_a_body_that_is_too_long_is_refused_and_the_answer_arrives() -> None:
    config = HttpConfig(publish_body_bytes_max=4096)
    async with publishing(Log(), config) as address, publisher(address) as one:
        await one.send(post(b"x" * 200_000))
        await one.read_all()
    assert one.statuses() == [413]


async def test_a_client_that_wants_no_more_is_answered_and_the_connection_closed() -> None:
    async with publishing(Log()) as address, publisher(address) as one:
        await one.send(post(b"topic=a", "old", "Connection: close"))
        await one.read_all()
    assert one.statuses() == [200]


@only_plain
async def test_a_client_that_ends_its_side_is_answered() -> None:
    log = Log(held=True)
    async with publishing(log) as address, publisher(address) as one:
        await one.send(post())
        assert isinstance(one.stream, trio.SocketStream)
        await one.stream.send_eof()
        await until(lambda: len(log.waiting) == 1)
        await trio.testing.wait_all_tasks_blocked()
        log.commit()
        await one.read_all()
    assert one.statuses() == [200]


@only_plain
async def test_a_client_that_goes_away_does_not_cancel_its_commits() -> None:
    log = Log(held=True)
    async with publishing(log) as address:
        with socket.create_connection(address) as sock:
            sock.sendall(post() * 2)
            await until(lambda: len(log.waiting) == 2)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        async with publisher(address) as one:
            await one.send(post(b"topic=a&id=x1"))
            await until(lambda: len(log.waiting) == 3)
            log.commit()
            await one.read_until(b"x1")


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [(post(), [200]), (post() + post()[:20], [200, 408]), (post() + post()[:-1], [200, 408])],
)
async def test_a_connection_on_which_nothing_comes_is_closed(
    sent: bytes, statuses: list[int], autojump_clock: trio.testing.MockClock
) -> None:
    log = Log()
    config = HttpConfig()
    async with publishing(log, config) as address, publisher(address) as one:
        await one.send(sent)
        began = trio.current_time()
        await one.read_all()
        patience_s = config.idle_timeout_s if len(statuses) == 1 else config.head_timeout_s
        assert patience_s <= trio.current_time() - began <= patience_s + 2
    assert one.statuses() == statuses
    assert len(log.drafts) == 1


async def test_a_body_that_drips_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    async with publishing(Log()) as address, publisher(address) as one:
        await one.send(post(b"", length=1000))
        await one.drip(1)
        assert trio.current_time() < 20


async def test_a_commit_may_take_its_time(autojump_clock: trio.testing.MockClock) -> None:
    log = Log(held=True)
    async with publishing(log) as address, publisher(address) as one:
        await one.send(post())
        await until(lambda: len(log.waiting) == 1)
        await trio.sleep(60)
        log.commit()
        await one.read_until(b"200 OK")


@only_plain
async def test_who_does_not_take_its_answers_is_read_no_more_and_cut_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = Log()
    async with publishing(log) as address:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(address)
            sock.setblocking(False)
            sent = 0
            with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
                for _ in range(100):
                    await trio.sleep(0.5)
                    try:
                        while True:
                            sent += sock.send(post() * 50)
                    except BlockingIOError:
                        pass
        assert trio.current_time() < 30
    assert len(log.drafts) < sent / len(post()), "it was read without limit"


async def test_a_refused_body_that_never_ends_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with publishing(Log()) as address, publisher(address) as one:
        await one.send(post(b"x", length=10**9))
        await one.read_all()
        await one.drip(LINGER_S / 4)
        assert trio.current_time() < 3 * LINGER_S


async def test_connections_of_publishers_are_counted_with_the_others() -> None:
    log = Log(held=True)
    config = HttpConfig(connections_max=1)
    async with (
        publishing(log, config) as address,
        publisher(address) as one,
        publisher(address) as two,
    ):
        await one.send(post())
        await until(lambda: len(log.waiting) == 1)
        await two.send(post())
        await two.read_all()
        assert two.statuses() == [503]
        log.commit()
        await one.read_until(b"200 OK")
        async with publisher(address) as three:
            await three.send(post())
            await until(lambda: len(log.waiting) == 1)
            await one.read_all()  # it was idle, and made room
            log.commit()
            await three.read_until(b"200 OK")


@promises.BODIES_BOUNDED
@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES.keys())
async def test_half_a_request_makes_room_for_a_whole_one(half: bytes) -> None:
    log = Log()
    async with (
        publishing(log, HttpConfig(connections_max=1)) as address,
        publisher(address) as one,
        publisher(address) as two,
    ):
        before = taken("http")
        await one.send(half)
        if half == HALVES["refused"]:
            await one.read_until(b"HTTP/1.1 401 ")
        await until(lambda: taken("http") == before + 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        await two.send(post())
        await two.read_until(b"HTTP/1.1 200 ")
        await one.read_all()


async def test_one_address_has_no_more_connections_than_it_may() -> None:
    log = Log(held=True)
    config = HttpConfig(connections_per_address_max=1)
    async with publishing(log, config) as address, publisher(address) as one:
        await one.send(post())
        await until(lambda: len(log.waiting) == 1)
        async with publisher(address) as two:
            await two.send(post())
            await two.read_all()
            assert two.statuses() == [429]


async def test_at_shutdown_answers_in_progress_finish_and_idle_connections_close() -> None:
    log = Log(held=True)
    async with trio.open_nursery() as nursery, publisher_pair(nursery, log) as (busy, idle, stop):
        stop.set()
        await idle.read_all()
        assert idle.statuses() == []
        log.commit()
        await busy.read_all()
    assert busy.statuses() == [200]
    assert b"connection: close" in busy.received


@asynccontextmanager
async def publisher_pair(
    nursery: trio.Nursery, log: Log
) -> AsyncIterator[tuple[Publisher, Publisher, trio.Event]]:
    """Yield a publisher that waits for its answer, one that is idle, and what stops the server."""
    stop, started = trio.Event(), trio.Event()
    addresses: list[Address] = []

    async def serve() -> None:
        async with publishing(log, HttpConfig(grace_s=LIMIT_S)) as address:
            addresses.append(address)
            started.set()
            await stop.wait()

    nursery.start_soon(serve)
    await started.wait()
    async with publisher(addresses[0]) as busy, publisher(addresses[0]) as idle:
        await idle.send(post())
        await until(lambda: len(log.waiting) == 1)
        log.commit()
        await idle.read_until(b"200 OK")
        idle.received = b""
        await busy.send(post())
        await until(lambda: len(log.waiting) == 1)
        yield busy, idle, stop


async def test_at_shutdown_an_answer_that_does_not_come_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = Log(held=True)
    async with publishing(log, HttpConfig(grace_s=1)) as address, publisher(address) as one:
        await one.send(post())
        await until(lambda: len(log.waiting) == 1)
        stopped = trio.current_time()
    assert trio.current_time() - stopped < 5
    log.commit()
