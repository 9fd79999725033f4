"""Promises of the hub, over real loopback sockets, each with TLS, too."""

import math
import random
import socket
import ssl
from collections.abc import Iterator
from typing import ClassVar

import h11
import pytest
import trio
import trio.testing
from prometheus_client import REGISTRY

from noti.history.selectors import ALL_TOPICS
from noti.streams import open_streams
from noti.streams.end_reason import EndReason
from noti.streams.feed import Audience, View
from noti.streams.hub import Hub
from noti.streams.retained import SWEPT_AT_ONCE
from noti.streams.subscription import Subscription
from tests import promises
from tests.http.stage import (
    LIMIT_S,
    hub,
    ids,
    notification,
    notifications,
    running,
    selecting,
    show,
    until,
)
from tests.http.tls_stage import SecuredEnd, plain_pair, secured_pair

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))


def closed(reason: str) -> float:
    """How many streams ended for this reason, in this process."""
    value = REGISTRY.get_sample_value("noti_streams_clients_closed_total", {"reason": reason})
    return value or 0.0


@pytest.fixture(autouse=True, params=["plain", "tls"])
def _readers_are_closed(request: pytest.FixtureRequest) -> Iterator[None]:
    Reader.secured = request.param == "tls"
    yield
    while Reader.opened:
        Reader.opened.pop().close()


class Reader:
    """The far end of an adopted connection."""

    opened: ClassVar[list[socket.socket]] = []
    secured: ClassVar[bool] = False
    """Whether they come over TLS."""

    def __init__(
        self,
        there: Hub,
        audience: Audience = ALL,
        after_seq: int | None = None,
        *,
        wants_cursors: bool = False,
        ends_at: float = math.inf,
        subject: str = "",
        receive_bytes: int = 4096,
    ) -> None:
        """Where virtual time passes, `receive_bytes` must hold all: a full buffer takes real time
        to be sent on.
        """
        far, near = plain_pair(receive_bytes, there.config.send_buffer_bytes)
        self.sock: trio.socket.SocketType | SecuredEnd
        if self.secured:
            far, near = secured_pair((far, near))
            self.sock = SecuredEnd(near)
        else:
            self.sock = trio.socket.from_stdlib_socket(near)
        self.number = len(self.opened)
        self.opened.append(near)
        self.http = h11.Connection(h11.CLIENT)
        self.http.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
        self.http.send(h11.EndOfMessage())
        self.http.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        assert isinstance(self.http.next_event(), h11.Response)
        self.text = ""
        self.ended = False
        self.broken = False
        there.adopt(
            far,
            open_streams.Reader(
                audience,
                there.feed.newest_seq if after_seq is None else after_seq,
                "127.0.0.1",
                wants_cursors=wants_cursors,
                ends_at=ends_at,
                subject=subject,
            ),
        )

    def take(self, size: int) -> bytes:
        """Take so much off the socket, if it is there, for `receive`."""
        try:
            return self.opened[self.number].recv(size)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLEOFError, ConnectionResetError):
            return b""

    def receive(self, data: bytes) -> None:
        """Read what was taken off the socket before."""
        self.http.receive_data(data)

    async def read_some(self) -> None:
        with trio.fail_after(LIMIT_S):
            while (event := self.http.next_event()) is h11.NEED_DATA:
                try:
                    data = await self.sock.recv(65536)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self.broken = True
                    return
                self.http.receive_data(data)
        if isinstance(event, h11.EndOfMessage):
            self.ended = True
        else:
            assert isinstance(event, h11.Data)
            self.text += bytes(event.data).decode()

    async def read_until(self, text: str) -> str:
        while text not in self.text:
            assert not self.ended
            assert not self.broken
            await self.read_some()
        return self.text

    async def read_through(self, event_id: str) -> list[str]:
        """Read until all of this event is here; return the ids of what came."""
        await self.read_until(f"id: {event_id}\n")
        while event_id not in (seen := ids(self.text)):
            await self.read_some()
        return seen

    async def read_all(self) -> str:
        while not self.ended and not self.broken:
            await self.read_some()
        return self.text


async def test_everybody_gets_everything_once_in_order() -> None:
    async with running(hub()) as there:
        readers = [Reader(there) for _ in range(5)]
        for first in range(1, 100, 3):
            there.publish(notifications(first, first + 2))
            await trio.lowlevel.checkpoint()
        for reader in readers:
            assert await reader.read_through("id-99") == [f"id-{n}" for n in range(1, 100)]


