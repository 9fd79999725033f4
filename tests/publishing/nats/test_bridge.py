"""From the source into the log: every event once, in order, whatever fails."""

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import get_args

import pytest
import structlog.testing
import trio
from prometheus_client import REGISTRY
from trio.testing import MockClock

from noti.errors import SourceUnavailable
from noti.optional import keep_going
from noti.publishing.nats.bridge import Bridge
from noti.publishing.nats.mapping import StreamMapping
from noti.publishing.nats.metrics import State
from noti.publishing.nats.ports import SourceMessage
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.stream_settings import SubjectSettings
from noti.trio_clock import TrioClock
from tests import promises
from tests.publishing.replicated_log import ReplicatedLog
from tests.simulation.clocks import MachineClock
from tests.simulation.memory_source import MemorySource
from tests.simulation.memory_stream import MemoryStream, Retention

DEAD = "a message can never be an event"
STATES: tuple[State, ...] = get_args(State)


@dataclass
class Stage:
    """A stream, a log and a bridge between them."""

    rng: random.Random = field(default_factory=lambda: random.Random(1))
    leader: bool = True
    messages_max: int = 500
    acknowledges: bool = True

    def __post_init__(self) -> None:
        clock = TrioClock()
        retention: Retention = "workqueue" if self.acknowledges else "limits"
        self.stream = MemoryStream(clock, retention=retention)
        self.source = MemorySource(self.stream)
        self.log = ReplicatedLog(self.rng, leader=self.leader)
        self.bridge = Bridge(
            "jobs",
            self.source,
            StreamMapping((SubjectSettings(subject=">", decoder="category"),)).event_of,
            self.log,
            self.log.store.floor,
            clock,
            self.rng,
            messages_max=self.messages_max,
        )
        self.published = 0

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.published += 1
            payload = bytes(CategoryMessage(user_id=self.published))
            self.stream.publish("jobs.noti.x", payload)

    @property
    def numbers(self) -> list[int]:
        """The user ids of what was shown, in order."""
        return [json.loads(shown.data)["user_id"] for shown in self.log.shown]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """As in a node: the bridge is an optional part."""
        bridge = self.bridge
        async with trio.open_nursery() as nursery:
            await nursery.start(
                keep_going, "source", bridge.run, TrioClock(), self.rng, bridge.failed
            )
            yield
            nursery.cancel_scope.cancel()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(600):
            while not condition():  # noqa: ASYNC110 (any condition; the time is virtual)
                await trio.sleep(0.01)

    async def until_shown(self, count: int) -> None:
        await self.until(lambda: len(self.log.shown) >= count)


@promises.ACKNOWLEDGED_AFTER_MAJORITY
async def test_events_are_shown_and_then_acknowledged(autojump_clock: MockClock) -> None:
    stage = Stage()
    committed_before: dict[int, int] = {}

    def removed(message: SourceMessage) -> None:
        number = CategoryMessage.parse(message.payload).user_id
        committed_before[number] = len(stage.log.shown)

    stage.stream.removed = removed
    stage.publish(5)
    async with stage.running():
        await stage.until_shown(5)
        stage.publish(3)
        await stage.until(lambda: stage.stream.unacknowledged == [])
        assert stage.numbers == list(range(1, 9))
        assert list(committed_before) == stage.numbers
        for number, committed in committed_before.items():
            assert committed >= number, f"event {number} was acknowledged before its commit"
        status = stage.bridge.status()
        assert status.pop("since")
        assert isinstance(status.pop("for_s"), float)
        assert status == {
            "name": "jobs",
            "state": "reading",
            "error": None,
            "stream": "memory@1",
            "pending": 0,
            "unacknowledged": 0,
            "oldest_unacknowledged_s": 0.0,
            "dead_letters": 0,
            "published": 8,
        }


async def test_follower_reads_nothing(autojump_clock: MockClock) -> None:
    stage = Stage(leader=False)
    stage.publish(3)
    async with stage.running():
        await trio.sleep(10)
        assert stage.bridge.status()["state"] == "standby"
        assert stage.numbers == []
        stage.log.set_leader(True)
        await stage.until_shown(3)


