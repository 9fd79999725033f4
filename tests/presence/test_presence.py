"""What requests need of presence."""

import random
import uuid

import trio
import trio.testing

from noti.history.commands import encode
from noti.history.selectors import exact_matcher, topic_selector
from noti.history.subscriber import Subscriber
from noti.history.subscription_commands import SubscriptionBatch
from noti.presence.commits import Commits
from noti.presence.presence import Presence
from noti.trio_clock import TrioClock
from tests.presence.memory_log import MemoryLog


def presence_of(log: MemoryLog) -> Presence:
    clock, rng = TrioClock(), random.Random(1)
    commits = Commits(log, clock, rng)
    return Presence(log.store.subscriptions, commits, clock, lambda: f"{rng.getrandbits(64):016x}")


def subscriber(presence: Presence, *topics: str) -> Subscriber:
    selectors = frozenset(topic_selector(topic) for topic in topics)
    return presence.new_subscriber(0, selectors, {"b": '{"a":1}'}.get)


def test_subscribers_have_ids_of_their_own_that_are_random_uuids() -> None:
    presence = presence_of(MemoryLog())
    ids = {subscriber(presence, "a").id for _ in range(100)}
    assert len(ids) == 100
    assert {uuid.UUID(id_).version for id_ in ids} == {4}


def test_subscriptions_are_in_the_order_of_their_texts_with_their_payloads() -> None:
    one = subscriber(presence_of(MemoryLog()), "c", "b", "a")
    assert [(s.text, s.payload) for s in one.subscriptions] == [
        ("a", ""),
        ("b", '{"a":1}'),
        ("c", ""),
    ]


def test_dialect_is_kept() -> None:
    presence = presence_of(MemoryLog())
    assert presence.new_subscriber(1, {exact_matcher("a")}, lambda _: None).version == 1


async def test_subscriber_is_ended_wherever_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    log = MemoryLog()
    presence = presence_of(log)
    one = subscriber(presence, "a")
    log.apply(encode(SubscriptionBatch("elsewhere", "life", 1, 5, (one,), ())))
    await presence.end(one.id)
    assert one.id not in presence.table
    assert log.store.subscriptions.take_disconnected() == [one.id]
