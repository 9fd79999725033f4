"""Promises of what is held: history is what can be resumed from, and memory is counted honestly."""

import tracemalloc

import pytest

from noti.history.notification import Notification
from noti.streams.delivered import DeliveredBatches
from noti.streams.feed import Audience, Feed, View
from noti.streams.retained import EDGE, Retained, cursor_of, partial, place_of, seq_in
from tests.http.stage import notification, notifications, selecting


def holding(*some: Notification) -> Retained:
    retained = Retained()
    retained.extend(some)
    return retained


def test_the_earliest_of_duplicate_ids_is_where_a_reader_resumes() -> None:
    retained = holding(*(Notification(seq, "same", ("t",), "", 0) for seq in (1, 2)))
    assert retained.position_of("same") == 1
    retained.trim(2)
    assert retained.position_of("same") == 2
    retained.trim(3)
    assert retained.position_of("same") is None


def test_reader_who_came_before_the_first_event_learns_when_history_has_lost_some() -> None:
    """Found by: just sim seed=0 layer=nodes"""
    retained = Retained()
    cursor = retained.newest_cursor
    assert retained.position_of(cursor) == 0
    retained.extend(notifications(1, 2))
    assert retained.position_of(cursor) == 0
    retained.trim(2)
    assert retained.position_of(cursor) is None


def test_cursor_of_ours_resumes_where_it_was_made_and_nowhere_else() -> None:
    retained = holding(*notifications(1, 5))
    cursor = retained.newest_cursor
    retained.extend([notification(6)])
    assert retained.position_of(cursor) == 5
    elsewhere = holding(*(one._replace(created_ms=0) for one in notifications(1, 6)))
    assert elsewhere.position_of(cursor) is None, "another cluster's fifth event"
    retained.trim(6)
    assert retained.position_of(cursor) is None, "it stays held, but is no history"
    assert holding(*notifications(1, 3)).position_of(cursor) is None, "not here yet"


def test_earliest_is_the_edge_wherever_that_is() -> None:
    assert Retained().position_of("earliest") == EDGE


def test_history_that_begins_late_frees_nothing_that_is_not_there() -> None:
    retained = holding(*notifications(100, 105))
    assert (retained.first_seq, retained.oldest_seq) == (100, 100)
    assert retained.release(105, 10) == []
    retained.trim(103)
    assert retained.release(101, 10) == [100, 101]
    assert list(retained.between(0, 105)) == [102, 103, 104, 105]
    assert retained.backlog_bytes == retained.beyond(101) > 0


def sparse() -> Retained:
    """The window is 8 to 10; 2 and 5 are kept before it, the others are held for somebody."""
    retained = holding(*(notification(seq, f"t/{seq % 3}") for seq in range(1, 11)))
    retained.trim(8, [1, 3, 4, 6, 7])
    return retained


def test_what_outlives_the_window_can_be_resumed_from_and_what_does_not_cannot() -> None:
    retained = sparse()
    assert [retained.position_of(f"id-{seq}") for seq in range(1, 11)] == [
        None, 2, None, None, 5, None, None, 8, 9, 10,
    ]  # fmt: skip
    assert retained.position_of(cursor_of(notification(5, "t/2"))) == 5
    assert retained.position_of(cursor_of(notification(4, "t/1"))) is None
    assert list(retained.between(1, 9)) == [2, 3, 4, 5, 6, 7, 8, 9], "somebody is on the way"
    retained.release(10, 100)
    assert list(retained.between(0, 9)) == [2, 5, 8, 9]
    assert list(retained.backwards()) == [10, 9, 8, 5, 2]
    assert (retained.first_seq, retained.lost_through, retained.freed_through) == (2, 7, 7)


