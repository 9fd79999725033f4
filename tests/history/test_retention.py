"""What is kept, and what readers may have lost, against a model that looks at everything."""

from collections.abc import Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.history import retention as retention_module
from noti.history.limits import NO_LIMIT, HistoryLimits
from noti.history.notification import Notification
from noti.history.retention import Retention, kept_bytes, window_max
from tests import promises

Topics: TypeAlias = str | tuple[str, ...]

LIMITS = HistoryLimits(count=4, per_topic=2)


def retention(limits: HistoryLimits, *topics: Topics, taken_ms: int = 0) -> Retention:
    kept = Retention(limits)
    add(kept, *topics, taken_ms=taken_ms)
    return kept


def add(kept: Retention, *topics: Topics, data: str = "", taken_ms: int = 0) -> None:
    for one in topics:
        seq = kept.last_seq + 1
        names = (one,) if isinstance(one, str) else one
        kept.append(Notification(seq, f"id{seq}", names, data, 0), taken_ms)
        kept.trim()


def seqs(kept: Retention) -> list[int]:
    return [one.notification.seq for one in kept.all()]


@promises.QUIET_TOPIC_KEPT
def test_window_holds_the_newest_and_of_each_topic_the_last_few_outlive_it() -> None:
    kept = retention(LIMITS, "quiet", "quiet", "quiet", *["loud"] * 10)
    assert seqs(kept) == [2, 3, 10, 11, 12, 13]
    assert kept.first_seq == 10
    assert [one.seq for one in kept.take_gone()] == [1, 4, 5, 6, 7, 8, 9]
    assert kept.take_gone() == []


def test_older_event_of_a_topic_goes_when_a_newer_one_takes_its_place() -> None:
    kept = retention(LIMITS, "quiet", "quiet", *["loud"] * 10)
    add(kept, "quiet")
    assert seqs(kept) == [2, 10, 11, 12, 13]


def test_event_of_several_topics_stays_for_any_of_them() -> None:
    kept = retention(LIMITS, ("a", "b"), "a", "a", *["loud"] * 4)
    assert seqs(kept) == [1, 2, 3, 4, 5, 6, 7]
    add(kept, "b", "b")
    assert 1 not in seqs(kept)


@promises.QUIET_TOPIC_KEPT
def test_reader_of_a_quiet_topic_has_lost_nothing_when_a_loud_one_has() -> None:
    kept = retention(LIMITS, "quiet", *["loud"] * 10)
    assert kept.lost(["quiet"]) == 0
    assert kept.lost(["loud"]) == 7
    assert kept.lost(["quiet", "loud"]) == 7
    assert kept.lost(["never published"]) == 0
    assert kept.lost(None) == 7
    add(kept, "quiet", "quiet")
    assert kept.lost(["quiet"]) == 1


def test_without_floors_a_reader_of_any_topic_has_lost_what_the_window_has() -> None:
    kept = retention(HistoryLimits(count=4), "quiet", *["loud"] * 9)
    assert seqs(kept) == [7, 8, 9, 10]
    assert kept.lost(["quiet"]) == kept.lost(["other"]) == kept.lost(None) == 6


def test_least_recently_published_topic_is_forgotten_and_its_reader_told_of_a_gap() -> None:
    limits = HistoryLimits(count=3, per_topic=2, topics_max=3)
    kept = retention(limits, "a", "b", "a", "c", *["loud"] * 4)
    assert list(kept.topics) == ["a", "c", "loud"]
    assert seqs(kept) == [1, 3, 4, 6, 7, 8]
    assert kept.lost(["b"]) == 2
    assert kept.lost(["a"]) == kept.lost(["c"]) == 0
    add(kept, "b")
    assert kept.lost(["b"]) == 2, "what was lost before it was tracked is not forgotten"


def test_bytes_are_bounded_and_count_all_texts_of_an_event() -> None:
    event = Notification(1, "ü", ("tö", "t"), "dätä", 0, "typ")
    assert kept_bytes(event) == 2 + 3 + 1 + 6 + 3
    kept = retention(HistoryLimits(count=100, size_bytes=1000))
    add(kept, *["t"] * 20, data="x" * 96)
    assert kept.size_bytes <= 1000
    assert seqs(kept) == list(range(12, 21))
    assert kept.size_bytes == sum(kept_bytes(one.notification) for one in kept.all())


def test_sparse_events_take_at_most_half_of_the_bytes_and_are_no_more_than_the_window() -> None:
    kept = retention(HistoryLimits(count=10, size_bytes=2000, per_topic=1))
    add(kept, *[f"topic {number}" for number in range(50)], data="x" * 100)
    assert kept.sparse_bytes <= 1000
    assert kept.size_bytes <= 2000
    assert len(kept.window) >= 8
    small = retention(HistoryLimits(count=10, per_topic=1), *[str(one) for one in range(50)])
    assert seqs(small) == list(range(31, 51))
    assert small.lost(["3"]) == 4
    assert small.lost(["35"]) == 0


def test_old_events_expire_from_the_oldest_also_those_of_quiet_topics() -> None:
    kept = retention(LIMITS, "quiet", *["loud"] * 5, taken_ms=10)
    add(kept, "loud", taken_ms=30)
    add(kept, "loud", taken_ms=20)
    kept.expire(10)
    assert seqs(kept) == [1, 5, 6, 7, 8]
    kept.expire(25)
    assert seqs(kept) == [7, 8], "what is behind one that is young enough waits for it"
    assert kept.lost(["quiet"]) == 1
    kept.expire(31)
    assert seqs(kept) == []
    assert (kept.first_seq, kept.size_bytes, kept.sparse_bytes) == (9, 0, 0)
    add(kept, "quiet", taken_ms=40)
    assert seqs(kept) == [9]


