"""Promises of the feed: every reader gets exactly the suffix that its cursor promises."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from noti.history.notification import Notification
from noti.history.selectors import ALL_TOPICS, topic_selector
from noti.streams import sse
from noti.streams.feed import Audience, Batch, Feed, FellBehind, View
from tests.http.stage import ids, notification, notifications, selecting

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))


def read(feed: Feed, audience: Audience, after_seq: int, bytes_max: int = 1 << 20) -> Batch:
    batch = feed.read(audience, after_seq, bytes_max)
    assert isinstance(batch, Batch)
    return batch


def test_readers_at_one_place_share_one_bytes_object() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    first, second = (
        read(feed, ALL, 2),
        read(feed, Audience(View.MERCURE, frozenset({ALL_TOPICS})), 2),
    )
    assert first.data is second.data
    assert first.chunk is second.chunk


def test_a_cursor_that_fell_off_is_reported() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    feed.trim(3)
    feed.release(2)
    assert feed.read(ALL, 1, 100) == FellBehind(oldest_seq=3)
    assert ids(read(feed, ALL, 2).data.decode()) == ["id-3", "id-4", "id-5"]


def test_what_is_no_history_any_more_is_read_until_it_is_released_and_never_resumed_from() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    feed.trim(4)
    assert ids(read(feed, ALL, 1).data.decode()) == ["id-2", "id-3", "id-4", "id-5"]
    assert feed.position_of("id-3") is None
    assert feed.position_of("id-4") == 4
    feed.release(5)
    assert isinstance(feed.read(ALL, 1, 100), FellBehind)


def test_releasing_frees_frames_and_lists_with_the_events() -> None:
    feed = Feed()
    feed.extend(notifications(1, 3000))
    for view in View:
        read(feed, Audience(view, frozenset({ALL_TOPICS})), 0)
    feed.trim(2991)
    feed.release(3000)
    assert {len(frames) for frames in feed._frames.values()} == {10}
    assert {len(readers) for readers in feed._by_audience.values()} == {10}


def test_whoever_begins_at_the_edge_begins_where_it_is_when_it_is_read() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    edge = feed.position_of("earliest")
    assert edge is not None
    feed.trim(4)
    feed.release(5)
    assert ids(read(feed, ALL, edge).data.decode()) == ["id-4", "id-5"]


@pytest.mark.parametrize("watched", [False, True], ids=["found later", "known before"])
@pytest.mark.parametrize(
    ("selector", "seen"),
    [
        ("*", ["id-1", "id-2"]),
        ("b", ["id-1"]),
        ("jobs.noti", []),
        ("jobs.*", []),
        ("Jobs.noti.1", []),
    ],
)
def test_a_selector_covers_all_or_an_equal_topic_wherever_it_stands(
    selector: str, seen: list[str], watched: bool
) -> None:
    feed = Feed()
    audience = Audience(View.MERCURE, selecting(selector))
    if watched:
        feed.watch(audience)
    feed.extend([notification(1)._replace(topics=("a", "b")), notification(2, "jobs.noti.1")])
    assert ids(read(feed, audience, 0).data.decode()) == seen


def test_a_read_stops_at_its_limit_but_always_moves() -> None:
    feed = Feed()
    feed.extend(notifications(1, 3))
    batch = read(feed, ALL, 0, bytes_max=1)
    assert (ids(batch.data.decode()), batch.seq, batch.events) == (["id-1"], 1, 1)


def test_a_read_can_stop_at_a_place() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    batch = feed.read(ALL, 1, 1 << 20, through_seq=3)
    assert isinstance(batch, Batch)
    assert (ids(batch.data.decode()), batch.seq) == (["id-2", "id-3"], 3)


def test_an_audience_without_a_match_moves_on_with_nothing() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    batch = read(feed, Audience(View.MERCURE, selecting("other")), 0)
    assert (batch.data, batch.seq, batch.events) == (b"", 5, 0)


def test_the_category_view_leaves_out_what_is_no_category_message() -> None:
    feed = Feed()
    feed.extend([notification(1), notification(2, data="hello"), notification(3)])
    category = Audience(View.CATEGORY, frozenset({ALL_TOPICS}))
    assert ids(read(feed, category, 0).data.decode()) == ["id-1", "id-3"]
    assert ids(read(feed, ALL, 0).data.decode()) == ["id-1", "id-2", "id-3"]


def test_the_last_events_are_those_that_the_audience_sees_in_history() -> None:
    feed = Feed()
    feed.extend(notification(seq, "odd" if seq % 2 else "even") for seq in range(1, 11))
    feed.trim(4)
    odd, news = (Audience(View.MERCURE, selecting(name)) for name in ("odd", "news"))
    for _ in ("nobody reads", "somebody does"):
        shown = [
            ids(read(feed, audience, feed.before_last(audience, count)).data.decode())
            for audience, count in ((odd, 2), (odd, 100), (ALL, 3), (news, 5))
        ]
        assert shown == [
            ["id-7", "id-9"],
            ["id-5", "id-7", "id-9"],
            ["id-8", "id-9", "id-10"],
            [],
        ]


def test_looking_for_the_last_events_leaves_nothing_behind() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    feed.before_last(ALL, 2)
    assert feed._by_audience == {}


def test_a_snapshot_replaces_all_history_and_numbers_may_jump() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    read(feed, ALL, 0)
    feed.reset(notifications(100, 105))
    assert (feed.oldest_seq, feed.newest_seq) == (100, 105)
    assert feed.position_of("id-3") is None
    assert feed.read(ALL, 5, 100) == FellBehind(oldest_seq=100)
    assert ids(read(feed, ALL, 103).data.decode()) == ["id-104", "id-105"]


def test_a_cursor_ahead_of_history_is_reported_too() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    feed.reset([])
    assert isinstance(feed.read(ALL, 5, 100), FellBehind)
    assert read(feed, ALL, 0).data == b""


TOPICS = st.sampled_from(["a", "b", "c"])
AUDIENCES = st.builds(
    Audience,
    st.sampled_from(View),
    st.frozensets(st.sampled_from(["*", "a", "b"]).map(topic_selector), min_size=1),
)


class FeedAgainstPlainHistory(RuleBasedStateMachine):
    """Any interleaving of publishing, reading and snapshots, judged by a list of everything."""

    SIZE = 8

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed()
        self.history: list[Notification] = []
        self.held: list[Notification] = []
        self.newest_seq = 0

    readers: Bundle[tuple[Audience, int]] = Bundle("readers")

    @rule(topics=st.lists(st.tuples(TOPICS, st.booleans()), max_size=12))
    def publish(self, topics: list[tuple[str, bool]]) -> None:
        new = [
            notification(self.newest_seq + n, topic, None if is_category else "hello\nthere")
            for n, (topic, is_category) in enumerate(topics, start=1)
        ]
        self.feed.extend(new)
        self.newest_seq += len(new)
        self.history = [*self.history, *new][-self.SIZE :]
        self.held += new
        self.feed.trim(self.newest_seq - len(self.history) + 1)

    @rule(readers_at=st.integers(0, 20))
    def release(self, readers_at: int) -> None:
        through_seq = self.newest_seq - readers_at
        self.feed.release(through_seq)
        oldest_seq = self.newest_seq - len(self.history) + 1
        self.held = [one for one in self.held if one.seq > through_seq or one.seq >= oldest_seq]

    @rule(jump=st.integers(0, 20), kept=st.integers(0, SIZE))
    def install_snapshot(self, jump: int, kept: int) -> None:
        first = self.newest_seq + jump + 1
        self.history = notifications(first, first + kept - 1, "a") if kept else []
        self.held = list(self.history)
        self.feed.reset(self.history)
        self.newest_seq = self.history[-1].seq if self.history else 0

    @rule(target=readers, audience=AUDIENCES)
    def subscribe(self, audience: Audience) -> tuple[Audience, int]:
        return audience, self.newest_seq

    @rule(target=readers, audience=AUDIENCES, place=st.integers(0, SIZE))
    def resume(self, audience: Audience, place: int) -> tuple[Audience, int]:
        if place < len(self.history):
            seq = self.feed.position_of(self.history[place].id)
            assert seq == self.history[place].seq
            return audience, seq
        return audience, self.feed.oldest_seq - 1

    @rule(target=readers, reader=readers, bytes_max=st.sampled_from([1, 100, 1 << 20]))
    def read(self, reader: tuple[Audience, int], bytes_max: int) -> tuple[Audience, int]:
        audience, cursor = reader
        batch = self.feed.read(audience, cursor, bytes_max)
        if isinstance(batch, FellBehind):
            assert not self.newest_seq - len(self.held) <= cursor <= self.newest_seq
            return audience, self.newest_seq
        expected = [
            one.id
            for one in self.held
            if cursor < one.seq <= batch.seq
            and audience.matches(one.topics)
            and (audience.view is View.MERCURE or one.data.startswith("{"))
        ]
        assert ids(batch.data.decode()) == expected
        assert batch.events == len(expected)
        assert batch.seq == self.newest_seq or batch.events > 0
        return audience, batch.seq

    @rule(audience=AUDIENCES)
    def forget(self, audience: Audience) -> None:
        self.feed.forget(audience)

    @invariant()
    def both_ends_agree(self) -> None:
        assert self.feed.newest_seq == self.newest_seq
        assert self.feed.oldest_seq == self.newest_seq - len(self.history) + 1
        assert self.feed.retained.first_seq == self.newest_seq - len(self.held) + 1

    @invariant()
    def bytes_are_counted_by_the_event(self) -> None:
        retained = self.feed.retained
        for after_seq in range(retained.first_seq - 1, self.newest_seq + 1):
            beyond = retained.beyond(after_seq)
            assert (beyond > 0) == (after_seq < self.feed.oldest_seq - 1)
        assert retained.beyond(retained.first_seq - 1) == retained.backlog_bytes


TestFeedAgainstPlainHistory = FeedAgainstPlainHistory.TestCase
TestFeedAgainstPlainHistory.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)


def test_no_heartbeat_moves_a_reader_past_what_it_was_not_sent() -> None:
    feed = Feed()
    feed.extend(notifications(1, 2))
    assert feed.heartbeat(0, with_cursor=True) == feed.heartbeat(2, with_cursor=False) == b":\n"
    fresh = sse.cursor(feed.retained.newest_cursor)
    assert feed.heartbeat(2, with_cursor=True) == b":\n" + fresh
