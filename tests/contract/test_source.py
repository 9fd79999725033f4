"""What every `Source` promises, asked of a real JetStream server and of the simulator's stream."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import pytest
import trio
from nats.aio.client import Client

from noti.asyncio_loop import AsyncioLoop
from noti.errors import SourceUnavailable
from noti.publishing.nats.ports import DeadLetter, Source, SourceLag, SourceMessage, SourceSession
from noti.publishing.nats.settings import NatsSettings
from noti.publishing.nats.source import NatsSource
from noti.trio_clock import TrioClock
from tests.publishing.nats.nats_server import NatsServer, nats_server
from tests.simulation.memory_source import MemorySource
from tests.simulation.memory_stream import MemoryStream, Retention

T = TypeVar("T")


class World(Protocol):
    """A source, and the hands of a tester on what is behind it."""

    source: Source
    acknowledges: bool

    async def publish(self, first: int, last: int) -> None:
        """Publish numbered messages with ids, in order."""

    async def stop(self) -> None:
        """Begin an outage."""

    async def start(self) -> None:
        """End the outage."""

    async def recreate(self) -> None:
        """Delete the stream and make it again."""


class MemoryWorld:
    def __init__(self, retention: Retention) -> None:
        self._stream = MemoryStream(TrioClock(), retention=retention)
        self.acknowledges = self._stream.acknowledges
        self.source: Source = MemorySource(self._stream)

    async def publish(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            self._stream.publish("jobs.noti.x", b"payload %d" % number, f"id-{number}")

    async def stop(self) -> None:
        self._stream.stop()

    async def start(self) -> None:
        self._stream.start()

    async def recreate(self) -> None:
        self._stream.recreate()
        await self.make()

    async def make(self) -> None:
        async with self.source.open() as session:
            # A stream with interest retention keeps nothing before it has a consumer.
            await session.begin(0)


class NatsWorld:
    def __init__(
        self, server: NatsServer, asyncio_loop: AsyncioLoop, settings: NatsSettings
    ) -> None:
        self._server = server
        self._asyncio_loop = asyncio_loop
        self.settings = settings
        self.acknowledges = settings.retention != "limits"
        self.source: Source = NatsSource(asyncio_loop, settings)

    async def jetstream(self, function: Callable[[Any], Awaitable[T]]) -> T:
        async def connected() -> T:
            client = Client()
            await client.connect(self._server.url)
            try:
                return await function(client.jetstream())
            finally:
                await client.close()

        return await self._asyncio_loop.call(connected)

    async def publish(self, first: int, last: int) -> None:
        async def all_of_them(jetstream: Any) -> None:
            for number in range(first, last + 1):
                headers = {"Nats-Msg-Id": f"id-{number}"}
                await jetstream.publish("jobs.noti.x", b"payload %d" % number, headers=headers)

        await self.jetstream(all_of_them)

    async def stop(self) -> None:
        await self._server.kill()

    async def start(self) -> None:
        await self._server.start()

    async def recreate(self) -> None:
        await self.jetstream(lambda jetstream: jetstream.delete_stream("jobs"))
        await self.make()

    async def make(self) -> None:
        async with self.source.open() as session:
            # A stream with interest retention keeps nothing before it has a consumer.
            await session.begin(0)


WorldFactory = Callable[[], AbstractAsyncContextManager[World]]


@asynccontextmanager
async def nats_world(
    store: Path, retention: Literal["workqueue", "interest", "limits"] = "workqueue"
) -> AsyncIterator[NatsWorld]:
    with trio.fail_after(30):
        async with nats_server(store) as server, trio.open_nursery() as nursery:
            asyncio_loop = AsyncioLoop()
            await nursery.start(asyncio_loop.run)
            settings = NatsSettings(urls=(server.url,), retention=retention)
            world = NatsWorld(server, asyncio_loop, settings)
            await world.make()
            yield world
            nursery.cancel_scope.cancel()


KINDS = [
    pytest.param("workqueue", marks=pytest.mark.interop),
    pytest.param("interest", marks=pytest.mark.interop),
    pytest.param("limits", marks=pytest.mark.interop),
    "memory, workqueue",
    "memory, interest",
    "memory, limits",
]
WITH_ONE_PLACE = [KINDS[0], KINDS[3]]
"""Sources whose sessions all have the same consumer."""


@pytest.fixture(params=KINDS)
def open_world(request: pytest.FixtureRequest, tmp_path: Path) -> WorldFactory:
    return factory_of(request.param, tmp_path)


@pytest.fixture(params=WITH_ONE_PLACE)
def open_world_with_one_place(request: pytest.FixtureRequest, tmp_path: Path) -> WorldFactory:
    return factory_of(request.param, tmp_path)


def factory_of(kind: Any, store: Path) -> WorldFactory:
    @asynccontextmanager
    async def memory() -> AsyncIterator[World]:
        with trio.fail_after(30):
            world = MemoryWorld(kind.removeprefix("memory, "))
            await world.make()
            yield world

    return memory if kind.startswith("memory") else lambda: nats_world(store, kind)


async def fetch_count(
    session: SourceSession, count: int, messages_max: int = 100
) -> list[SourceMessage]:
    messages: list[SourceMessage] = []
    while len(messages) < count:
        messages += await session.fetch(messages_max, 1.0)
    return messages


def numbers(messages: list[SourceMessage]) -> list[int]:
    return [int(message.payload.split()[1]) for message in messages]


async def test_messages_come_in_order_with_all_their_parts(open_world: WorldFactory) -> None:
    async with open_world() as world:
        await world.publish(1, 250)
        async with world.source.open() as session:
            await session.begin(0)
            messages = await fetch_count(session, 250)
    assert numbers(messages) == list(range(1, 251))
    assert [message.seq for message in messages] == list(range(1, 251))
    assert messages[6].subject == "jobs.noti.x"
    assert messages[6].payload == b"payload 7"
    assert messages[6].headers == {"nats-msg-id": ["id-7"]}


async def test_fetch_returns_no_more_than_asked(open_world: WorldFactory) -> None:
    async with open_world() as world:
        await world.publish(1, 20)
        async with world.source.open() as session:
            await session.begin(0)
            seen: list[int] = []
            while len(seen) < 20:
                messages = await session.fetch(3, 1.0)
                assert len(messages) <= 3
                seen += numbers(messages)
    assert seen == list(range(1, 21))


async def test_fetch_is_empty_when_nothing_comes(open_world: WorldFactory) -> None:
    async with open_world() as world, world.source.open() as session:
        await session.begin(0)
        assert await session.fetch(10, 0.05) == []
        await world.publish(1, 1)
        assert numbers(await fetch_count(session, 1)) == [1]


async def test_waiting_fetch_returns_as_soon_as_something_comes(open_world: WorldFactory) -> None:
    async with open_world() as world, world.source.open() as session:
        await session.begin(0)
        seen: list[int] = []

        async def wait() -> None:
            # The server's own limit of a pull is far below: this must not need it.
            seen.extend(numbers(await session.fetch(10, 25.0)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await world.publish(1, 1)
    assert seen == [1]


async def test_unacknowledged_comes_again_in_order_to_the_next_session(
    open_world: WorldFactory,
) -> None:
    async with open_world() as world:
        await world.publish(1, 30)
        async with world.source.open() as session:
            await session.begin(0)
            messages = await fetch_count(session, 30)
            await session.ack(messages[:10])
        async with world.source.open() as session:
            await session.begin(10)
            await world.publish(31, 35)
            assert numbers(await fetch_count(session, 25)) == list(range(11, 36))


async def test_begin_again_starts_over_in_one_session(open_world: WorldFactory) -> None:
    async with open_world() as world:
        await world.publish(1, 10)
        async with world.source.open() as session:
            await session.begin(0)
            await session.ack((await fetch_count(session, 10))[:4])
            await session.begin(4)
            assert numbers(await fetch_count(session, 6)) == [5, 6, 7, 8, 9, 10]


async def test_what_was_committed_without_an_ack_is_not_returned(open_world: WorldFactory) -> None:
    async with open_world() as world:
        await world.publish(1, 10)
        async with world.source.open() as session:
            await session.begin(7)
            assert numbers(await fetch_count(session, 3)) == [8, 9, 10]


async def test_terminated_message_never_comes_again(open_world: WorldFactory) -> None:
    async with open_world() as world:
        await world.publish(1, 3)
        async with world.source.open() as session:
            await session.begin(0)
            messages = await fetch_count(session, 3)
            await session.dead_letter([DeadLetter(messages[0], "no event")])
            await session.ack(messages[1:2])
        async with world.source.open() as session:
            await session.begin(2)
            assert numbers(await fetch_count(session, 1)) == [3]


async def read_on(session: SourceSession) -> None:
    """Read until something is wrong."""
    while True:
        await session.fetch(10, 0.5)


async def test_acknowledging_needs_one_reader_and_the_other_is_told(
    open_world: WorldFactory,
) -> None:
    async with open_world() as world:
        await world.publish(1, 5)
        async with world.source.open() as deposed, world.source.open() as leader:
            await deposed.begin(0)
            await fetch_count(deposed, 5)
            await leader.begin(0)
            assert numbers(await fetch_count(leader, 5)) == [1, 2, 3, 4, 5]
            if world.acknowledges:
                with pytest.raises(SourceUnavailable):
                    await read_on(deposed)
            else:
                # Nothing was taken: each has a place of its own, and nobody acknowledges.
                await world.publish(6, 6)
                assert numbers(await fetch_count(deposed, 1)) == [6]
                assert numbers(await fetch_count(leader, 1)) == [6]


async def test_gap_after_a_stolen_message_is_noticed(
    open_world_with_one_place: WorldFactory,
) -> None:
    async with (
        open_world_with_one_place() as world,
        world.source.open() as thief,
        world.source.open() as leader,
    ):
        await thief.begin(0)
        await leader.begin(0)
        await world.publish(1, 2)
        assert numbers(await thief.fetch(1, 1.0)) == [1]
        with pytest.raises(SourceUnavailable):
            await read_on(leader)


@pytest.mark.slow
async def test_theft_of_the_last_message_is_noticed(
    open_world_with_one_place: WorldFactory,
) -> None:
    """Nothing comes after it, so the order of messages alone would not show it."""
    async with (
        open_world_with_one_place() as world,
        world.source.open() as thief,
        world.source.open() as leader,
    ):
        await thief.begin(0)
        await leader.begin(0)
        await world.publish(1, 1)
        assert numbers(await fetch_count(thief, 1)) == [1]
        with pytest.raises(SourceUnavailable):
            await read_on(leader)


async def test_outage_is_reported_and_reading_resumes_after_it(open_world: WorldFactory) -> None:
    async with open_world() as world:
        await world.publish(1, 10)
        async with world.source.open() as session:
            await session.begin(0)
            await session.ack((await fetch_count(session, 10))[:5])
            stream = session.stream
            await world.stop()
            with pytest.raises(SourceUnavailable):
                await fetch_count(session, 1)
            with pytest.raises(SourceUnavailable):
                await session.begin(0)
        with pytest.raises(SourceUnavailable), trio.fail_after(30):
            async with world.source.open():
                pass
        await world.start()
        async with world.source.open() as session:
            assert session.stream == stream
            await session.begin(5)
            await world.publish(11, 12)
            assert numbers(await fetch_count(session, 7)) == [6, 7, 8, 9, 10, 11, 12]


async def test_stream_made_again_has_another_identity(open_world: WorldFactory) -> None:
    async with open_world() as world:
        await world.publish(1, 3)
        async with world.source.open() as session:
            first = session.stream
        await world.recreate()
        await world.publish(4, 5)
        async with world.source.open() as session:
            assert session.stream != first
            await session.begin(0)
            messages = await fetch_count(session, 2)
    assert [message.seq for message in messages] == [1, 2]


async def test_cancelled_fetch_loses_nothing(open_world: WorldFactory) -> None:
    async with open_world() as world, world.source.open() as session:
        await session.begin(0)
        seen: list[int] = []
        published = 0
        while len(seen) < 40:
            if published < 40:
                await world.publish(published + 1, published + 4)
                published += 4
            messages: list[SourceMessage] = []
            with trio.move_on_after(0.002):
                messages = await session.fetch(3, 1.0)
            seen += numbers(messages)
    assert seen == list(range(1, 41))


async def test_lag_follows_what_was_fetched_and_settled(open_world: WorldFactory) -> None:
    async with open_world() as world:
        before_ms = world_ms()
        await world.publish(1, 10)
        async with world.source.open() as session:
            assert session.lag().unacknowledged == 0
            await session.begin(0)
            messages = await fetch_count(session, 4, messages_max=4)
            lag = session.lag()
            # The real one may have asked for more already.
            assert lag.unacknowledged >= 4
            assert lag.pending + lag.unacknowledged == 10
            assert lag.oldest_ms is not None
            assert before_ms - 1 <= lag.oldest_ms
            await session.dead_letter([DeadLetter(messages[0], "no event")])
            await session.ack(messages[1:])
            messages = await fetch_count(session, 6)
            await session.ack(messages)
            assert session.lag() == SourceLag(0, 0, None)


def world_ms() -> int:
    return TrioClock().wall_ms()
