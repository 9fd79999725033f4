"""Events of publishers, from any way in to the leader."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from noti.completion import OnDone
from noti.errors import (
    IdempotencyKeyReused,
    MessageInvalid,
    NotiError,
    NotLeader,
    Overloaded,
    ProposalUncertain,
    Unavailable,
)
from noti.history.commands import Publish, decode
from noti.history.store import Store
from noti.history.topics import TOPIC_BYTES_MAX
from noti.publishing.events import EVENT_BYTES_MAX, ID_CHARACTERS_MAX, TOPICS_MAX
from noti.publishing.ports import Draft, Outcome
from noti.publishing.publisher import Publisher, PublishLimits
from noti.tracing.ports import Step, Tracer
from noti.tracing.refusals import Refusals
from noti.tracing.taking import TakenTraces
from noti.trio_clock import TrioClock
from tests import promises
from tests.tracing.recorder import RecordingTracer


class Submitted:
    def __init__(self, ids: list[str], on_done: OnDone[int]) -> None:
        self.ids = ids
        self._on_done = on_done

    def end(self, failure: NotiError | None = None) -> None:
        self._on_done(7 if failure is None else failure)


class FakeLeader:
    """Takes commands, and answers when the test says so."""

    def __init__(self) -> None:
        self.known = True
        self.submitted: list[Submitted] = []
        self.store = Store()
        self.refusals = Refusals(lambda: 0)
        self._news = trio.Event()

    def submit(self, command: bytes, on_done: OnDone[int]) -> None:
        if not self.known:
            on_done(NotLeader(None))
            return
        publish = decode(command)
        self.store.apply(command)
        assert isinstance(publish, Publish)
        self.submitted.append(Submitted([event.id for event in publish.events], on_done))

    async def wait_news(self) -> None:
        await self._news.wait()

    def elect(self) -> None:
        self.known = True
        self._news.set()
        self._news = trio.Event()


def draft(event_id: str | None = None, data: str = "data") -> Draft:
    return Draft(("topic",), data, event_id)


@asynccontextmanager
async def running(
    limits: PublishLimits | None = None, tracer: Tracer | None = None
) -> AsyncIterator[tuple[FakeLeader, Publisher]]:
    leader = FakeLeader()
    limits = limits or PublishLimits()
    publisher = Publisher(
        leader,
        TrioClock(),
        random.Random(1),
        limits,
        id_of=leader.store.id_of,
        traces=TakenTraces(tracer, refusals=leader.refusals),
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(publisher.run)
        yield leader, publisher
        nursery.cancel_scope.cancel()


async def test_lonely_submission_leaves_at_once(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        publisher.submit([draft("a"), draft("b")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        assert leader.submitted[0].ids == ["a", "b"]
        assert outcomes == []
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [("a", "b")]


async def test_why_an_id_was_refused_is_noted(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (leader, publisher):
        publisher.submit([draft("wrong", "a\udfff"), draft()], lambda _: None)
        publisher.submit([draft("late")], lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[0].end(Overloaded("full"))
        wrong, late = leader.refusals.of("wrong"), leader.refusals.of("late")
    assert wrong is not None
    assert "half a surrogate pair" in wrong.reason
    assert late is not None
    assert late.reason == "full"


async def test_spans_end_with_the_answer_and_say_why_there_was_none(
    autojump_clock: trio.testing.MockClock,
) -> None:
    tracer, outcomes = RecordingTracer(wanted={"a", "b", "c"}), list[Outcome]()
    async with running(tracer=tracer) as (leader, publisher):
        publisher.submit([draft("a"), draft("not traced")], outcomes.append)
        publisher.submit([draft("b")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        assert [span.problem for span in tracer.spans] == [None] * 3
        [commit] = tracer.of(Step.COMMIT)
        assert commit.parents == [span.trace for span in tracer.of(Step.RECEIVE)]
        leader.submitted[0].end()
        assert [span.problem for span in tracer.spans] == [""] * 3
        assert commit.attributes["noti.log_index"] == 7
        publisher.submit([draft("c")], outcomes.append, at_once=True)
        leader.submitted[1].end(Overloaded("full"))
    assert [span.problem for span in tracer.spans[3:]] == ["Overloaded"] * 2


async def test_submissions_of_one_turn_share_a_command_in_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        for number in range(3):
            publisher.submit([draft(str(number))], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted] == [["0", "1", "2"]]
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [("0",), ("1",), ("2",)]


async def test_what_waited_for_a_leader_begins_in_the_order_in_which_it_came(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for _ in range(10):  # the scheduler shuffles who is woken first
        async with running() as (leader, publisher):
            leader.known = False
            publisher.submit([draft("a")], lambda _: None, at_once=True)
            publisher.submit([draft("b"), draft("c")], lambda _: None)
            await trio.testing.wait_all_tasks_blocked()
            leader.elect()
            await trio.testing.wait_all_tasks_blocked()
            assert [result.ids for result in leader.submitted] == [["a"], ["b", "c"]]


async def test_no_leader_is_told_in_time_also_by_who_answers_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """As the node of a web worker does: nothing is submitted again and again without end."""
    limits, outcomes = PublishLimits(), list[Outcome]()
    async with running(limits) as (leader, publisher):
        publisher.submit([draft("a")], outcomes.append)
        with trio.move_on_after(limits.leader_wait_s + 1):
            while not outcomes:
                await trio.sleep(0.1)
                for begun in leader.submitted:
                    begun.end(NotLeader(None))
                leader.submitted.clear()
    [outcome] = outcomes
    assert isinstance(outcome, Unavailable)
    assert "no leader" in str(outcome)


async def test_nothing_overtakes_what_waits_for_a_leader_that_is_there_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        leader.known = False
        publisher.submit([draft("a")], lambda _: None, at_once=True)
        leader.known = True  # and nobody was told yet
        publisher.submit([draft("b"), draft("c")], lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted] == [["a"], ["b", "c"]]


async def test_refused_by_a_leader_that_is_none_it_is_begun_before_what_came_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    for _ in range(10):
        async with running() as (leader, publisher):
            publisher.submit([draft("a")], lambda _: None, at_once=True)
            publisher.submit([draft("b"), draft("c")], lambda _: None)
            await trio.testing.wait_all_tasks_blocked()
            leader.known = False
            for begun in list(leader.submitted):
                begun.end(NotLeader(None))
            await trio.testing.wait_all_tasks_blocked()
            leader.elect()
            await trio.testing.wait_all_tasks_blocked()
            assert [result.ids for result in leader.submitted[2:]] == [["a"], ["b", "c"]]


async def test_submission_that_comes_alone_leaves_in_the_very_call(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        publisher.submit([draft("a")], lambda _: None, at_once=True)
        assert [result.ids for result in leader.submitted] == [["a"]]
        publisher.submit([draft("b")], lambda _: None, at_once=True)
        publisher.submit([draft("c")], lambda _: None, at_once=True)
        await trio.testing.wait_all_tasks_blocked()
        # While a command is under way, who comes in one turn shares the next.
        assert [result.ids for result in leader.submitted] == [["a"], ["b", "c"]]


async def test_what_waits_too_long_for_its_turn_is_refused_and_never_sent(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """So that no publisher gives up in doubt about what nobody has."""
    async with running(PublishLimits(commands_under_way_max=1)) as (leader, publisher):
        outcomes: list[Outcome] = []
        publisher.submit([draft("a")], lambda _: None)
        await trio.sleep(1)
        publisher.submit([draft("b")], outcomes.append)
        await trio.sleep(4.9)
        publisher.submit([draft("c")], outcomes.append)
        assert outcomes == []
        await trio.sleep(0.2)
        assert [type(outcome) for outcome in outcomes] == [Overloaded]
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted] == [["a"], ["c"]]


async def test_next_command_leaves_in_the_turn_in_which_the_last_one_ends(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(PublishLimits(commands_under_way_max=1)) as (leader, publisher):
        publisher.submit([draft("a")], lambda _: None, at_once=True)
        publisher.submit([draft("b")], lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[0].end()
        assert [result.ids for result in leader.submitted] == [["a"], ["b"]]


async def test_second_command_leaves_once_it_is_as_large_as_the_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(PublishLimits(commands_under_way_max=2)) as (leader, publisher):
        outcomes: list[Outcome] = []

        async def submit(*ids: str) -> None:
            publisher.submit([draft(one) for one in ids], outcomes.append)
            await trio.testing.wait_all_tasks_blocked()

        await submit("a", "b")
        await submit("c")
        assert [result.ids for result in leader.submitted] == [["a", "b"]]
        await submit("d")
        assert [result.ids for result in leader.submitted] == [["a", "b"], ["c", "d"]]
        for one in ("e", "f", "g", "h"):
            await submit(one)
        assert len(leader.submitted) == 2, "no more than the limit"
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert leader.submitted[2].ids == ["e", "f", "g", "h"]
        assert outcomes == [("a", "b")]


async def test_what_is_smaller_than_the_first_command_waits_for_its_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        publisher.submit([draft("a"), draft("b")], lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        publisher.submit([draft("c")], lambda _: None)
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted] == [["a", "b"], ["c"]]


async def test_command_is_closed_when_it_is_large(autojump_clock: trio.testing.MockClock) -> None:
    limits = PublishLimits(command_events_max=3, command_bytes_max=2000, commands_under_way_max=4)
    async with running(limits) as (leader, publisher):
        outcomes: list[Outcome] = []
        for number in range(9):
            data = "x" * 800 if number >= 6 else "data"
            publisher.submit([draft(str(number), data)], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted] == [["0", "1", "2"], ["3", "4", "5"]]
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted[2:]] == [["6", "7"]]
        leader.submitted[1].end()
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[2].end()
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted[3:]] == [["8"]]


async def test_event_without_an_id_gets_one(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        publisher.submit([draft(), draft()], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        ids = leader.submitted[0].ids
        assert len(set(ids)) == 2
        assert all(one.startswith("urn:uuid:") for one in ids)


@promises.UNREADABLE_NOT_LET_IN
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Draft((), "x"), "without a topic"),
        (Draft(("t",) * (TOPICS_MAX + 1), "x"), "topics"),
        (Draft(("",), "x"), "topic is empty"),
        (Draft(("t", "*"), "x"), "no topic"),
        (Draft(("a\nb",), "x"), "control character"),
        (Draft(("a\x00",), "x"), "control character"),
        (Draft(("a\x7f",), "x"), "control character"),
        (Draft(("a\ud800",), "x"), "no Unicode text"),
        (Draft(("/.well-known/mercure/subscriptions",), "x"), "reserved"),
        (Draft(("t",), "a\udfff"), "no Unicode text"),
        (Draft(("t",), "\n" * (EVENT_BYTES_MAX // 7 + 1)), "before each of its 149798 lines"),
        (Draft(("ü" * (TOPIC_BYTES_MAX // 2 + 1),), "x"), "longer than"),
        (Draft(("t",), "ü" * (EVENT_BYTES_MAX // 2 + 1)), "bytes"),
        (Draft(("t",), "x", "a" * (ID_CHARACTERS_MAX + 1)), "256 are allowed"),
        (Draft(("t",), "x", "two\nlines"), "control character"),
        (Draft(("t",), "x", type="mercure"), "the hub's own"),
        (Draft(("t",), "x", retry_ms=-1), "time to retry"),
        (Draft(("t",), "x", idempotency_key="a\x00"), "idempotency key has a control character"),
        (Draft(("t",), "x", "earliest"), "cannot be an event's id"),
    ],
)
async def test_draft_that_cannot_be_an_event_is_refused_whole_and_reported(
    bad: Draft, reason: str
) -> None:
    async with running() as (leader, publisher):
        with pytest.raises(MessageInvalid, match=reason) as caught:
            await publisher.publish([draft("good"), bad])
        assert "\n" not in str(caught.value)
        assert leader.submitted == []


async def test_batch_without_events_or_with_too_many_is_refused() -> None:
    limits = PublishLimits(submission_events_max=2, submission_bytes_max=1000)
    async with running(limits) as (leader, publisher):
        for drafts in ([], [draft()] * 3, [draft(data="x" * 500)] * 2):
            with pytest.raises(MessageInvalid, match="a batch of"):
                await publisher.publish(drafts)
        assert leader.submitted == []


async def test_full_backlog_is_refused_until_something_is_committed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running(PublishLimits(waiting_events_max=2)) as (leader, publisher):
        outcomes: list[Outcome] = []
        publisher.submit([draft("a")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        publisher.submit([draft("b")], outcomes.append)
        with pytest.raises(Overloaded, match="retry later"):
            await publisher.publish([draft("c")])
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        publisher.submit([draft("d")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        assert [result.ids for result in leader.submitted] == [["a"], ["b"], ["d"]]


async def test_backlog_is_counted_in_bytes_too() -> None:
    async with running(PublishLimits(waiting_bytes_max=1000)) as (_, publisher):
        with pytest.raises(Overloaded):
            await publisher.publish([draft(data="x" * 1000)])


async def test_election_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        leader.known = False
        publisher.submit([draft("a")], outcomes.append)
        await trio.sleep(2)
        assert outcomes == []
        leader.elect()
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [("a",)]


async def test_cluster_without_a_leader_is_unavailable_in_the_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        leader.known = False
        with pytest.raises(Unavailable, match="no leader") as caught:
            await publisher.publish([draft()])
        assert not isinstance(caught.value, ProposalUncertain)


async def test_what_the_old_leader_did_not_take_is_given_to_the_new_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        publisher.submit([draft("a")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[0].end(NotLeader(None))
        await trio.testing.wait_all_tasks_blocked()
        leader.elect()
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[1].end()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes == [("a",)]


@pytest.mark.parametrize("failure", [ProposalUncertain("lost"), Overloaded("full")])
async def test_failure_is_reported_and_never_repeated(
    failure: NotiError, autojump_clock: trio.testing.MockClock
) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        publisher.submit([draft("a")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[0].end(failure)
        await trio.sleep(60)
        assert outcomes == [failure]
        assert len(leader.submitted) == 1


async def test_command_that_is_never_answered_is_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (_, publisher):
        with pytest.raises(ProposalUncertain):
            await publisher.publish([draft()])


async def test_command_that_followed_another_and_is_never_answered_is_uncertain(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It was begun in the middle of somebody else's turn."""
    async with running(PublishLimits(commands_under_way_max=1)) as (leader, publisher):
        outcomes: list[Outcome] = []
        publisher.submit([draft("a")], outcomes.append)
        publisher.submit([draft("b")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(3)
        publisher.submit([draft("c")], outcomes.append)
        leader.submitted[0].end()
        assert [type(outcome) for outcome in outcomes] == [tuple, tuple]
        await trio.sleep(9.9)
        assert len(outcomes) == 2
        await trio.sleep(0.2)
        assert [type(outcome) for outcome in outcomes[2:]] == [ProposalUncertain]


async def test_stopping_answers_everybody(autojump_clock: trio.testing.MockClock) -> None:
    outcomes: list[Outcome] = []
    async with running(PublishLimits(commands_under_way_max=1)) as (_, publisher):
        publisher.submit([draft("begun")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        publisher.submit([draft("waiting")], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
    assert {type(outcome) for outcome in outcomes} == {ProposalUncertain, Unavailable}
    publisher.submit([draft("late")], outcomes.append)
    assert type(outcomes[-1]) is Unavailable


async def test_submissions_in_any_turn_of_the_end_are_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Found by `just sim seed=2848162135 layer=nodes`: for one turn the publisher's nursery was
    closed, and the publisher did not know it yet."""
    leader = FakeLeader()
    leader.known = False
    publisher = Publisher(leader, TrioClock(), random.Random(1), id_of=leader.store.id_of)
    outcomes: list[Outcome] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(publisher.run)
        nursery.cancel_scope.cancel()
        with trio.CancelScope(shield=True):
            for _ in range(10):
                publisher.submit([draft()], outcomes.append, at_once=True)
                await trio.lowlevel.checkpoint()
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 10


@promises.PUBLISHER_GETS_ONE_ANSWER
async def test_retry_with_a_known_key_is_answered_with_the_first_id(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        keyed = draft()._replace(idempotency_key="key")
        for one in (keyed, keyed, keyed._replace(id="other id"), keyed._replace(data="other")):
            publisher.submit([one], outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        first = leader.submitted[0].ids[0]
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        assert outcomes[:2] == [(first,), (first,)]
        for outcome in outcomes[2:]:
            assert isinstance(outcome, IdempotencyKeyReused)
            assert outcome.ids == (None,)
            assert str(outcome).endswith("give every event its own")


async def test_submission_with_a_reused_key_says_which_events_were_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with running() as (leader, publisher):
        outcomes: list[Outcome] = []
        one = draft("a")._replace(idempotency_key="key")
        drafts = [one, draft("b"), one._replace(data="other"), draft("c")]
        publisher.submit(drafts, outcomes.append)
        await trio.testing.wait_all_tasks_blocked()
        leader.submitted[0].end()
        await trio.testing.wait_all_tasks_blocked()
        [outcome] = outcomes
        assert isinstance(outcome, IdempotencyKeyReused)
        assert outcome.ids == ("a", "b", None, "c")
        assert str(outcome).endswith("dropped of 4: number 3; committed: 3")