@promises.ACKNOWLEDGED_AFTER_MAJORITY
async def test_uncommitted_is_not_acknowledged_when_leadership_is_lost(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    stage.log.commit_s = 1000
    stage.publish(3)
    async with stage.running():
        await stage.until(lambda: stage.log.proposing == 1)
        stage.log.set_leader(False)
        await trio.sleep(1)
        assert stage.log.proposing == 0
        assert stage.bridge.status()["state"] == "standby"
        assert stage.stream.unacknowledged == [1, 2, 3]
        stage.log.commit_s = 0.01
        stage.log.set_leader(True)
        await stage.until(lambda: stage.stream.unacknowledged == [])
        assert stage.numbers == [1, 2, 3]


async def test_leadership_won_back_at_once_starts_from_the_floor(autojump_clock: MockClock) -> None:
    stage = Stage()
    stage.log.commit_s = 1000
    stage.publish(3)
    async with stage.running():
        await stage.until(lambda: stage.log.proposing == 1)
        stage.log.commit_s = 0.01
        stage.log.set_leader(False)
        stage.log.set_leader(True)
        await stage.until_shown(3)
        assert stage.numbers == [1, 2, 3]
        assert stage.log.proposals == 2


async def test_next_messages_are_fetched_while_the_last_commit(autojump_clock: MockClock) -> None:
    stage = Stage(messages_max=1)
    stage.log.commit_s = 0.5
    stage.publish(20)
    taken_while_committing: list[int] = []
    async with stage.running():
        await stage.until(lambda: stage.log.proposing == 1)
        await trio.sleep(0.001)
        taken_while_committing.append(stage.stream.consumer.delivered - stage.log.proposals)
        await stage.until_shown(20)
    # One waits behind the one that commits.
    assert taken_while_committing == [1]
    assert stage.numbers == list(range(1, 21))


async def test_refused_batch_is_never_overtaken(autojump_clock: MockClock) -> None:
    stage = Stage(messages_max=3)
    stage.log.refuse = 0.5
    stage.publish(60)
    async with stage.running():
        await stage.until(lambda: stage.stream.unacknowledged == [])
    assert stage.numbers == list(range(1, 61))


@promises.BAD_PAYLOAD_BLOCKS_NOTHING
async def test_bad_payload_is_terminated_counted_and_logged_once(autojump_clock: MockClock) -> None:
    stage = Stage()
    stage.publish(2)
    stage.stream.publish("jobs.noti.x", b"\xff garbage")
    stage.publish(2)
    # The first attempts fail after the bad one was terminated, so the batch is read again.
    stage.log.refuse = 1.0
    with structlog.testing.capture_logs() as logs:
        async with stage.running():
            await stage.until(lambda: stage.log.proposals >= 3)
            stage.log.refuse = 0.0
            await stage.until(lambda: stage.stream.unacknowledged == [])
            assert stage.bridge.status()["dead_letters"] == 1
    assert stage.numbers == [1, 2, 3, 4]
    told = [line for line in logs if line["event"] == DEAD]
    assert [line["seq"] for line in told] == [3]


async def test_command_is_closed_by_topics_as_by_data(autojump_clock: MockClock) -> None:
    """Twenty messages of half a megabyte of topics each would be more than an entry may hold."""
    stage = Stage()
    topics = [f"{number:03}{'x' * 997}" for number in range(500)]
    for _ in range(20):
        stage.stream.publish("a", bytes(CategoryMessage(user_id=1)), headers={"noti-topic": topics})
    async with stage.running():
        await stage.until_shown(20)
    assert stage.log.proposals == 7, "three at a time, of half a megabyte each"


@promises.UNREADABLE_NOT_LET_IN
async def test_event_on_a_subject_that_no_reader_can_name_is_terminated_and_counted(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    stage.stream.publish("/.well-known/mercure/x", bytes(CategoryMessage(user_id=9)))
    stage.stream.publish("jobs.noti.\x07", bytes(CategoryMessage(user_id=9)))
    stage.publish(1)
    with structlog.testing.capture_logs() as logs:
        async with stage.running():
            await stage.until(lambda: stage.stream.unacknowledged == [])
            assert stage.bridge.status()["dead_letters"] == 2
    assert stage.numbers == [1]
    errors = [line["error"] for line in logs if line["event"] == DEAD]
    assert ["reserved" in errors[0], "control character" in errors[1]] == [True, True]


async def test_only_bad_payloads_block_nothing(autojump_clock: MockClock) -> None:
    stage = Stage()
    for _ in range(5):
        stage.stream.publish("jobs.noti.x", b"")
    async with stage.running():
        await stage.until(lambda: stage.stream.unacknowledged == [])
        assert stage.bridge.status()["dead_letters"] == 5
        assert stage.log.proposals == 0
        stage.publish(1)
        await stage.until_shown(1)


def source_failures() -> float:
    value = REGISTRY.get_sample_value("noti_part_failures_total", {"part": "source"})
    return value or 0.0


@promises.NATS_MAY_BE_DOWN
async def test_unreachable_source_is_retried_with_backoff_and_logged(
    autojump_clock: MockClock,
) -> None:
    """Each attempt is counted; one line tells the outage."""
    stage = Stage()
    stage.stream.stop()
    failed = source_failures()
    with structlog.testing.capture_logs() as logs:
        async with stage.running():
            await trio.sleep(600)
            # At 2.5 to 5 s each, and the short ones at the beginning.
            assert 120 <= source_failures() - failed <= 250
            status = stage.bridge.status()
            assert (status["state"], status["error"]) == ("waiting", "the connection broke")
            stage.stream.start()
            stage.publish(2)
            await stage.until_shown(2)
            assert stage.bridge.status()["error"] is None
    told = [line["error"] for line in logs if line["event"] == "reading stopped"]
    assert told == ["the connection broke"]


@promises.NATS_CLIENT_ENDS_NO_NODE
@pytest.mark.parametrize("at", ["open", "begin", "fetch", "ack", "dead_letter", "close"])
async def test_error_that_nobody_foresaw_is_logged_and_survived_wherever_it_comes(
    at: str, autojump_clock: MockClock
) -> None:
    stage = Stage(messages_max=2)
    stage.stream.publish("jobs.noti.x", b"\xff garbage")

    def stumble(where: str) -> None:
        if where == at:
            raise AssertionError(f"planted in {at}")

    stage.source.stumbles = stumble
    with structlog.testing.capture_logs() as logs:
        async with stage.running():
            stage.publish(1)
            if at == "close":  # it comes with the end of a session
                await stage.until_shown(1)
                stage.log.set_leader(False)
                await trio.sleep(0.01)
                stage.log.set_leader(True)
            await stage.until(lambda: stage.bridge.status()["state"] == "failed")
            assert stage.bridge.status()["error"] == f"AssertionError: planted in {at}"
            assert shown_state() == "failed"
            await trio.sleep(60)
            stage.source.stumbles = lambda where: None
            stage.publish(20)
            await stage.until(lambda: stage.stream.unacknowledged == [])
            await stage.until(lambda: stage.bridge.status()["state"] == "reading")
            assert stage.bridge.status()["error"] is None
    assert stage.numbers == list(range(1, 22))
    told = [line for line in logs if line["event"] == "optional part failed"]
    assert [str(line["exc_info"]) for line in told] == [f"planted in {at}"]


def labels(state: State) -> dict[str, str]:
    return {"stream": "jobs", "state": state}


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(f"noti_source_{name}", {"stream": "jobs"})


def shown_state() -> str:
    """What the metric says; exactly one state is 1."""
    values = {one: REGISTRY.get_sample_value("noti_source_state", labels(one)) for one in STATES}
    assert sorted(filter(None, values.values())) == [1.0]
    return next(one for one, value in values.items() if value)


async def test_lag_is_shown_without_asking_the_source(autojump_clock: MockClock) -> None:
    stage = Stage(messages_max=2)
    stage.log.commit_s = 1000
    stage.publish(10)
    async with stage.running():
        await stage.until(lambda: stage.log.proposing == 1)
        await trio.sleep(0.01)
        status = stage.bridge.status()
        assert (status["pending"], status["unacknowledged"]) == (6, 4)
        assert gauge("pending") == 6
        assert gauge("unacknowledged") == 4
        oldest_s = gauge("oldest_unacknowledged_seconds")
        assert oldest_s is not None
        assert oldest_s >= 0
        stage.log.set_leader(False)
        await trio.sleep(0.01)
        assert gauge("pending") == 0
        assert shown_state() == "standby"


async def test_since_is_when_the_trouble_began_and_not_the_last_attempt(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MachineClock()
    monkeypatch.setattr(TrioClock, "wall_ms", lambda _self: clock.wall_ms())
    stage = Stage()
    async with stage.running():
        await stage.until(lambda: stage.bridge.status()["state"] == "reading")
        began = stage.bridge.status()["since"]
        await trio.sleep(100)
        assert stage.bridge.status()["since"] == began
        stage.stream.stop()
        await trio.sleep(100)
        in_trouble = stage.bridge.status()["since"]
        assert in_trouble != began
        await trio.sleep(100)
        assert stage.bridge.status()["since"] == in_trouble


async def test_outage_while_reading_shows_nothing_twice(autojump_clock: MockClock) -> None:
    stage = Stage(messages_max=2)
    stage.publish(20)
    async with stage.running():
        await stage.until_shown(5)
        stage.stream.stop()
        await trio.sleep(3)
        stage.stream.start()
        stage.publish(5)
        await stage.until(lambda: stage.stream.unacknowledged == [])
    assert stage.numbers == list(range(1, 26))


async def test_stream_made_again_is_read_from_its_start(autojump_clock: MockClock) -> None:
    stage = Stage()
    stage.publish(3)
    async with stage.running():
        await stage.until_shown(3)
        stage.stream.recreate()
        stage.publish(2)
        await stage.until_shown(5)
        assert stage.bridge.status()["stream"] == "memory@2"
    assert stage.numbers == [1, 2, 3, 4, 5]


async def test_thief_of_messages_costs_nothing(autojump_clock: MockClock) -> None:
    stage = Stage(messages_max=5)
    async with stage.running():
        for _ in range(10):
            stage.publish(10)
            async with MemorySource(stage.stream).open() as thief:
                await thief.begin(0)
                # Which of the two notices first is up to the scheduler.
                with suppress(SourceUnavailable):
                    await thief.fetch(3, 0.1)
                await trio.sleep(0.2)
        await stage.until(lambda: stage.stream.unacknowledged == [])
    assert stage.numbers == list(range(1, 101))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(25))
async def test_every_event_is_shown_once_in_order_whatever_fails(
    seed: int, autojump_clock: MockClock
) -> None:
    rng = random.Random(seed)
    acknowledges = rng.random() < 0.5
    stage = Stage(rng=rng, messages_max=rng.choice([1, 3, 50]), acknowledges=acknowledges)
    stage.log.refuse, stage.log.uncertain = rng.random() * 0.4, rng.random() * 0.4
    stage.log.commit_s = rng.choice([0.001, 0.05, 0.5])
    async with stage.running():
        for _ in range(40):
            stage.publish(rng.randrange(6))
            await trio.sleep(rng.random() * 0.3)
            match rng.randrange(6):
                case 0:
                    stage.log.set_leader(not stage.log.is_ready_leader())
                case 1:
                    stage.stream.stop()
                case 2:
                    stage.stream.start()
                case 3:
                    stage.stream.publish("jobs.noti.x", b"\xff")
                case _:
                    pass
        stage.stream.start()
        stage.log.set_leader(True)
        await stage.until(lambda: len(stage.log.shown) >= stage.published)
        if acknowledges:
            await stage.until(lambda: stage.stream.unacknowledged == [])
        else:
            await stage.until(lambda: stage.log.store.floor("memory@1") == stage.stream.last_seq)
    assert stage.numbers == list(range(1, stage.published + 1))
    assert stage.published > 40


async def test_event_is_proposed_while_the_one_before_is_acknowledged(
    autojump_clock: MockClock,
) -> None:
    """An acknowledgement takes a round trip, for which nobody has to wait."""
    stage = Stage(messages_max=1)
    stage.source.acks_in_s = 100
    async with stage.running():
        stage.publish(1)
        await stage.until_shown(1)
        stage.publish(1)
        await stage.until_shown(2)
        assert stage.stream.unacknowledged == [1, 2]


@promises.BAD_PAYLOAD_BLOCKS_NOTHING
async def test_dead_letter_is_away_before_anything_above_it_is_committed(
    autojump_clock: MockClock,
) -> None:
    stage = Stage()
    shown_before: list[int] = []
    stage.source.stumbles = lambda at: (
        shown_before.append(len(stage.log.shown)) if at == "dead_letter" else None
    )
    stage.stream.publish("jobs.noti.x", b"\xff")
    stage.publish(2)
    async with stage.running():
        await stage.until_shown(2)
    assert shown_before
    assert set(shown_before) == {0}


async def test_floor_passes_a_dead_letter_at_the_end_where_nothing_is_acknowledged(
    autojump_clock: MockClock,
) -> None:
    """Otherwise each new leader would read it again."""
    stage = Stage(acknowledges=False)
    stage.publish(2)
    stage.stream.publish("jobs.noti.x", b"\xff")
    async with stage.running():
        await stage.until(lambda: stage.log.store.floor("memory@1") == 3)
        stage.log.set_leader(False)
        await trio.sleep(1)
        stage.log.set_leader(True)
        stage.publish(1)
        await stage.until_shown(3)
        assert stage.bridge.status()["dead_letters"] == 1
    assert stage.log.proposals == 3


async def test_stream_without_acknowledgements_is_read_on_from_the_floor(
    autojump_clock: MockClock,
) -> None:
    stage = Stage(acknowledges=False, messages_max=2)
    stage.log.refuse, stage.log.uncertain = 0.3, 0.3
    async with stage.running():
        for _ in range(20):
            stage.publish(3)
            await trio.sleep(0.05)
            stage.log.set_leader(not stage.log.is_ready_leader())
        stage.log.set_leader(True)
        await stage.until_shown(60)
        await trio.sleep(10)
    assert stage.numbers == list(range(1, 61))
