"""Which consumer a session gets, by the retention of its stream, against a real nats-server."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio

from noti.asyncio_loop import AsyncioLoop
from noti.errors import SourceOccupied, SourceUnavailable
from noti.publishing.nats.ports import SourceMessage, SourceSession
from noti.publishing.nats.settings import NatsSettings
from noti.publishing.nats.source import NatsSource
from tests.publishing.nats.nats_server import NatsServer, nats_server
from tests.publishing.nats.test_source import on_jetstream, publish, running_asyncio_loop

pytestmark = pytest.mark.interop

INTEREST: Final[dict[str, Any]] = {"retention": "interest"}


class Stage:
    """A server, and the hands of a tester on it."""

    def __init__(self, server: NatsServer, loop: AsyncioLoop) -> None:
        self.server = server
        self.loop = loop

    def source(self, **settings: Any) -> NatsSource:
        return NatsSource(self.loop, NatsSettings(urls=(self.server.url,), **settings))

    async def publish(self, first: int, last: int) -> None:
        await publish(self.loop, self.server, first, last)

    async def do(self, method: str, /, *args: Any, **options: Any) -> Any:
        """Call a method of nats-py's JetStream."""
        return await on_jetstream(
            self.loop, self.server, lambda jetstream: getattr(jetstream, method)(*args, **options)
        )

    async def consumers(self) -> list[Any]:
        return sorted(await self.do("consumers_info", "jobs"), key=lambda info: str(info.name))

    async def kept(self) -> int:
        """How many messages are in the stream."""
        messages: int = (await self.do("stream_info", "jobs")).state.messages
        return messages


@asynccontextmanager
async def stage(store: Path) -> AsyncIterator[Stage]:
    async with running_asyncio_loop() as loop, nats_server(store) as server:
        yield Stage(server, loop)


async def fetch(session: SourceSession, count: int) -> list[SourceMessage]:
    messages: list[SourceMessage] = []
    with trio.fail_after(20):
        while len(messages) < count:
            messages += await session.fetch(100, 1.0)
    return messages


async def read(source: NatsSource, after_seq: int, count: int) -> list[int]:
    """Return the sequences of what comes in a session, and acknowledge nothing."""
    async with source.open() as session:
        await session.begin(after_seq)
        return [message.seq for message in await fetch(session, count)]


async def test_several_subjects_are_read_and_no_others(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["a.>", "b.>", "c.>"])
        source = here.source(subjects=("a.>", "c.*"))
        for subject in ("a.1", "b.1", "c.1", "c.1.2", "a.2"):
            await here.do("publish", subject, b"")
        assert await read(source, 0, 3) == [1, 3, 5]


