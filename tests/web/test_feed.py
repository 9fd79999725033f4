"""Promises of the feed: every reader gets exactly the suffix that its cursor promises."""

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from noti.notifications.notification import Notification
from noti.web.feed import Audience, Batch, Feed, FellBehind, View
from tests.web.stage import ids, notification, notifications

ALL = Audience(View.MERCURE, frozenset({"*"}))


def read(feed: Feed, audience: Audience, after_seq: int, bytes_max: int = 1 << 20) -> Batch:
    batch = feed.read(audience, after_seq, bytes_max)
    assert isinstance(batch, Batch)
    return batch


def test_readers_at_one_place_share_one_bytes_object() -> None:
    feed = Feed(10)
    feed.extend(notifications(1, 5))
    first, second = read(feed, ALL, 2), read(feed, Audience(View.MERCURE, frozenset({"*"})), 2)
    assert first.data is second.data
    assert first.chunk is second.chunk


def test_a_cursor_that_fell_off_is_told() -> None:
    feed = Feed(3)
    feed.extend(notifications(1, 5))
    assert feed.read(ALL, 1, 100) == FellBehind(oldest_seq=3)
    assert ids(read(feed, ALL, 2).data.decode()) == ["id-3", "id-4", "id-5"]


def test_a_read_stops_at_its_limit_but_always_moves() -> None:
    feed = Feed(10)
    feed.extend(notifications(1, 3))
    batch = read(feed, ALL, 0, bytes_max=1)
    assert (ids(batch.data.decode()), batch.seq, batch.events) == (["id-1"], 1, 1)


def test_a_read_can_stop_at_a_place() -> None:
    feed = Feed(10)
    feed.extend(notifications(1, 5))
    batch = feed.read(ALL, 1, 1 << 20, through_seq=3)
    assert isinstance(batch, Batch)
    assert (ids(batch.data.decode()), batch.seq) == (["id-2", "id-3"], 3)


def test_an_audience_without_a_match_moves_on_with_nothing() -> None:
    feed = Feed(10)
    feed.extend(notifications(1, 5))
    batch = read(feed, Audience(View.MERCURE, frozenset({"other"})), 0)
    assert (batch.data, batch.seq, batch.events) == (b"", 5, 0)


def test_the_category_view_leaves_out_what_is_no_category_message() -> None:
    feed = Feed(10)
    feed.extend([notification(1), notification(2, data="hello"), notification(3)])
    category = Audience(View.CATEGORY, frozenset({"*"}))
    assert ids(read(feed, category, 0).data.decode()) == ["id-1", "id-3"]
    assert ids(read(feed, ALL, 0).data.decode()) == ["id-1", "id-2", "id-3"]


def test_the_earliest_of_duplicate_ids_is_where_a_reader_resumes() -> None:
    feed = Feed(3)
    feed.extend([Notification(seq, "same", ("t",), "", 0) for seq in (1, 2)])
    assert feed.position_of("same") == 1
    feed.extend(notifications(3, 4))
    assert feed.position_of("same") == 2
    feed.extend(notifications(5, 5))
    assert feed.position_of("same") is None


def test_a_snapshot_replaces_all_history_and_numbers_may_jump() -> None:
    feed = Feed(10)
    feed.extend(notifications(1, 5))
    read(feed, ALL, 0)
    feed.reset(notifications(100, 105))
    assert (feed.oldest_seq, feed.newest_seq, feed.newest_id) == (100, 105, "id-105")
    assert feed.position_of("id-3") is None
    assert feed.read(ALL, 5, 100) == FellBehind(oldest_seq=100)
    assert ids(read(feed, ALL, 103).data.decode()) == ["id-104", "id-105"]


def test_a_cursor_ahead_of_history_is_told_too() -> None:
    feed = Feed(10)
    feed.extend(notifications(1, 5))
    feed.reset([])
    assert isinstance(feed.read(ALL, 5, 100), FellBehind)
    assert read(feed, ALL, 0).data == b""
    assert feed.newest_id == "beginning"


def test_reader_who_came_before_the_first_event_is_told_when_history_has_lost_some() -> None:
    """Found by: just sim seed=0 layer=nodes"""
    feed = Feed(2)
    cursor = feed.newest_id
    assert feed.position_of(cursor) == 0
    feed.extend(notifications(1, 2))
    assert feed.position_of(cursor) == 0
    feed.extend(notifications(3, 3))
    assert feed.position_of(cursor) is None


def test_earliest_stands_before_all_history() -> None:
    feed = Feed(3)
    assert feed.position_of("earliest") == 0
    feed.extend(notifications(1, 5))
    assert feed.position_of("earliest") == 2


TOPICS = st.sampled_from(["a", "b", "c"])
AUDIENCES = st.builds(
    Audience, st.sampled_from(View), st.frozensets(st.sampled_from(["*", "a", "b"]), min_size=1)
)


class FeedAgainstPlainHistory(RuleBasedStateMachine):
    """Any interleaving of publishing, reading and snapshots, judged by a list of everything."""

    SIZE = 8

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed(self.SIZE)
        self.history: list[Notification] = []
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

    @rule(jump=st.integers(0, 20), kept=st.integers(0, SIZE))
    def install_snapshot(self, jump: int, kept: int) -> None:
        first = self.newest_seq + jump + 1
        self.history = notifications(first, first + kept - 1, "a") if kept else []
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
            assert not self.newest_seq - len(self.history) <= cursor <= self.newest_seq
            return audience, self.newest_seq
        expected = [
            one.id
            for one in self.history
            if cursor < one.seq <= batch.seq
            and ("*" in audience.selectors or one.topics[0] in audience.selectors)
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


TestFeedAgainstPlainHistory = FeedAgainstPlainHistory.TestCase
TestFeedAgainstPlainHistory.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None
)


@given(st.integers(1, 6), st.integers(1, 40))
def test_history_stays_within_its_size(size: int, count: int) -> None:
    feed = Feed(size)
    feed.extend(notifications(1, count))
    assert feed.newest_seq - feed.oldest_seq + 1 == min(size, count)
