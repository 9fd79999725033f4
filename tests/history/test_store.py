"""The replicated state machine: numbering, dropping what comes again, forgetting, snapshots."""

import os
import subprocess
import sys
from collections.abc import Sequence

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import CommandUnknown, MessageInvalid
from noti.history.commands import Publish, PublishBatch, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.history.notification import Event, Notification
from noti.history.selectors import SelectorKind
from noti.history.store import HISTORY_SIZE_DEFAULT, STREAMS_MAX, Store
from noti.history.subscriber import ActiveSubscription, Subscriber
from noti.history.subscription_commands import EndNode, EndSubscriber, SubscriptionBatch
from tests import promises


def event(source_seq: int) -> Event:
    return Event(source_seq, f"id-{source_seq}", ("jobs.noti.x",), f"data {source_seq}", source_seq)


def batch(*source_seqs: int, stream: str = "s") -> bytes:
    return encode(PublishBatch(stream, tuple(event(seq) for seq in source_seqs)))


def published(*ids: str) -> bytes:
    return encode(Publish(tuple(Event(0, one, ("t",), f"data of {one}", 1) for one in ids)))


def replay(commands: Sequence[bytes]) -> Store:
    store = Store()
    for command in commands:
        store.apply(command)
    return store


seqs = st.lists(st.integers(1, 30), min_size=1, max_size=6).map(lambda s: tuple(sorted(set(s))))
commands = st.lists(
    st.one_of(
        st.builds(lambda s, stream: batch(*s, stream=stream), seqs, st.sampled_from("abc")),
        st.builds(lambda size: encode(SetLimits(HistoryLimits(size))), st.integers(1, 10)),
        st.builds(lambda ids: published(*ids), st.lists(st.sampled_from(["a", "b", "id-3"]))),
    ),
    max_size=12,
)


@given(commands, st.data())
def test_snapshot_then_replay_equals_replay(sequence: list[bytes], data: st.DataObject) -> None:
    split = data.draw(st.integers(0, len(sequence)))
    restored = Store()
    restored.apply(batch(999, stream="to be replaced"))
    restored.restore(Store.decode(replay(sequence[:split]).snapshot()))
    for command in sequence[split:]:
        restored.apply(command)
    expected = replay(sequence)
    assert restored.digest() == expected.digest()
    assert restored.snapshot() == expected.snapshot()
    assert restored.history() == expected.history()


@promises.NO_DUPLICATES
@given(st.integers(1, 60), st.data())
def test_redelivery_shows_every_event_once_and_in_order(count: int, data: st.DataObject) -> None:
    """A leader reads on in stream order, or a new one starts again at the floor or below."""
    store = Store()
    shown: list[str] = []
    position = 0
    while store.floor("s") < count:
        if data.draw(st.booleans()):
            position = data.draw(st.integers(0, store.floor("s")))
        size = data.draw(st.integers(1, 10))
        chunk = range(position + 1, min(position + size, count) + 1)
        shown += [n.id for n in store.apply(batch(*chunk))]
        position = max(position, chunk[-1] if chunk else position)
        if position == count:
            position = store.floor("s")
    assert shown == [f"id-{seq}" for seq in range(1, count + 1)]
    assert [n.seq for n in store.history()] == list(range(1, count + 1))


def test_notifications_are_numbered_from_one_without_gaps() -> None:
    store = Store()
    assert (store.first_seq, store.last_seq, store.history()) == (1, 0, ())
    assert [n.seq for n in store.apply(batch(5, 9))] == [1, 2]
    assert [n.seq for n in store.apply(batch(10))] == [3]
    assert (store.first_seq, store.last_seq) == (1, 3)
    assert store.history()[0].data == "data 5"


def test_streams_have_floors_of_their_own() -> None:
    store = replay([batch(5, stream="a"), batch(3, stream="b")])
    assert (store.floor("a"), store.floor("b"), store.floor("c")) == (5, 3, 0)
    assert store.apply(batch(5, stream="a")) == []
    assert [n.id for n in store.apply(batch(4, stream="b"))] == ["id-4"]


def test_history_keeps_the_newest_up_to_its_size() -> None:
    store = replay([batch(*range(1, HISTORY_SIZE_DEFAULT + 6))])
    assert (store.first_seq, store.last_seq) == (6, HISTORY_SIZE_DEFAULT + 5)
    assert len(store.history()) == HISTORY_SIZE_DEFAULT


def test_new_limit_evicts_at_once_and_keeps_numbers() -> None:
    store = replay([batch(1, 2, 3, 4), encode(SetLimits(HistoryLimits(2)))])
    assert [n.seq for n in store.history()] == [3, 4]
    assert store.history_size == 2
    assert [n.seq for n in store.apply(batch(5, 6, 7))] == [5, 6, 7]
    assert [n.seq for n in store.history()] == [6, 7]


