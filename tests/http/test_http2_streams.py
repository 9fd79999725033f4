"""Promises of event streams over HTTP/2, to a client that is another implementation (hyper-h2)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
import trio
import trio.testing
from hypercorn.config import Config
from hypercorn.events import RawData
from hypercorn.trio.worker_context import WorkerContext

from noti.address import Address
from noti.http.config import HttpConfig
from noti.http.http2_streams import Http2Streams
from noti.http.strict_parsers import StrictH2
from noti.streams.end_reason import EndReason
from noti.streams.feed import Audience, View
from noti.streams.hub import Hub
from noti.streams.open_streams import Reader
from noti.streams.subscription import Subscription
from tests.http.stage import (
    LIMIT_S,
    hub,
    ids,
    notification,
    notifications,
    running,
    selecting,
    serving,
    until,
)
from tests.http.tls_stage import shared_site

ALL = Audience(View.MERCURE, selecting("*"))
STREAM = "/.well-known/mercure?topic=*"


class Browser:
    """One HTTP/2 connection with streams; what arrives is acknowledged only when a test says so."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        config = h2.config.H2Configuration(header_encoding="utf-8")
        self.http = h2.connection.H2Connection(config)
        self.http.initiate_connection()
        self.texts: dict[int, str] = {}
        self.resets: set[int] = set()
        self.ended: set[int] = set()
        self.terminated = False
        self.keeps_windows_open = True

    async def ask(self, number: int, target: str = STREAM) -> int:
        """Open the stream with this number, from 0 on; return its id."""
        stream_id = 1 + 2 * number
        head = [(":method", "GET"), (":scheme", "https"), (":authority", "localhost")]
        self.http.send_headers(stream_id, [*head, (":path", target)], end_stream=True)
        self.texts[stream_id] = ""
        await self.flush()
        return stream_id

    async def flush(self) -> None:
        await self._stream.send_all(self.http.data_to_send())

    async def read_more(self) -> None:
        data = await self._stream.receive_some(65536)
        if not data:
            self.terminated = True
        for event in self.http.receive_data(bytes(data)) if data else ():
            match event:
                case h2.events.DataReceived(stream_id=stream_id, data=text):
                    assert stream_id is not None
                    self.texts[stream_id] += bytes(text or b"").decode()
                    if self.keeps_windows_open:
                        length = event.flow_controlled_length or 0
                        self.http.acknowledge_received_data(length, stream_id)
                case h2.events.StreamReset(stream_id=stream_id):
                    assert stream_id is not None
                    self.resets.add(stream_id)
                case h2.events.StreamEnded(stream_id=stream_id):
                    assert stream_id is not None
                    self.ended.add(stream_id)
                case h2.events.ConnectionTerminated():
                    self.terminated = True
                case _:
                    pass
        await self.flush()

    async def read_until(self, stream_id: int, text: str) -> list[str]:
        """Return the ids of a stream's events, once it has a text."""
        with trio.fail_after(LIMIT_S):
            while text not in self.texts[stream_id]:
                assert not self.terminated, self.texts
                await self.read_more()
        return ids(self.texts[stream_id])


@asynccontextmanager
async def browser(address: Address) -> AsyncIterator[Browser]:
    plain = await trio.open_tcp_stream(*address)
    context = shared_site().trusting("h2")
    stream = trio.SSLStream(plain, context, server_hostname="localhost", https_compatible=True)
    async with plain:
        await stream.do_handshake()
        assert stream.selected_alpn_protocol() == "h2"
        yield Browser(stream)


@asynccontextmanager
async def site(there: Hub, config: HttpConfig | None = None) -> AsyncIterator[Address]:
    async with serving(there, config=config, tls=shared_site().tls) as address:
        yield address


def names(first: int, last: int) -> list[str]:
    return [f"id-{number}" for number in range(first, last + 1)]


async def test_all_streams_of_a_connection_get_every_event_in_order() -> None:
    there = hub()
    async with site(there) as address, browser(address) as one:
        opened = [await one.ask(number) for number in range(20)]
        for stream_id in opened:
            await one.read_until(stream_id, ": ok")
        assert there.clients == 20
        for number in range(1, 200):
            there.publish(notifications(number, number))
            await trio.lowlevel.checkpoint()
        for stream_id in opened:
            assert await one.read_until(stream_id, '"user_id":199,') == names(1, 199)
    await until(lambda: there.clients == 0)