async def test_a_reader_that_resumes_joins_the_others_at_the_seam() -> None:
    async with running(hub()) as there:
        there.publish(notifications(1, 30))
        old = Reader(there, after_seq=10)
        new = Reader(there)
        there.publish(notifications(31, 40))
        assert ids(await old.read_until("id-40")) == [f"id-{n}" for n in range(11, 41)]
        there.publish(notifications(41, 42))
        assert ids(await new.read_until("id-42")) == [f"id-{n}" for n in range(31, 43)]
        assert ids(await old.read_until("id-42"))[-2:] == ["id-41", "id-42"]


async def test_a_long_history_arrives_in_several_chunks_of_bounded_size() -> None:
    async with running(hub(chunk_bytes_max=500)) as there:
        there.publish(notifications(1, 200))
        reader = Reader(there, after_seq=0)
        assert len(ids(await reader.read_until("id-200"))) == 200


@promises.HOSTILE_CLIENT_HARMS_NOBODY
@pytest.mark.slow
async def test_a_slow_reader_is_disconnected_and_harms_nobody() -> None:
    big = "x" * 20_000
    stalled = closed("stalled")
    settings = {"stall_timeout_s": 0.3, "send_buffer_bytes": 16384, "chunk_bytes_max": 16384}
    async with running(hub(**settings)) as there:
        slow, quick = Reader(there), Reader(there)
        seq = 0
        while there.clients == 2:
            seq += 1
            there.publish([notification(seq, data=big)])
            await quick.read_until(f"id: id-{seq}\ndata: {big}")
            quick_ids = ids(quick.text)
            assert quick_ids == [f"id-{n}" for n in range(1, seq + 1)]
            if seq > 100:
                await until(lambda: there.clients == 1)
        assert closed("stalled") == stalled + 1
        there.publish([notification(seq + 1)])
        await quick.read_until(f"id-{seq + 1}")
        await slow.read_all()
        # Cut off, not ended: a browser drops an incomplete event and resumes.
        assert slow.broken
        assert not slow.ended


@pytest.mark.slow
async def test_a_reader_that_stops_for_a_while_gets_every_byte_it_missed() -> None:
    data = "y" * 5000
    settings = {"send_buffer_bytes": 8192, "chunk_bytes_max": 8192, "stall_timeout_s": 300.0}
    async with running(hub(**settings)) as there:
        pausing, quick = Reader(there), Reader(there)
        for seq in range(1, 301):
            there.publish([notification(seq, data=data)])
            await quick.read_until(f"id: id-{seq}\n")
        assert there.clients == 2
        await pausing.read_until("id: id-300\n")
        there.publish([notification(301)])
        assert ids(await pausing.read_until("id-301\ndata: {")) == [
            f"id-{n}" for n in range(1, len(ids(pausing.text)) + 1)
        ]


@promises.BURST_DISCONNECTS_NOBODY
async def test_a_burst_longer_than_history_disconnects_nobody() -> None:
    """What open streams need is kept beyond history, and freed when they have it."""
    async with running(hub()) as there:
        readers = [Reader(there) for _ in range(3)]
        show(there, 1, 500, history_size=5)
        assert there.feed.oldest_seq == 496
        for reader in readers:
            assert await reader.read_through("id-500") == [f"id-{n}" for n in range(1, 501)]
        await until(lambda: there.feed.retained.first_seq == 496)
        assert there.pressure == 0.0
        assert there.clients == 3


async def test_a_reader_that_was_behind_once_catches_up_while_the_burst_goes_on() -> None:
    async with running(hub(chunk_bytes_max=300, slice_s=1.0)) as there:  # one pass a turn
        there.publish(notifications(1, 50))
        reader = Reader(there, after_seq=0)
        taken: list[bytes] = []
        for first in range(51, 1000, 20):
            there.publish(notifications(first, first + 19))
            await trio.lowlevel.checkpoint()
            taken.append(reader.take(100_000))
        assert not there._sending.sendable
        reader.receive(b"".join(taken))
        assert await reader.read_through("id-1010") == [f"id-{n}" for n in range(1, 1011)]


