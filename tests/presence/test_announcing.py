"""The streams of a node in the replicated table, whatever becomes of leaders and lives."""

import json
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from noti.errors import Overloaded, ProposalUncertain
from noti.history import subscriptions
from noti.history.commands import encode
from noti.history.selectors import ALL_TOPICS, SelectorKind
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.history.subscription_commands import EndNode, SubscriptionBatch
from noti.presence.announcing import LOOK_EVERY_S, Announcing
from noti.presence.commits import Commits
from noti.streams.feed import Audience, View
from noti.streams.open_streams import Reader
from noti.trio_clock import TrioClock
from tests import promises
from tests.presence.memory_log import MemoryLog

NEWS = (ActiveSubscription(SelectorKind.EXACT, "news"),)
BOOKS = (ActiveSubscription(SelectorKind.EXACT, "books"),)


_ids = random.Random(7)


def reader(subscriptions: tuple[ActiveSubscription, ...]) -> Reader:
    id_ = uuid.UUID(int=_ids.getrandbits(128), version=4).urn
    audience = Audience(View.MERCURE, frozenset({ALL_TOPICS}))
    return Reader(audience, 0, "", subscriber=Subscriber(id_, 0, subscriptions))


def announcing_to(
    log: MemoryLog, seed: int = 1, holder: str = "n1", workers: int = 0
) -> Announcing:
    rng, clock = random.Random(seed), TrioClock()
    commits, table = Commits(log, clock, rng), log.store.subscriptions
    return Announcing(holder, table, commits, clock, lambda: f"{rng.random()}", workers=workers)


@asynccontextmanager
async def running(log: MemoryLog, announcing: Announcing) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        await nursery.start(announcing.run)
        await settle()
        yield
        nursery.cancel_scope.cancel()


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


def in_table(log: MemoryLog) -> list[str]:
    return sorted(
        one.text for subscriber in log.store.subscriptions.subscribers()
        for one in subscriber.subscriptions
    )  # fmt: skip


def told(log: MemoryLog) -> list[tuple[str, bool]]:
    documents = [json.loads(notification.data) for notification in log.shown]
    return [(one["topic"], one["active"]) for one in documents]


async def test_stream_is_in_the_table_for_as_long_as_it_is_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    announcing = announcing_to(log)
    async with running(log, announcing):
        announcing.opened(1, reader(NEWS))
        await settle()
        assert in_table(log) == ["news"]
        announcing.closed(1)
        await settle()
        assert in_table(log) == []
    assert told(log) == [("news", True), ("news", False)]