async def test_interest_stream_has_one_consumer_that_is_always_a_new_one(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source(**INTEREST)
        assert await read(source, 0, 0) == []
        await here.publish(1, 5)
        assert await read(source, 2, 3) == [3, 4, 5]
        assert [info.name for info in await here.consumers()] == ["noti-00000002"]


async def test_what_is_committed_leaves_an_interest_stream(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source(**INTEREST)
        async with source.open() as session:
            await session.begin(0)
            await here.publish(1, 5)
            await session.ack((await fetch(session, 5))[:3])
        assert await here.kept() == 2
        assert await read(source, 4, 1) == [5]
        # Committed without an acknowledgement: the new consumer wants it no more.
        assert await here.kept() == 1


async def test_what_another_consumer_wants_stays_in_an_interest_stream(tmp_path: Path) -> None:
    """And does not come to us again."""
    async with stage(tmp_path) as here:
        source = here.source(**INTEREST)
        async with source.open() as session:
            await session.begin(0)
            await here.do("add_consumer", "jobs", durable_name="audit", ack_policy="explicit")
            await here.publish(1, 5)
            await session.ack(await fetch(session, 5))
        assert await here.kept() == 5
        async with source.open() as session:
            await session.begin(5)
            await here.publish(6, 6)
            assert [message.seq for message in await fetch(session, 1)] == [6]
        assert [info.name for info in await here.consumers()] == ["audit", "noti-00000002"]


BEGINS_AND_HANGS = """
import sys, trio
from noti.asyncio_loop import AsyncioLoop
from noti.publishing.nats import consumers
from noti.publishing.nats.settings import NatsSettings
from noti.publishing.nats.source import NatsSource

async def hang(*_):
    print("made", flush=True)
    await AsyncioSleep.forever()

class AsyncioSleep:
    @staticmethod
    async def forever():
        import asyncio
        await asyncio.sleep(3600)

consumers._delete = hang

async def main():
    async with trio.open_nursery() as nursery:
        loop = AsyncioLoop()
        await nursery.start(loop.run)
        source = NatsSource(loop, NatsSettings(urls=(sys.argv[1],), retention="interest"))
        async with source.open() as session:
            await session.begin(int(sys.argv[2]))

trio.run(main)
"""


@pytest.mark.slow
async def test_reader_killed_while_it_replaces_the_consumer_costs_nothing(tmp_path: Path) -> None:
    """It has made the new one, and not deleted the old one."""
    async with stage(tmp_path) as here:
        source = here.source(**INTEREST)
        await read(source, 0, 0)
        await here.publish(1, 5)
        command = [sys.executable, "-c", BEGINS_AND_HANGS, here.server.url, "2"]
        killed = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert killed.stdout is not None
        assert await killed.stdout.receive_some(4) == b"made"
        killed.kill()
        await killed.wait()
        assert len(await here.consumers()) == 2
        await here.publish(6, 8)
        assert await read(source, 2, 6) == [3, 4, 5, 6, 7, 8]
        assert [info.name for info in await here.consumers()] == ["noti-00000003"]


@pytest.mark.slow
async def test_readers_that_begin_at_the_same_moment_lose_nothing(tmp_path: Path) -> None:
    rounds, in_a_round = 15, 4
    async with stage(tmp_path) as here:
        first, second = here.source(**INTEREST), here.source(**INTEREST)
        await read(first, 0, 0)

        async def begin(source: NatsSource, after_seq: int) -> None:
            try:
                async with source.open() as session:
                    await session.begin(after_seq)
                    await session.fetch(2, 0.05)
            except SourceUnavailable:
                return  # The other was faster; all that matters is what is left.

        for number in range(rounds):
            published = number * in_a_round
            async with trio.open_nursery() as nursery:
                nursery.start_soon(begin, first, 0)
                nursery.start_soon(begin, second, 0)
                nursery.start_soon(here.publish, published + 1, published + in_a_round)
        total = rounds * in_a_round
        assert await read(first, 0, total) == list(range(1, total + 1))
        assert len(await here.consumers()) == 1


async def test_consumer_of_a_limits_stream_goes_with_its_session(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source(retention="limits")
        async with source.open() as session:
            await session.begin(0)
            [info] = await here.consumers()
            assert (info.config.ack_policy, info.config.durable_name) == ("none", None)
            assert (info.config.mem_storage, info.config.num_replicas) == (True, 1)
            assert not session.acknowledges
        assert await here.consumers() == []


async def test_limits_stream_is_read_behind_the_floor_and_stays_as_it_is(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        source = here.source(retention="limits")
        await read(source, 0, 0)
        await here.publish(1, 9)
        assert await read(source, 6, 3) == [7, 8, 9]
        assert await read(source, 6, 3) == [7, 8, 9]
        assert await here.kept() == 9


async def test_consumer_of_somebody_else_is_named_with_both_ways_out(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>"], retention="workqueue")
        await here.do(
            "add_consumer", "jobs", durable_name="worker_noti", filter_subject="jobs.noti.>"
        )
        with pytest.raises(SourceOccupied) as caught:
            await read(here.source(), 0, 0)
        assert str(caught.value) == (
            "stream jobs is a work queue that consumer worker_noti reads already, and both cannot:"
            " take it over with --nats-durable worker_noti, or retire it with:"
            " nats consumer rm jobs worker_noti"
        )
        await here.publish(1, 2)
        # The first way, and the second.
        assert await read(here.source(durable="worker_noti"), 0, 2) == [1, 2]
        await here.do("delete_consumer", "jobs", "worker_noti")
        assert await read(here.source(), 0, 2) == [1, 2]


async def test_several_consumers_in_the_way_are_all_named(tmp_path: Path) -> None:
    async with stage(tmp_path) as here:
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>"], retention="workqueue")
        for name in ("a", "b"):
            await here.do(
                "add_consumer", "jobs", durable_name=name, filter_subject=f"jobs.noti.{name}"
            )
        with pytest.raises(SourceOccupied, match="consumers a, b read already") as caught:
            await read(here.source(), 0, 0)
        assert "nats consumer rm jobs a; nats consumer rm jobs b" in str(caught.value)
        # One that reads something else is in nobody's way.
        assert await read(here.source(subjects=("jobs.noti.c",)), 0, 0) == []