async def test_memory_of_a_burst_is_free_again_when_everybody_has_it() -> None:
    async with running(hub()) as there:
        reader, category = (
            Reader(there),
            Reader(there, Audience(View.CATEGORY, frozenset({ALL_TOPICS}))),
        )
        show(there, 1, 5000, history_size=10)
        for one in (reader, category):
            await one.read_until("id-5000")
        await until(lambda: there.feed.retained.backlog_bytes == 0)
        assert len(there.feed.retained.notifications) == 10
        assert len(there.feed.retained.on_topic("jobs.noti.1")) <= 10 + SWEPT_AT_ONCE


@pytest.mark.parametrize("seed", range(2))
async def test_bursts_part_those_who_read_from_those_who_do_not(
    seed: int, mock_clock: trio.testing.MockClock
) -> None:
    """However slowly somebody reads and however much comes at once; a history of five events."""
    rng = random.Random(seed)
    stalled, others = closed("stalled"), closed("behind") + closed("overrun")
    settings = {"send_buffer_bytes": 8192, "chunk_bytes_max": 8192, "stall_timeout_s": 10.0}
    async with running(hub(**settings)) as there:
        quick = [Reader(there) for _ in range(3)]
        slow, drip, blocked = Reader(there), Reader(there), Reader(there)
        slowly: list[bytes] = []
        seq = rounds = 0
        # How much of it the system takes before a reader stalls is up to it.
        while rounds < 18 or (closed("stalled") < stalled + 2 and rounds < 40):
            rounds += 1
            new = [
                notification(seq + n, data="d" * rng.choice([9, 3000]))
                for n in range(1, rng.choice([2, 6, 80]))
            ]
            seq += len(new)
            there.publish(new)
            there.trim(max(1, seq - 4))
            for reader in quick:
                await reader.read_through(f"id-{seq}")
            slowly += [slow.take(4000)]
            drip.take(1)
            mock_clock.jump(1.0)
            await trio.testing.wait_all_tasks_blocked()  # on a busy machine, a pass takes turns
        assert closed("stalled") == stalled + 2
        assert closed("behind") + closed("overrun") == others
        assert there.clients == 4
        slow.receive(b"".join(slowly))
        for reader in (*quick, slow):
            assert await reader.read_through(f"id-{seq}") == [f"id-{n}" for n in range(1, seq + 1)]
        del drip, blocked


async def test_without_clients_nothing_is_kept_beyond_history() -> None:
    there = hub()
    for first in range(1, 100, 10):
        show(there, first, first + 9, history_size=5)
        assert len(there.feed.retained.notifications) == 5
    async with running(there):
        Reader(there).sock.close()
        await until(lambda: there.clients == 0)
        show(there, 101, 200, history_size=5)
        assert len(there.feed.retained.notifications) == 5


async def test_a_reader_that_uses_up_its_share_of_the_backlog_goes_and_the_others_stay() -> None:
    """It takes too little, and never tells anybody to slow down."""
    behind, overrun = closed("behind"), closed("overrun")
    settings = {"send_buffer_bytes": 8192, "chunk_bytes_max": 8192, "backlog_bytes": 500_000}
    data = "x" * 5000
    async with running(hub(**settings)) as there:
        slow, quick = Reader(there), Reader(there)
        seq = 0
        while there.clients == 2:
            seq += 1
            there.publish([notification(seq, data=data)])
            there.trim(max(1, seq - 4))
            await quick.read_until(f"id: id-{seq}\ndata: {data}")
            quick.text = ""
            assert seq < 10_000
        assert seq * 11_000 > 500_000
        await until(lambda: there.feed.retained.backlog_bytes == 0)
        await slow.read_all()
        assert slow.broken
    assert (closed("behind"), closed("overrun")) == (behind + 1, overrun)