def test_floors_can_be_switched_on_changed_and_off() -> None:
    kept = retention(HistoryLimits(count=6), *["x"] * 4, "quiet", "quiet", *["loud"] * 4)
    assert seqs(kept) == [5, 6, 7, 8, 9, 10]
    kept.set_limits(HistoryLimits(count=2, per_topic=2))
    assert seqs(kept) == [5, 6, 9, 10]
    assert kept.lost(["quiet"]) == 4, "it may have lost what went before it was tracked"
    kept.set_limits(HistoryLimits(count=2, per_topic=1))
    assert seqs(kept) == [6, 9, 10]
    assert kept.lost(["quiet"]) == 5
    kept.set_limits(HistoryLimits(count=2))
    assert seqs(kept) == [9, 10]
    assert kept.lost(["quiet"]) == kept.lost(["loud"]) == 8
    assert not kept.topics
    assert not kept.protecting


topics = st.lists(st.sampled_from("abcde"), min_size=1, max_size=3).map(tuple)
limits = st.builds(
    HistoryLimits,
    st.integers(1, 8),
    st.sampled_from([5, 40, 100, NO_LIMIT]),
    st.just(0),
    st.integers(0, 3),
    st.integers(1, 4),
)
steps = st.lists(
    st.one_of(topics, topics, topics, limits, st.integers(0, 40).map(lambda one: -one)),
    max_size=40,
)


@promises.QUIET_TOPIC_KEPT
@given(limits, steps)
def test_nothing_is_lost_of_which_readers_are_not_told(
    first: HistoryLimits, course: Sequence[tuple[str, ...] | HistoryLimits | int]
) -> None:
    kept, published = Retention(first), dict[int, tuple[str, ...]]()
    held: set[int] = set()
    for step in course:
        match step:
            case HistoryLimits():
                kept.set_limits(step)
            case int():
                kept.expire(-step)
            case _:
                published[kept.last_seq + 1] = step
                held.add(kept.last_seq + 1)
                add(kept, step, data="x", taken_ms=kept.last_seq)
        held -= {one.seq for one in kept.take_gone()}
        check(kept, published)
        assert held == {*seqs(kept)}


def check(kept: Retention, published: dict[int, tuple[str, ...]]) -> None:
    limits, here = kept.limits, seqs(kept)
    assert here == sorted({*here})
    assert [one.notification.seq for one in kept.window] == list(
        range(kept.first_seq, kept.last_seq + 1)
    )
    gone = published.keys() - {*here}
    assert kept.lost(None) == max(gone, default=0)
    for topic in "abcde":
        lost = max((seq for seq in gone if topic in published[seq]), default=0)
        assert lost <= kept.lost([topic]) <= kept.lost(None)
    assert len(kept.window) <= limits.count
    assert len(kept.sparse) <= limits.count
    assert len(kept.topics) <= limits.topics_max
    assert kept.size_bytes == sum(kept_bytes(one.notification) for one in kept.all())
    assert kept.size_bytes <= limits.size_bytes
    protecting = [seq for tracked in kept.topics.values() for seq in tracked.seqs]
    assert kept.protecting == {seq: protecting.count(seq) for seq in protecting}
    assert {*kept.sparse} <= {*protecting} <= {*here}
    assert all(len(tracked.seqs) <= limits.per_topic for tracked in kept.topics.values())


SUBSCRIBED = "/.well-known/mercure/subscriptions/news/urn%3Auuid%3A"


def test_events_about_subscriptions_push_no_others_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "TOLD_MAX", 6)
    kept = retention(LIMITS, "quiet", *["loud"] * 4)
    add(kept, *[f"{SUBSCRIBED}{number}" for number in range(6)])
    assert seqs(kept) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert kept.first_seq == 2
    add(kept, "loud")
    assert seqs(kept) == [1, *range(3, 13)]


def test_events_about_subscriptions_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "TOLD_MAX", 6)
    kept = retention(LIMITS, "loud")
    add(kept, *[f"{SUBSCRIBED}{number}" for number in range(50)])
    assert len(seqs(kept)) == 6 + 1
    assert len(kept.window) <= window_max(LIMITS)


def test_topics_of_subscriptions_take_the_place_of_no_topic() -> None:
    limits = HistoryLimits(count=2, per_topic=1, topics_max=2)
    kept = retention(limits, "a", "b")
    add(kept, *[f"{SUBSCRIBED}{number}" for number in range(9)], "b", "b", "b")
    assert seqs(kept)[0] == 1
    assert kept.lost(["a"]) == 0


def test_reader_of_a_subscription_is_told_of_every_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention_module, "TOLD_MAX", 1)
    kept = retention(HistoryLimits(count=1, per_topic=1), f"{SUBSCRIBED}1")
    assert kept.lost([f"{SUBSCRIBED}1"]) == 0
    add(kept, f"{SUBSCRIBED}2", f"{SUBSCRIBED}3")
    assert kept.lost([f"{SUBSCRIBED}1"]) == 2
    assert kept.lost(["never published"]) == 0
