"""One session's messages go into the log in order, in commands of bounded size."""

import random
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from noti.errors import SourceUnavailable
from noti.history.commands import PublishBatch, decode
from noti.publishing.nats import reading
from noti.publishing.nats.mapping import StreamMapping
from noti.publishing.nats.outcomes import Outcomes
from noti.publishing.nats.reading import SessionReading
from noti.stream_settings import SubjectSettings
from noti.trio_clock import TrioClock
from tests.publishing.replicated_log import ReplicatedLog
from tests.simulation.memory_source import MemorySource, MemoryStream


class RecordingLog(ReplicatedLog):
    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.commands: list[bytes] = []

    async def propose(self, command: bytes) -> None:
        self.commands.append(command)
        await super().propose(command)


async def read(stream: MemoryStream, log: ReplicatedLog, events: int) -> None:
    """Read until so many events were shown."""
    clock = TrioClock()
    async with MemorySource(stream).open() as session:
        await session.begin(0)
        event_of = StreamMapping((SubjectSettings(subject=">", decoder="text"),)).event_of
        outcomes = Outcomes("read", clock)
        one = SessionReading(
            session, event_of, log, outcomes, clock, random.Random(1), committed=lambda: None
        )
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.run)
                while len(log.shown) < events or stream.unacknowledged:  # noqa: ASYNC110
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()


def shown(log: ReplicatedLog) -> Sequence[int]:
    return [int(one.data.partition(" ")[0]) for one in log.shown]


async def test_backlog_is_shown_in_order_and_acknowledged(autojump_clock: MockClock) -> None:
    stream, log = MemoryStream(TrioClock()), RecordingLog()
    for number in range(1700):
        stream.publish("a", b"%d" % number)
    await read(stream, log, 1700)
    assert shown(log) == list(range(1700))


async def test_large_messages_are_cut_into_commands_of_bounded_size(
    autojump_clock: MockClock,
) -> None:
    stream, log = MemoryStream(TrioClock()), RecordingLog()
    for number in range(10):
        stream.publish("a", b"%d " % number + b"x" * (reading.BATCH_BYTES_MAX // 2))
    await read(stream, log, 10)
    assert shown(log) == list(range(10))
    commands = [decode(command) for command in log.commands]
    assert all(isinstance(one, PublishBatch) and len(one.events) <= 2 for one in commands)


async def test_session_that_breaks_ends_the_reading(autojump_clock: MockClock) -> None:
    stream, log = MemoryStream(TrioClock()), RecordingLog()
    stream.publish("a", b"0")
    with trio.fail_after(600), pytest.RaisesGroup(SourceUnavailable, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, stream, log, 2)
            await trio.sleep(1)
            stream.stop()