async def test_what_comes_while_a_batch_is_committing_is_the_next_batch(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    announcing = announcing_to(log)
    async with running(log, announcing):
        log.holds = True
        announcing.opened(0, reader(NEWS))
        await settle()
        for number in range(1, 101):
            announcing.opened(number, reader(NEWS))
        await settle()
        assert len(log.held) == 1
        log.commit_held()
        await settle()
        log.commit_held()
        await settle()
        assert len(in_table(log)) == 101
        assert not log.held


async def test_stream_that_closes_while_its_opening_is_committing_yields_both(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    announcing = announcing_to(log)
    async with running(log, announcing):
        log.holds = True
        announcing.opened(1, reader(NEWS))
        await settle()
        announcing.closed(1)
        log.commit_held()
        await settle()
        log.commit_held()
        await settle()
    assert told(log) == [("news", True), ("news", False)]


@pytest.mark.parametrize("done", [False, True])
async def test_nothing_is_lost_or_told_twice_when_an_answer_is_lost(
    done: bool, autojump_clock: trio.testing.MockClock
) -> None:
    log = MemoryLog()
    announcing = announcing_to(log)
    async with running(log, announcing):
        log.troubles += [(done, ProposalUncertain("lost")), (False, Overloaded("full"))]
        announcing.opened(1, reader(NEWS))
        await trio.sleep(5)
        announcing.closed(1)
        await trio.sleep(5)
    assert told(log) == [("news", True), ("news", False)]


async def test_streams_wait_for_a_leader(autojump_clock: trio.testing.MockClock) -> None:
    log = MemoryLog()
    log.leader = False
    announcing = announcing_to(log)
    async with running(log, announcing):
        announcing.opened(1, reader(NEWS))
        await trio.sleep(60)
        assert in_table(log) == []
        log.elect()
        await settle()
        assert in_table(log) == ["news"]


@promises.SUBSCRIPTIONS_KNOWN
async def test_restart_leaves_no_ghosts(autojump_clock: trio.testing.MockClock) -> None:
    log = MemoryLog()
    killed = announcing_to(log)
    async with running(log, killed):
        for number in range(3 * subscriptions.ENDED_AT_ONCE):
            killed.opened(number, reader(NEWS))
        await trio.sleep(1)
        assert len(in_table(log)) == 3 * subscriptions.ENDED_AT_ONCE
    async with running(log, announcing_to(log, seed=2)):
        await trio.sleep(1)
        assert in_table(log) == []


@promises.SUBSCRIPTIONS_KNOWN
async def test_what_workers_have_announced_that_a_node_has_no_more_is_ended(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    for number in (1, 2, 3):
        worker = announcing_to(log, number, f"n1/{number}")
        async with running(log, worker):
            worker.opened(number, reader(NEWS))
            await settle()
    async with running(log, announcing_to(log, 4, workers=1)):
        assert in_table(log) == ["news"]
        assert set(log.store.subscriptions.lives()) == {"n1", "n1/1"}
    async with running(log, announcing_to(log, 5)):
        assert set(log.store.subscriptions.lives()) == {"n1"}


async def test_node_that_was_taken_for_dead_announces_what_is_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    announcing = announcing_to(log)
    async with running(log, announcing):
        announcing.opened(1, reader(NEWS))
        announcing.opened(2, reader(BOOKS))
        await settle()
        life = log.store.subscriptions.lives()["n1"]
        log.apply(encode(EndNode("n1", life, 5)))
        assert in_table(log) == []
        announcing.closed(2)
        await trio.sleep(2 * LOOK_EVERY_S)
        assert in_table(log) == ["news"]
    assert told(log)[:4] == [("news", True), ("books", True), ("news", False), ("books", False)]
    assert told(log)[4:] == [("news", True)]


async def test_late_batch_of_an_earlier_life_does_not_stay(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It comes from a leader that was paused, between two lives."""
    log = MemoryLog()
    log.apply(encode(SubscriptionBatch("n1", "earlier", 1, 5, (), ())))
    announcing = announcing_to(log)
    async with running(log, announcing):
        announcing.opened(1, reader(NEWS))
        await settle()
        life = log.store.subscriptions.lives()["n1"]
        log.apply(encode(EndNode("n1", life, 5)))
        log.apply(encode(SubscriptionBatch("n1", "earlier", 1, 5, (), ())))
        await trio.sleep(2 * LOOK_EVERY_S)
        assert in_table(log) == ["news"]
        assert log.store.subscriptions.lives()["n1"] not in ("earlier", life)


async def test_who_does_not_fit_into_the_table_is_counted(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noti.presence.announcing import ANNOUNCED, DROPPED

    monkeypatch.setattr(subscriptions, "SUBSCRIPTIONS_MAX", 1)
    before = ANNOUNCED._value.get(), DROPPED._value.get()
    log = MemoryLog()
    announcing = announcing_to(log)
    async with running(log, announcing):
        announcing.opened(1, reader(NEWS))
        announcing.opened(2, reader(BOOKS + NEWS))
        await settle()
    assert (ANNOUNCED._value.get() - before[0], DROPPED._value.get() - before[1]) == (1, 2)


async def test_stream_of_which_nobody_is_told_is_passed_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    announcing = announcing_to(log)
    async with running(log, announcing):
        announcing.opened(1, replace(reader(NEWS), subscriber=None))
        await settle()
        announcing.closed(1)
        await settle()
    assert log.shown == []