async def test_websockets_are_not_offered_over_http_2() -> None:
    async with site(hub()) as address, browser(address) as one:
        await one.read_until(await one.ask(0), ": ok")
        assert one.http.remote_settings.enable_connect_protocol == 0


async def test_first_bytes_come_first_however_much_follows_them() -> None:
    there = hub()
    there.publish(notifications(1, 3000))
    there.trim(1001)
    async with site(there) as address, browser(address) as one:
        one.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        await one.flush()
        opened = [await one.ask(number, f"{STREAM}&lastEventID=unknown") for number in range(10)]
        await until(lambda: there.clients == 10)
        for stream_id in opened:
            one.http.increment_flow_control_window(1_000_000, stream_id)
        one.http.increment_flow_control_window(10_000_000)
        await one.flush()
        for stream_id in opened:
            events = await one.read_until(stream_id, '"user_id":3000,')
            text = one.texts[stream_id]
            assert text.startswith(": ok\n")
            assert text.index("noti-gap") < text.index("id-1001")
            assert events == names(1001, 3000)


async def test_a_stream_whose_window_is_closed_holds_up_no_other_and_loses_nothing() -> None:
    there = hub()
    async with site(there) as address, browser(address) as one:
        slow, quick = await one.ask(0), await one.ask(1)
        for stream_id in (slow, quick):
            await one.read_until(stream_id, ": ok")
        # Its window lets 65,535 bytes through, all together; only the connection's is kept open.
        one.keeps_windows_open = False
        for number in range(1, 2001):
            there.publish(notifications(number, number))
            if number % 100 == 0:
                await until_quiet(one, quick, number)
        assert len(one.texts[slow]) <= 65_535
        assert ids(one.texts[quick]) == names(1, 2000)
        one.keeps_windows_open = True
        one.http.increment_flow_control_window(1_000_000, slow)
        await one.flush()
        assert await one.read_until(slow, '"user_id":2000,') == names(1, 2000)


async def until_quiet(one: Browser, stream_id: int, number: int) -> None:
    """Read until a stream has an event, and open the other windows by what came."""
    before = sum(map(len, one.texts.values()))
    mine = len(one.texts[stream_id])
    await one.read_until(stream_id, f'"user_id":{number},')
    if (got := sum(map(len, one.texts.values())) - before) > 0:
        one.http.increment_flow_control_window(got)
    if (got := len(one.texts[stream_id]) - mine) > 0:
        one.http.increment_flow_control_window(got, stream_id)
    await one.flush()


async def test_a_window_that_stays_closed_ends_its_stream_and_no_other() -> None:
    there = hub(stall_timeout_s=0.2)
    async with site(there) as address, browser(address) as one:
        one.http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
        await one.flush()
        slow = await one.ask(0)
        quick = await one.ask(1)
        one.http.increment_flow_control_window(1_000_000, quick)
        await one.read_until(quick, ": ok")
        await one.read_until(slow, ": ok")
        one.keeps_windows_open = False
        there.publish(notifications(1, 10))
        with trio.fail_after(LIMIT_S):
            while slow not in one.resets:
                await one.read_more()
        there.publish(notifications(11, 12))
        assert await one.read_until(quick, '"user_id":12,') == names(1, 12)
        assert there.clients == 1


async def test_a_stream_that_its_client_resets_ends_alone() -> None:
    there = hub()
    async with site(there) as address, browser(address) as one:
        gone, stays = await one.ask(0), await one.ask(1)
        await one.read_until(gone, ": ok")
        await one.read_until(stays, ": ok")
        one.http.reset_stream(gone)
        await one.flush()
        await until(lambda: there.clients == 1)
        there.publish(notifications(1, 1))
        assert await one.read_until(stays, '"user_id":1,') == names(1, 1)
        assert "id-1" not in one.texts[gone]


async def test_streams_end_in_order_when_the_node_stops() -> None:
    there = hub()
    async with trio.open_nursery() as nursery:
        stopped = trio.Event()

        async def serve(*, task_status: trio.TaskStatus[Address]) -> None:
            async with site(there) as address:
                task_status.started(address)
                await stopped.wait()

        address = await nursery.start(serve)
        async with browser(address) as one:
            opened = [await one.ask(number) for number in range(3)]
            for stream_id in opened:
                await one.read_until(stream_id, ": ok")
            stopped.set()
            with trio.fail_after(LIMIT_S):
                while not one.terminated:
                    await one.read_more()
            assert one.ended == set(opened)
            assert all("retry: " in one.texts[stream_id] for stream_id in opened)


