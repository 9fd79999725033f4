"""One session's messages go into the log in order, in commands of bounded size."""

import random
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from noti.errors import SourceUnavailable
from noti.history.commands import PublishBatch, decode
from noti.history.notification import Event
from noti.publishing.nats import reading
from noti.publishing.nats.mapping import StreamMapping
from noti.publishing.nats.outcomes import Outcomes
from noti.publishing.nats.ports import SourceMessage
from noti.publishing.nats.reading import SessionReading
from noti.stream_settings import SubjectSettings
from noti.tracing.ports import Step, Tracer
from noti.tracing.refusals import Refusals
from noti.tracing.taking import TakenTraces
from noti.trio_clock import TrioClock
from tests.publishing.replicated_log import ReplicatedLog
from tests.simulation.memory_source import MemorySource
from tests.simulation.memory_stream import MemoryStream
from tests.tracing.recorder import RecordingTracer


class RecordingLog(ReplicatedLog):
    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.commands: list[bytes] = []

    async def propose(self, command: bytes) -> None:
        self.commands.append(command)
        await super().propose(command)


async def read(
    stream: MemoryStream,
    log: ReplicatedLog,
    events: int,
    tracer: Tracer | None = None,
    refusals: Refusals | None = None,
) -> None:
    """Read until so many events were shown."""
    clock = TrioClock()
    async with MemorySource(stream).open() as session:
        await session.begin(0)
        event_of = StreamMapping((SubjectSettings(subject=">", decoder="text"),)).event_of
        outcomes = Outcomes("read", clock)
        one = SessionReading(
            session,
            event_of,
            log,
            outcomes,
            clock,
            random.Random(1),
            committed=lambda: None,
            traces=TakenTraces(tracer, refusals=refusals),
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


async def test_traced_messages_are_committed_in_a_span_that_is_linked_to_theirs(
    autojump_clock: MockClock,
) -> None:
    stream, log, tracer = MemoryStream(TrioClock()), RecordingLog(), RecordingTracer()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for headers in ({"traceparent": [trace]}, {}, {"traceparent": [trace]}):
        stream.publish("a", b"0", headers=headers)
    await read(stream, log, 1, tracer)
    first, second = tracer.of(Step.READ)
    assert first.parents == second.parents == [trace]
    [commit] = tracer.of(Step.COMMIT)
    assert commit.parents == [first.trace, second.trace]
    assert [span.problem for span in tracer.spans] == [""] * 3
    command = decode(log.commands[0])
    assert isinstance(command, PublishBatch)
    assert [one.trace for one in command.events] == [first.trace, "", second.trace]


async def test_dead_letter_is_noted_by_its_id(autojump_clock: MockClock) -> None:
    stream, log, refusals = MemoryStream(TrioClock()), RecordingLog(), Refusals(lambda: 0)
    stream.publish("a", b"\xff", "wrong")
    stream.publish("a", b"0")
    await read(stream, log, 1, refusals=refusals)
    noted = refusals.of("wrong")
    assert noted is not None
    assert noted.reason.startswith("dead letter, sequence 1: ")


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


async def test_others_get_turns_while_large_messages_are_decoded(
    autojump_clock: MockClock,
) -> None:
    clock, turns = TrioClock(), 0
    stream, log = MemoryStream(clock), RecordingLog()
    decoded_in: list[int] = []
    decode_text = StreamMapping((SubjectSettings(subject=">", decoder="text"),)).event_of

    def event_of(message: SourceMessage, *, wall_ms: int, rng: random.Random) -> Event:
        decoded_in.append(turns)
        return decode_text(message, wall_ms=wall_ms, rng=rng)

    for _ in range(10):
        stream.publish("a", b"x" * reading.DECODED_AT_ONCE_BYTES)
    async with MemorySource(stream).open() as session:
        await session.begin(0)
        one = SessionReading(
            session,
            event_of,
            log,
            Outcomes("turns", clock),
            clock,
            random.Random(1),
            committed=lambda: None,
        )
        with trio.fail_after(600):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.run)
                while len(decoded_in) < 10:
                    turns += 1
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
    # Two in one turn of ours, when the scheduler lets us go first and then last.
    assert len(set(decoded_in)) >= 5