@promises.BURST_DISCONNECTS_NOBODY
async def test_a_client_that_reads_when_the_hub_gets_to_it_is_never_stalled(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The process was stopped for longer than a client may stall, with a chunk half sent."""
    settings = {"send_buffer_bytes": 8192, "chunk_bytes_max": 8192, "stall_timeout_s": 10.0}
    async with running(hub(**settings)) as there:
        reader = Reader(there)
        there.publish([notification(n, data="z" * 5_000) for n in range(1, 60)])
        await until(lambda: any(one.is_blocked for one in there._sending.adopted.values()))
        for _ in range(5):
            autojump_clock.jump(30.0)
            await reader.read_some()
            await trio.sleep(0.1)
            assert there.clients == 1
        await reader.read_until("id: id-59\n")


async def test_a_snapshot_disconnects_only_those_whose_place_is_gone() -> None:
    async with running(hub()) as there:
        there.publish(notifications(1, 10))
        reader = Reader(there)
        await until(lambda: there.clients == 1)
        there.reset(notifications(8, 12))
        assert ids(await reader.read_until("id-12")) == ["id-11", "id-12"]
        there.reset(notifications(100, 101))
        await reader.read_all()
        assert there.clients == 0


async def test_a_hang_up_is_noticed_at_once() -> None:
    disconnected = closed("disconnected")
    async with running(hub()) as there:
        readers = [Reader(there), Reader(there)]
        readers[0].sock.close()
        await until(lambda: there.clients == 1)
        readers[1].sock.shutdown(socket.SHUT_WR)
        await until(lambda: there.clients == 0)
    assert closed("disconnected") == disconnected + 2


async def test_a_silent_stream_that_asked_for_cursors_gets_fresh_ones_with_its_heartbeats() -> None:
    other = Audience(View.MERCURE, selecting("other"))
    async with running(hub(heartbeat_s=0.05)) as there:
        reader, plain = Reader(there, other, wants_cursors=True), Reader(there, other)
        there.publish(notifications(1, 3))
        await reader.read_until(f":\nid: {there.feed.retained.newest_cursor}\n\n")
        await plain.read_until(":\n:\n:\n")
        assert "id" not in plain.text
        assert ids(reader.text) == []


async def test_heartbeats_come_as_often_as_promised_and_only_in_silence(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(hub(heartbeat_s=10.0, stall_timeout_s=1.0)) as there:
        reader = Reader(there, receive_bytes=65_536)
        await trio.sleep(102)
        for seq in range(1, 31):
            there.publish([notification(seq)])
            await trio.sleep(3)
        silent, _, busy = (await reader.read_until("id-30")).partition("id: id-1\n")
        assert silent.count(":\n") == 10
        assert busy.count(":\n") == 0


async def test_cancellation_ends_every_stream_with_a_time_to_come_back() -> None:
    there = hub()
    async with running(there):
        readers = [Reader(there) for _ in range(20)]
        there.publish(notifications(1, 2))
        await until(lambda: there.clients == 20)
    delays = set()
    for reader in readers:
        text = await reader.read_all()
        assert reader.ended
        assert ids(text) in ([], ["id-1", "id-2"])
        delays.add(text.rpartition("retry: ")[2].strip())
    assert len(delays) > 10


async def test_a_reader_that_takes_nothing_does_not_hold_up_the_end() -> None:
    settings = {"drain_timeout_s": 0.1, "send_buffer_bytes": 8192, "chunk_bytes_max": 8192}
    there = hub(**settings)
    with trio.fail_after(LIMIT_S):
        async with running(there):
            reader = Reader(there)
            there.publish([notification(n, data="z" * 50_000) for n in range(1, 60)])
            await until(
                lambda: any(client.is_blocked for client in there._sending.adopted.values())
            )
    assert there.clients == 0
    reader.sock.close()


async def test_publishing_works_before_the_hub_runs_and_between_runs() -> None:
    there = hub()
    for last in (3, 6):
        there.publish(notifications(last - 2, last))
        async with running(there):
            reader = Reader(there, after_seq=0)
            assert len(ids(await reader.read_until(f"id-{last}"))) == last


@promises.CURSOR_KEPT
@pytest.mark.parametrize("seed", range(8))
async def test_any_mix_of_readers_gets_exactly_what_each_cursor_promises(seed: int) -> None:
    rng = random.Random(seed)
    topics = ["a", "b"]
    there = hub(send_buffer_bytes=8192, chunk_bytes_max=4096, slice_s=0.0)
    readers: list[tuple[Reader, frozenset[str], int]] = []
    published: list[tuple[str, str]] = []
    async with running(there):
        for _ in range(40):
            match rng.choice(["publish", "publish", "join", "resume", "read", "leave"]):
                case "publish":
                    new = [
                        notification(
                            len(published) + n, rng.choice(topics), "d" * rng.choice([9, 3000])
                        )
                        for n in range(1, rng.randint(2, 9))
                    ]
                    published += [(one.id, one.topics[0]) for one in new]
                    there.publish(new)
                case "leave" if readers:
                    readers.pop(rng.randrange(len(readers)))[0].sock.close()
                case "read" if readers:
                    with trio.move_on_after(0.001):
                        await rng.choice(readers)[0].read_some()
                case _:
                    selectors = frozenset(rng.choice([["*"], ["a"], ["b"], ["a", "b"]]))
                    after_seq = rng.choice([0, len(published), rng.randint(0, len(published))])
                    audience = Audience(View.MERCURE, selecting(*selectors))
                    readers.append((Reader(there, audience, after_seq), selectors, after_seq))
            await trio.lowlevel.checkpoint()
        last = len(published) + 1
        there.publish([notification(last, "a"), notification(last + 1, "b")])
        published += [(f"id-{last}", "a"), (f"id-{last + 1}", "b")]
        for reader, selectors, after_seq in readers:
            wanted = [
                event_id
                for event_id, topic in published[after_seq:]
                if "*" in selectors or topic in selectors
            ]
            assert await reader.read_through(wanted[-1]) == wanted


async def test_a_cancelled_hub_leaves_whole_streams_wherever_the_cancellation_meets_it() -> None:
    for checkpoints in range(12):
        there = hub(slice_s=0.0, chunk_bytes_max=300)
        async with running(there):
            readers = [Reader(there) for _ in range(3)]
            there.publish(notifications(1, 20))
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
        for reader in readers:
            seen = ids(await reader.read_all())
            assert reader.ended
            assert seen == [f"id-{n}" for n in range(1, len(seen) + 1)]


@promises.HOSTILE_CLIENT_HARMS_NOBODY
async def test_a_client_that_takes_a_byte_now_and_then_is_disconnected_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stalled = closed("stalled")
    settings = {"send_buffer_bytes": 8192, "chunk_bytes_max": 8192, "stall_timeout_s": 10.0}
    async with running(hub(**settings)) as there:
        reader = Reader(there)
        there.publish([notification(n, data="z" * 5_000) for n in range(1, 600)])
        seconds = 0
        while there.clients:
            await trio.sleep(1)
            seconds += 1
            assert seconds < 20
            with trio.move_on_after(0):
                await reader.sock.recv(1)
    assert closed("stalled") == stalled + 1


async def test_streams_end_at_their_age_and_not_all_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    aged = closed("aged")
    async with running(hub(lifetime_s=1000.0)) as there:
        readers = [Reader(there) for _ in range(50)]
        await trio.sleep(899)
        assert there.clients == 50
        await trio.sleep(101)
        assert 5 < there.clients < 45
        await trio.sleep(105)
        assert there.clients == 0
        for reader in readers:
            assert "retry: " in await reader.read_all()
            assert reader.ended
    assert closed("aged") == aged + 50


@promises.DRAINED_ONE_BY_ONE
async def test_draining_is_spread_and_events_go_on_until_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    there = hub(drain_window_s=10.0)
    async with trio.open_nursery() as nursery:
        await nursery.start(there.run)
        readers = [Reader(there) for _ in range(40)]
        await trio.sleep(1)
        there.drain()
        assert not there.running
        await trio.sleep(5)
        assert 5 < there.clients < 35
        there.publish(notifications(1, 2))
    seen = []
    for reader in readers:
        seen.append(ids(await reader.read_all()))
        assert reader.ended
    assert sorted(map(len, seen)) == [0] * seen.count([]) + [2] * (40 - seen.count([]))
    assert 5 < seen.count([]) < 35


async def test_a_leader_can_send_its_clients_away_gently(
    autojump_clock: trio.testing.MockClock,
) -> None:
    shed = closed("shed")
    async with running(hub()) as there:
        readers = [Reader(there) for _ in range(20)]
        there.end_within(10.0, EndReason.SHED)
        await trio.sleep(11)
        assert there.clients == 0
        late = Reader(there)
        await trio.sleep(11)
        assert there.clients == 1, "whoever comes later finds nobody else, and may stay"
        late.sock.close()
        for reader in readers:
            assert "retry: " in await reader.read_all()
    assert closed("shed") == shed + 20


@promises.STREAM_ENDS_WITH_TOKEN
async def test_streams_end_at_the_second_at_which_their_token_expires(
    autojump_clock: trio.testing.MockClock,
) -> None:
    expired = closed("expired")
    async with running(hub()) as there:
        began = trio.current_time()
        brief, longer, anonymous = (
            Reader(there, ends_at=began + seconds, receive_bytes=65_536)
            for seconds in (7.0, 8.0, math.inf)
        )
        await trio.sleep(6.85)
        there.publish(notifications(1, 1))
        assert await brief.read_through("id-1") == ["id-1"]
        await trio.sleep(began + 7.0 - trio.current_time())
        there.publish(notifications(2, 2))
        assert await longer.read_through("id-2") == ["id-1", "id-2"]
        assert "retry: " in await brief.read_all()
        assert brief.ended, "in order, with the closing chunk"
        assert "id-2" not in brief.text
        assert closed("expired") == expired + 1
        await trio.sleep(began + 8.0 - trio.current_time())
        await longer.read_all()
        there.publish(notifications(3, 3))
        assert (await anonymous.read_through("id-3"))[-1] == "id-3"
        assert there.clients == 1
    assert closed("expired") == expired + 2


@promises.STREAM_ENDS_WITH_TOKEN
async def test_a_stream_that_waits_for_its_client_is_cut_off_when_its_token_expires(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(hub(send_buffer_bytes=8192, chunk_bytes_max=8192)) as there:
        Reader(there, ends_at=trio.current_time() + 2.0)
        there.publish([notification(n, data="z" * 50_000) for n in range(1, 60)])
        await trio.sleep(1.5)
        assert there.clients == 1
        await trio.sleep(0.51)
        assert there.clients == 0


@promises.REVOKED_EVERYWHERE
async def test_streams_of_a_subject_are_ended_at_once_and_nobody_elses() -> None:
    revoked = closed("revoked")
    async with running(hub()) as there:
        phone, laptop = (Reader(there, subject="7") for _ in range(2))
        other = Reader(there, subject="8")
        there.publish(notifications(1, 1))
        assert there.disconnect(subject="7") == 2
        assert there.disconnect(subject="nobody") == 0
        for reader in (phone, laptop):
            assert "retry: " in await reader.read_all()
            assert reader.ended
        there.publish(notifications(2, 2))
        assert await other.read_through("id-2") == ["id-1", "id-2"]
        assert there.clients == 1
        assert there.disconnect(subject="7") == 0
    assert closed("revoked") == revoked + 2


class Observer:
    """Notes which streams are open."""

    def __init__(self) -> None:
        self.open: dict[int, open_streams.Reader] = {}
        self.seen = 0

    def opened(self, stream_id: int, reader: open_streams.Reader) -> None:
        assert stream_id not in self.open
        self.open[stream_id] = reader
        self.seen += 1

    def closed(self, stream_id: int) -> None:
        del self.open[stream_id]


async def test_an_observer_hears_of_every_stream_of_either_kind_once() -> None:
    observer = Observer()
    there = hub()
    there.observe(observer)
    async with running(there):
        readers = [Reader(there, subject=str(number)) for number in range(3)]
        with Subscription(there, open_streams.Reader(ALL, 0, "", subject="9")):
            assert sorted(one.subject for one in observer.open.values()) == ["0", "1", "2", "9"]
        readers[0].sock.close()
        there.publish(notifications(1, 1))
        await until(lambda: there.clients == 2)
        assert sorted(one.subject for one in observer.open.values()) == ["1", "2"]
    assert (observer.open, observer.seen) == ({}, 4)


@promises.NOTHING_OF_UNREADABLE_EVENTS
async def test_readers_of_a_quiet_topic_are_not_left_behind_by_a_busy_one() -> None:
    quiet = Audience(View.MERCURE, selecting("quiet"))
    async with running(hub()) as there:
        reader, busy = Reader(there, quiet), Reader(there)
        for first in range(1, 50, 5):
            show(there, first, first + 4, history_size=5)
            await busy.read_until(f"id-{first + 4}")
        await until(lambda: len(there.feed.retained.notifications) < 15)
        there.publish([notification(51, "quiet")])
        assert ids(await reader.read_until("id-51")) == ["id-51"]
        assert there.clients == 2


async def test_an_event_concerns_only_the_audiences_that_name_its_topic() -> None:
    async with running(hub()) as there:
        audiences = [Audience(View.MERCURE, selecting(f"user/{n}", "all")) for n in range(100)]
        readers = [Reader(there, audience) for audience in audiences]
        await until(lambda: not there._sending.sendable)
        there.feed.extend([notification(1, "user/7")])
        assert there.feed.with_news() == [audiences[7]]
        there.feed.extend([notification(2, "all")])
        assert there.feed.with_news() == audiences
        del readers