async def test_a_silent_stream_gets_heartbeats() -> None:
    there = hub(heartbeat_s=0.1)
    async with site(there) as address, browser(address) as one:
        stream_id = await one.ask(0)
        await one.read_until(stream_id, ":\n:\n:\n")


class Recorded:
    """An `Http2Connection` in memory."""

    def __init__(self) -> None:
        self.windows: dict[int, int] = {}
        self.window = 100_000_000
        """Of all streams together."""
        self.sent: dict[int, bytes] = {}
        self.flushes = 0
        self.resets: list[int] = []

    def window_bytes(self, stream_id: int) -> int:
        return min(self.windows.get(stream_id, 1_000_000), self.window, 16_384)

    def shared_window_bytes(self) -> int:
        return self.window

    def put(self, stream_id: int, data: bytes, *, ends: bool = False) -> None:
        assert ends or data, "nothing is sent for nothing"
        assert len(data) <= self.window_bytes(stream_id)
        self.sent[stream_id] = self.sent.get(stream_id, b"") + data
        self.window -= len(data)
        if stream_id in self.windows:
            self.windows[stream_id] -= len(data)

    async def flush(self) -> None:
        self.flushes += 1
        await trio.lowlevel.checkpoint()

    async def reset(self, stream_id: int) -> None:
        self.resets.append(stream_id)
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def sending(
    there: Hub, count: int, reader: Reader | None = None
) -> AsyncIterator[tuple[Recorded, Http2Streams, list[Subscription]]]:
    connection = Recorded()
    async with running(there), trio.open_nursery() as nursery:
        streams = Http2Streams(connection, nursery.start_soon)
        subscriptions = [Subscription(there, reader or Reader(ALL, 0, "")) for _ in range(count)]

        async def send(number: int) -> None:
            with subscriptions[number] as subscription:
                await streams.send(number, subscription, there, b": ok\n", lambda: b"bye")

        for number in range(count):
            nursery.start_soon(send, number)
        await trio.testing.wait_all_tasks_blocked()
        yield connection, streams, subscriptions
        nursery.cancel_scope.cancel()


async def open_window(connection: Recorded, streams: Http2Streams, window_bytes: int) -> None:
    """Let a client allow so many bytes on all streams together; return when all is put."""
    connection.window = window_bytes
    streams.wake()
    await trio.testing.wait_all_tasks_blocked()


