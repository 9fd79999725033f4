"""The replicated state machine: numbering, dropping what comes again, forgetting, snapshots."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from io import BytesIO

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import CommandUnknown, LevelUnsupported, MessageInvalid
from noti.history.commands import (
    AdvanceFloor,
    Expire,
    Publish,
    PublishBatch,
    PublishBatchV1,
    PublishV1,
    SetHistorySize,
    SetLimits,
    encode,
)
from noti.history.levels import SUPPORTED, RaiseLevel
from noti.history.limits import COUNT_DEFAULT, NO_LIMIT, HistoryLimits
from noti.history.notification import Event, Notification
from noti.history.selectors import SelectorKind
from noti.history.snapshot import STREAMS_MAX
from noti.history.store import Store
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


SUBSCRIBER = Subscriber(
    "urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d",
    0,
    (ActiveSubscription(SelectorKind.EXACT, "news"),),
)

seqs = st.lists(st.integers(1, 30), min_size=1, max_size=6).map(lambda s: tuple(sorted(set(s))))
some_limits = st.builds(
    HistoryLimits,
    st.integers(1, 10),
    st.sampled_from([20, 100, NO_LIMIT]),
    st.integers(0, 5),
    st.integers(0, 2),
    st.integers(1, 3),
)
publications = st.builds(
    Event,
    st.just(0),
    st.sampled_from(["a", "b", "id-3"]),
    st.lists(st.sampled_from("tuvw"), min_size=1, max_size=2).map(tuple),
    st.sampled_from(["", "x", "y\ny"]),
    st.just(1),
    st.sampled_from(["", "chat"]),
    st.integers(0, 1),
    st.booleans(),
    st.sampled_from(["", "key 1", "key 2"]),
    st.sampled_from(["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
)
commands = st.lists(
    st.one_of(
        st.builds(lambda s, stream: batch(*s, stream=stream), seqs, st.sampled_from("abc")),
        st.builds(
            lambda events, ms: encode(Publish(tuple(events), ms)),
            st.lists(publications, max_size=6),
            st.integers(0, 9),
        ),
        st.builds(lambda limits: encode(SetLimits(limits)), some_limits),
        st.builds(lambda ms: encode(Expire(ms)), st.integers(0, 9)),
        st.builds(lambda seq: encode(AdvanceFloor("a", seq)), st.integers(1, 30)),
        st.just(encode(RaiseLevel(SUPPORTED))),
        st.builds(lambda size: encode(SetHistorySize(size)), st.integers(1, 10)),
        st.sampled_from(
            [
                encode(SubscriptionBatch("n1", "life", 1, 5, (SUBSCRIBER,), ())),
                encode(SubscriptionBatch("n1", "life", 2, 6, (), (SUBSCRIBER.id,))),
                encode(EndNode("n1", "life", 7)),
            ]
        ),
        st.builds(lambda s: encode(PublishBatchV1("a", tuple(map(event, s)))), seqs),
        st.builds(
            lambda ids: encode(PublishV1(tuple(Event(0, one, ("t",), one, 1) for one in ids))),
            st.lists(st.sampled_from(["a", "b", "id-3"])),
        ),
    ),
    max_size=12,
)


def test_events_are_found_by_their_ids_with_all_their_versions() -> None:
    store = Store()
    store.apply(encode(SetLimits(HistoryLimits(2, per_topic=1))))
    store.apply(published("a", "b"))
    other = Event(0, "a", ("u",), "another one", 1)
    store.apply(encode(Publish((other,), 7)))
    assert [kept.notification.seq for kept in store.with_id("a")] == [3]
    assert [kept.notification.seq for kept in store.with_id("b")] == [2]
    store.apply(encode(Publish((other._replace(data="a third"),), 8)))
    assert [(kept.notification.seq, kept.taken_ms) for kept in store.with_id("a")] == [
        (3, 7),
        (4, 8),
    ]
    assert [kept.notification.seq for kept in store.with_id("b")] == [2], "as its topic's last one"
    assert store.with_id("c") == []


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
    # What the last command had is of the moment, and not of the state.
    moment = {"_published": None}
    assert vars(restored) | moment == vars(expected) | moment
    for topics in (["t"], ["u", "v"], ["jobs.noti.x"], None):
        assert restored.lost_through(topics) == expected.lost_through(topics)


@given(commands)
def test_gone_is_what_history_has_lost_by_a_command(sequence: list[bytes]) -> None:
    store = Store()
    held: set[int] = set()
    for command in sequence:
        held |= {notification.seq for notification in store.apply(command)}
        held -= {*store.gone}
        assert held == {notification.seq for notification in store.history()}


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
    store = replay([batch(*range(1, COUNT_DEFAULT + 6))])
    assert (store.first_seq, store.last_seq) == (6, COUNT_DEFAULT + 5)
    assert len(store.history()) == COUNT_DEFAULT


def test_new_limit_evicts_at_once_and_keeps_numbers() -> None:
    store = replay([batch(1, 2, 3, 4), encode(SetLimits(HistoryLimits(2)))])
    assert [n.seq for n in store.history()] == [3, 4]
    assert store.limits.count == 2
    assert [n.seq for n in store.apply(batch(5, 6, 7))] == [5, 6, 7]
    assert [n.seq for n in store.history()] == [6, 7]


@promises.RETRY_SHOWN_ONCE
@promises.PUBLISHER_GETS_ONE_ANSWER
def test_retry_is_shown_once_while_history_holds_the_event() -> None:
    store = replay([encode(SetLimits(HistoryLimits(3)))])
    assert [n.id for n in store.apply(published("a", "b", "a"))] == ["a", "b"]
    assert store.apply(published("b", "a")) == []
    assert [(n.seq, n.id) for n in store.apply(published("c", "d", "a"))] == [(3, "c"), (4, "d")]
    assert [n.id for n in store.apply(published("a"))] == ["a"], "history has forgotten it by now"
    assert store.first_seq == 3


@promises.RETRY_SHOWN_ONCE
@promises.PUBLISHER_GETS_ONE_ANSWER
def test_same_id_with_other_content_is_news() -> None:
    versions = [Event(0, "book 1", ("books",), f"version {one}", 1) for one in (1, 2, 1, 3)]
    store = Store()
    assert [n.data for n in store.apply(encode(Publish(tuple(versions))))] == [
        "version 1",
        "version 2",
        "version 3",
    ]
    assert store.apply(encode(Publish(tuple(versions)))) == []
    elsewhere = versions[0]._replace(topics=("books", "films"))
    assert [n.seq for n in store.apply(encode(Publish((elsewhere,))))] == [4]


def test_stream_that_repeats_an_event_under_a_new_sequence_shows_it_once() -> None:
    store = replay([batch(1, 2)])
    again = event(1)._replace(source_seq=3)
    other = event(2)._replace(source_seq=4, data="other")
    shown = store.apply(encode(PublishBatch("s", (again, other))))
    assert [(n.id, n.data) for n in shown] == [("id-2", "other")]
    assert store.floor("s") == 4
    store.apply(encode(PublishBatch("s", (again._replace(source_seq=5),))))
    assert store.floor("s") == 5, "a stream goes on also where nothing was shown"


def test_command_of_version_0_2_drops_a_known_id_whatever_its_content() -> None:
    one, two = (Event(0, "a", ("t",), data, 1) for data in ("one", "two"))
    store = replay([encode(PublishV1((one,)))])
    assert store.apply(encode(PublishV1((two,)))) == []
    assert len(store.apply(encode(Publish((two,))))) == 1


def test_event_with_a_known_key_is_dropped_and_its_publisher_can_be_answered() -> None:
    first = Event(0, "a", ("t",), "one", 1, idempotency_key="key")
    retry, misuse = first._replace(id="b"), first._replace(id="c", data="two")
    store = Store()
    shown = store.apply(encode(Publish((first, retry, misuse))))
    assert [n.id for n in shown] == ["a"]
    store = Store.decode(store.snapshot())
    store.apply(encode(SetLimits(HistoryLimits(1))))
    store.apply(published("x", "y"))
    assert store.apply(encode(Publish((retry,)))) == [], "keys outlive history"
    assert [store.id_of(one) for one in (first, retry, misuse)] == ["a", "a", None]


def test_expiry_goes_by_the_time_at_which_a_node_took_events() -> None:
    store = replay([encode(Publish((event(1),), 10)), encode(PublishBatch("s", (event(2),), 20))])
    assert store.oldest_taken_ms == 10
    store.apply(encode(Expire(20)))
    assert [n.id for n in store.history()] == ["id-2"]
    assert store.gone == [1]
    assert len(store.apply(encode(Publish((event(1),), 30)))) == 1, "it is forgotten altogether"
    store.apply(encode(Expire(99)))
    assert store.oldest_taken_ms is None


def test_id_that_a_stream_used_twice_is_remembered_until_both_are_gone() -> None:
    """By commands of version 0.2, which did not compare what a stream brings with history."""
    one = Event(1, "a", ("t",), "data of a", 0)
    twice = PublishBatchV1("s", (one, one._replace(source_seq=2)))
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


def test_level_rises_once_and_is_in_snapshots_from_then_on() -> None:
    store = replay([batch(1)])
    assert store.level == 0
    assert msgpack.Unpacker(BytesIO(store.snapshot())).unpack()[0] == 2
    for _ in range(2):
        store.apply(encode(RaiseLevel(SUPPORTED)))
    assert Store.decode(store.snapshot()).level == store.level == SUPPORTED
    assert msgpack.Unpacker(BytesIO(store.snapshot())).unpack()[:2] == [3, SUPPORTED]


def test_level_beyond_what_is_supported_changes_nothing() -> None:
    store = replay([batch(1)])
    before = store.digest()
    with pytest.raises(LevelUnsupported, match="install the release that the other nodes run"):
        store.apply(encode(RaiseLevel(SUPPORTED + 1)))
    assert store.digest() == before


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


@pytest.mark.parametrize(("per_topic", "bytes_max"), [(0, 530), (10, 640)])
def test_event_takes_no_more_memory_than_is_said(per_topic: int, bytes_max: int) -> None:
    """100,000 events of 200 bytes take 72 MB in the store."""
    store = replay([encode(SetLimits(HistoryLimits(10_000, per_topic=per_topic)))])
    ids = [f"urn:uuid:01890a5d-ac96-774b-bcce-b302{number:08}" for number in range(5000)]
    some = [
        Event(0, one, (f"/users/{number % 500}",), one[:40] * 5, 1_700_000_000_000 + number)
        for number, one in enumerate(ids)
    ]
    encoded = [encode(Publish(tuple(some[at : at + 100]), 5)) for at in range(0, 5000, 100)]
    del some, ids
    tracemalloc.start()
    try:
        for command in encoded:
            store.apply(command)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / 5000 - 200 < bytes_max


def test_floor_goes_past_what_can_never_be_an_event_and_never_back() -> None:
    store = Store()
    store.apply(batch(1, 2))
    assert store.apply(encode(AdvanceFloor("s", 5))) == []
    assert (store.floor("s"), store.floor("a")) == (5, 0)
    store.apply(encode(AdvanceFloor("s", 3)))
    assert store.floor("s") == 5
    assert store.apply(batch(4, 5)) == []
    assert [shown.seq for shown in store.apply(batch(6))] == [3]