def test_what_outlived_the_window_leaves_later_and_is_held_for_those_before_it() -> None:
    retained = sparse()
    retained.release(10, 100)
    retained.trim(8, [2])
    assert retained.position_of("id-2") is None
    assert retained.beyond(1) > 0
    assert retained.beyond(2) == 0
    assert list(retained.between(0, 9)) == [2, 5, 8, 9]
    assert retained.release(2, 100) == [2]
    assert list(retained.between(0, 9)) == [5, 8, 9]


def test_a_history_with_holes_is_taken_from_a_snapshot() -> None:
    some = [notification(seq) for seq in (3, 17, 25, 40, 41)]
    retained = Retained()
    retained.reset(some, 40)
    assert (retained.first_seq, retained.oldest_seq, retained.newest_seq) == (3, 40, 41)
    assert list(retained.between(0, 41)) == [3, 17, 25, 40, 41]
    retained.reset([], 100)
    assert (retained.first_seq, retained.oldest_seq, retained.newest_seq) == (100, 100, 99)
    assert retained.history_bytes == 0
    retained.extend([notification(100)])
    assert retained.position_of("id-100") == 100


def test_topics_forget_what_is_gone() -> None:
    retained = holding(*notifications(1, 2500), notification(2501, "quiet"))
    retained.trim(2400, [seq for seq in range(1, 2400) if seq != 7])
    retained.release(2501, 10_000)
    assert retained.on_topic("jobs.noti.1") == [7, *range(2400, 2501)]
    retained.trim(2502, [7, *range(2400, 2502)])
    retained.release(2501, 10_000)
    assert not retained.notifications
    retained.extend([])
    retained._sweep()
    assert not retained._by_topic


def test_a_reader_on_its_way_through_sparse_history_has_a_place() -> None:
    assert [place_of(cursor) for cursor in (0, 7, EDGE, partial(0), partial(7))] == [0, 7, -1, 0, 7]


@pytest.mark.parametrize(
    ("data", "topics"),
    [
        ("x" * 20, ("t",)),
        ("x" * 2000, ("t", "u", "v")),
        ("ü€" * 500, ("t",)),
        ("🎈" * 500, ("t",)),
        ("\n" * 1000, ("t",)),
        ('{"user_id":1,"category_from":"a","category_to":"b"}', ("t",)),
    ],
)
def test_an_event_is_counted_for_about_the_memory_that_it_takes(
    data: str, topics: tuple[str, ...]
) -> None:
    count = 1500
    feed = Feed()
    audiences = [Audience(view, selecting("t")) for view in View]
    tracemalloc.start()
    try:
        for seq in range(1, count + 1):
            # Nothing is shared between events, as after decoding.
            event_id = f"urn:uuid:00000000-0000-7000-0000-{seq:012}"
            own = tuple("".join([topic, "-", str(seq % 7)])[:1] for topic in topics)
            feed.extend([Notification(seq, event_id, own, "".join(list(data)), seq << 20)])
            for audience in audiences:
                feed.read(audience, seq - 1, 1)
        # What is being sent has a bound of its own.
        feed._forget_joined()
        feed.delivered = DeliveredBatches()
        for frames in feed._frames.values():
            frames.clear()
        taken = tracemalloc.get_traced_memory()[0] / count
    finally:
        tracemalloc.stop()
    counted = feed.retained.history_bytes / count
    assert 0.97 < counted / taken < 1.2, (counted, taken)


def test_cursor_names_a_place_and_not_the_event() -> None:
    one = notification(17, topic="secret")
    cursor = cursor_of(one)
    assert seq_in(cursor) == 17
    assert one.id not in cursor
    assert cursor == cursor_of(notification(17, topic="secret"))


def test_another_event_in_the_same_place_has_another_cursor() -> None:
    one = notification(17)
    others = [one._replace(id="x"), one._replace(created_ms=1), one._replace(data="x")]
    assert len({cursor_of(other) for other in [one, *others]}) == 4


def test_what_is_no_cursor_is_none() -> None:
    for text in ["", "id-1", "noti:0-00000000", "noti:1", "noti:1-0000000", "noti:01-00000000"]:
        assert seq_in(text) is None