async def test_what_is_new_for_all_streams_leaves_in_one_write(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub()
    async with sending(there, 10) as (connection, _, _):
        before = connection.flushes
        there.publish(notifications(1, 5))
        await trio.testing.wait_all_tasks_blocked()
        assert connection.flushes - before <= 2
        assert {ids(data.decode())[-1] for data in connection.sent.values()} == {"id-5"}


async def test_a_stream_ends_with_its_token_though_its_window_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub(stall_timeout_s=10.0, heartbeat_s=15.0)
    reader = Reader(ALL, 0, "", ends_at=trio.current_time() + 2.05)
    async with sending(there, 1, reader) as (connection, _, _):
        connection.windows[0] = 10
        there.publish(notifications(1, 5))
        await trio.sleep(2.0)
        assert not connection.resets
        await trio.sleep(0.2)
        assert connection.resets == [0]
        assert there.clients == 0


async def test_whoever_may_see_no_more_is_not_sent_the_rest_of_what_was_begun(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub()
    async with sending(there, 2) as (connection, streams, _):
        connection.windows[0] = 10
        begun = len(connection.sent[0])
        there.publish(notifications(1, 5))
        await trio.testing.wait_all_tasks_blocked()
        assert len(connection.sent[0]) == begun + 10
        for stream in there._sending.all():
            stream.ends_at, stream.ends_for = trio.current_time(), EndReason.REVOKED
        connection.windows[0] = 1_000_000
        streams.wake()
        await trio.testing.wait_all_tasks_blocked()
        assert len(connection.sent[0]) == begun + 10
        assert connection.resets == [0]
        assert there.clients == 0


async def test_streams_that_have_much_to_catch_up_with_share_the_window_of_their_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One that took all of it made the others look as if their client read nothing."""
    there = hub(stall_timeout_s=10.0)
    async with sending(there, 8) as (connection, streams, _):
        connection.window = 0
        there.publish(notifications(1, 10_000))
        for _ in range(20):
            before = {number: len(data) for number, data in connection.sent.items()}
            await trio.sleep(1.5)  # as long as a busy client may take
            await open_window(connection, streams, 65_536)
            assert connection.window < 1000, "all of it is used"
            grown = sum(len(connection.sent[n]) > before[n] for n in before)
            assert grown >= 4, "four frames fit in, and each is another stream's"
        assert there.clients == 8
        assert connection.resets == []
        sizes = sorted(map(len, connection.sent.values()))
        assert sizes[-1] < 1.5 * sizes[0]


@pytest.mark.parametrize("frame_bytes", [9_288, 10_900, 13_000, 16_200, 21_800, 30_000])
async def test_stream_that_gets_the_rest_of_a_window_is_the_next_one_to_get_more(
    autojump_clock: trio.testing.MockClock, frame_bytes: int
) -> None:
    """Where so many chunks nearly fill a window, one got a few bytes each time, and was closed."""
    there = hub(stall_timeout_s=10.0)
    async with sending(there, 8) as (connection, streams, _):
        connection.window = 0
        text = "x" * (frame_bytes - 50)
        there.publish([notification(seq, data=text) for seq in range(1, 201)])
        for _ in range(40):
            await trio.sleep(1.5)
            await open_window(connection, streams, 65_536)
        assert connection.resets == []
        sizes = sorted(map(len, connection.sent.values()))
        assert sizes[-1] - sizes[0] <= 2 * frame_bytes + 65_536


async def test_large_event_on_a_slow_line_holds_up_no_other_stream_of_its_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The window opens by a little at a time, as a client on such a line gives it back."""
    there = hub(stall_timeout_s=10.0)
    small = Reader(Audience(View.MERCURE, selecting("small")), 0, "")
    async with sending(there, 1) as (connection, streams, _), trio.open_nursery() as nursery:

        async def send(number: int) -> None:
            with Subscription(there, small) as subscription:
                await streams.send(number, subscription, there, b": ok\n", lambda: b"bye")

        for number in (1, 2, 3):
            nursery.start_soon(send, number)
        await trio.testing.wait_all_tasks_blocked()
        connection.window = 0
        there.publish([notification(1, data="x" * 1_000_000)])
        for second in range(30):
            there.publish(notifications(second + 2, second + 2, "small"))
            for _ in range(5):
                await trio.sleep(0.2)
                await open_window(connection, streams, connection.window + 5_000)
        assert connection.resets == []
        for number in (1, 2, 3):
            assert len(ids(connection.sent[number].decode())) >= 27
        nursery.cancel_scope.cancel()


async def test_large_event_reaches_whoever_takes_it_slowly(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub(stall_timeout_s=10.0)
    async with sending(there, 2) as (connection, streams, _):
        connection.window = 0
        there.publish([notification(1, data="x" * 1_000_000)])
        for _ in range(40):
            await trio.sleep(1.5)
            await open_window(connection, streams, 65_536)
        assert connection.resets == []
        assert [len(data) > 1_000_000 for data in connection.sent.values()] == [True, True]
        connection.window = 0
        there.publish(notifications(2, 2))
        await trio.sleep(11.0)
        assert sorted(connection.resets) == [0, 1]


async def test_stream_is_sent_the_more_at_a_time_the_wider_the_window_of_its_connection_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    flushes: list[int] = []
    for window_bytes in (65_535, 15_000_000):
        there = hub()
        async with sending(there, 1) as (connection, streams, _):
            connection.window, before = window_bytes, connection.flushes
            there.publish(notifications(1, 10_000))
            await trio.testing.wait_all_tasks_blocked()
            while b"id: id-10000\n" not in connection.sent[0]:
                await open_window(connection, streams, window_bytes)
            flushes.append(connection.flushes - before)
    narrow, wide = flushes
    assert wide < narrow / 2


async def test_what_a_cancelled_request_was_to_send_for_others_is_sent_by_the_next() -> None:
    """A head that is lost makes all that follow on its connection unreadable."""
    turn, sent = trio.Lock(), bytearray()

    async def write(event: object) -> None:
        async with turn:
            assert isinstance(event, RawData)
            sent.extend(event.data)

    nothing: Any = None
    settings, context = Config(), WorkerContext(None)
    there = StrictH2(nothing, settings, context, nothing, nothing, False, None, None, write)
    there.connection.initiate_connection()
    await there.flush()
    sent.clear()
    there.connection.ping(b"a head..")
    async with turn:
        with trio.CancelScope() as request:
            request.cancel()
            await there.flush()
        assert not sent
    await there.flush()
    assert b"a head.." in sent