@promises.PUBLISHER_GETS_ONE_ANSWER
def test_publishers_id_is_shown_once_while_history_holds_it() -> None:
    store = replay([encode(SetLimits(HistoryLimits(3)))])
    assert [n.id for n in store.apply(published("a", "b", "a"))] == ["a", "b"]
    assert store.apply(published("b", "a")) == []
    assert [(n.seq, n.id) for n in store.apply(published("c", "d", "a"))] == [(3, "c"), (4, "d")]
    assert [n.id for n in store.apply(published("a"))] == ["a"], "history has forgotten it by now"
    assert store.first_seq == 3


def test_id_that_a_stream_used_twice_is_remembered_until_both_are_gone() -> None:
    twice = PublishBatch("s", (Event(1, "a", ("t",), "", 0), Event(2, "a", ("t",), "", 0)))
    store = replay([encode(SetLimits(HistoryLimits(2))), encode(twice), published("b")])
    assert [n.id for n in store.history()] == ["a", "b"]
    assert store.apply(published("a")) == []
    store.apply(published("c"))
    assert [n.id for n in store.apply(published("a"))] == ["a"]


def test_restored_store_knows_the_ids_that_it_has() -> None:
    store = Store.decode(replay([published("a", "b")]).snapshot())
    assert [n.id for n in store.apply(published("a", "c", "b"))] == ["c"]


def test_least_recently_used_stream_is_forgotten() -> None:
    store = replay([batch(1, stream=f"s{i}") for i in range(STREAMS_MAX)])
    store.apply(batch(2, stream="s0"))
    store.apply(batch(1, stream="new"))
    assert store.floor("s0") == 2
    assert store.floor("s1") == 0
    assert store.floor("s2") == 1


def test_unknown_command_changes_nothing() -> None:
    store = replay([batch(1)])
    before = store.digest()
    with pytest.raises(CommandUnknown):
        store.apply(msgpack.packb([99]))
    with pytest.raises(MessageInvalid):
        store.apply(b"garbage")
    assert store.digest() == before


@given(st.binary(max_size=60))
def test_garbage_is_no_snapshot(garbage: bytes) -> None:
    with pytest.raises(MessageInvalid):
        Store.decode(garbage)


@pytest.mark.parametrize(
    "fields",
    [
        [3, 10, 0, [], []],
        [1, 0, 0, [], []],
        [1, 10, 0, [], [["id", ["t"], "d", 1]]],
        [1, 10, 1, [["s", 0]], []],
        [1, 10, 1, [["s", 1], "x"], []],
        [1, 10, 1, [], [["id", [], "d", 1]]],
        [1, 10, 1, [], [["id", ["t"], "d", "late"]]],
        [1, 10, 1, []],
        [1, 10, 100, [[f"s{i}", 1] for i in range(STREAMS_MAX + 1)], []],
    ],
)
def test_snapshot_with_wrong_fields_is_invalid(fields: object) -> None:
    with pytest.raises(MessageInvalid):
        Store.decode(msgpack.packb(fields))


@pytest.mark.slow
def test_digest_does_not_depend_on_the_hash_seed() -> None:
    program = (
        "from tests.history.test_store import batch, replay\n"
        "print(replay([batch(1, 2, stream=s) for s in 'hgfedcba']).digest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_what_a_publisher_says_of_an_event_is_kept_and_survives_a_snapshot() -> None:
    store = Store()
    whole = Event(0, "id", ("a", "b"), "data", 5, "chat", 3000, private=True)
    expected = (Notification(1, "id", ("a", "b"), "data", 5, "chat", 3000, private=True),)
    assert tuple(store.apply(encode(Publish((whole,), 9)))) == expected
    assert Store.decode(store.snapshot()).history() == expected


SUBSCRIBER = Subscriber(
    "urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d",
    0,
    (ActiveSubscription(SelectorKind.EXACT, "news"),),
)


def test_subscriptions_are_told_in_the_order_of_all_events() -> None:
    store = Store()
    store.apply(published("a"))
    [told] = store.apply(encode(SubscriptionBatch("n1", "life", 1, 5, (SUBSCRIBER,), ())))
    assert (told.seq, told.private, told.created_ms) == (2, True, 5)
    assert store.history()[-1] == told
    [ended] = store.apply(encode(EndNode("n1", "life", 6)))
    assert ended.seq == 3
    assert not store.apply(encode(EndSubscriber(SUBSCRIBER.id, 7)))


def test_restored_store_knows_who_is_subscribed_by_the_same_object() -> None:
    store, restored = Store(), Store()
    table = restored.subscriptions
    store.apply(encode(SubscriptionBatch("n1", "life", 1, 5, (SUBSCRIBER,), ())))
    restored.restore(Store.decode(store.snapshot()))
    assert restored.subscriptions is table
    assert table == store.subscriptions
    assert SUBSCRIBER.id in table
