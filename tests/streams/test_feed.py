"""Promises of the feed: every reader gets exactly the suffix that its cursor promises."""

from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from noti.history.notification import Notification
from noti.history.selectors import ALL_TOPICS, Selector, topic_selector
from noti.streams import sse
from noti.streams.feed import Audience, Batch, Feed, FellBehind, View
from noti.streams.framing import EVENT_STREAM, WEBSOCKET_OBJECTS
from noti.streams.retained import EDGE, footprint, place_of
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
    assert first.wire is second.wire


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


def test_looking_for_the_last_events_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    feed.extend([notification(1, "/u/7/mail"), notification(2, "mail")])
    feed.extend(notification(seq, f"/t/{seq}") for seq in range(3, 6001))
    own, mixed, costly = (
        Audience(View.MERCURE, selecting(*texts))
        for texts in (("/u/7/{what}",), ("/u/8/{what}", "mail"), ("{+any}/nothing", "{any}"))
    )
    tried = []
    matches = Selector.matches

    def counting(selector: Selector, topic: str) -> bool:
        tried.append(topic)
        return matches(selector, topic)

    monkeypatch.setattr(Selector, "matches", counting)
    assert feed.before_last(own, 20) == 0, "far back, and found by how it begins"
    assert feed.before_last(mixed, 20) == 1
    assert len(tried) < 10
    assert feed.before_last(costly, 20) == feed.newest_seq, "given up"
    assert len(tried) < 3000


def test_looking_for_the_last_events_leaves_nothing_behind() -> None:
    feed = Feed()
    feed.extend(notifications(1, 5))
    feed.before_last(ALL, 2)
    assert not feed._watched


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


TOPICS = ("a", "ab", "b", "c")
SELECTORS = ("*", "a", "b", "a{x}", "c{x}")
AUDIENCES = st.builds(
    Audience,
    st.sampled_from(View),
    st.frozensets(st.sampled_from(SELECTORS).map(topic_selector), min_size=1, max_size=3),
    st.frozensets(st.sampled_from(["*", "ab", "a{x}"]).map(topic_selector), max_size=2),
)


class PublishedTopics(NamedTuple):
    topics: tuple[str, ...]
    is_category: bool
    is_private: bool


PUBLISHED = st.builds(
    PublishedTopics,
    st.lists(st.sampled_from(TOPICS), min_size=1, max_size=3).map(tuple),
    st.booleans(),
    st.booleans(),
)


def sees(audience: Audience, one: Notification) -> bool:
    """What an audience sees, said as plainly as can be."""
    if not any(selector.matches(topic) for selector in audience.selectors for topic in one.topics):
        return False
    if audience.view is View.CATEGORY:
        return one.data.startswith("{") and not one.private
    return not one.private or any(
        right.matches(topic) for right in audience.rights for topic in one.topics
    )


class FeedAgainstPlainHistory(RuleBasedStateMachine):
    """Any interleaving of publishing, reading and snapshots, judged by a list of everything."""

    SIZE = 8
    PER_TOPIC = 2

    def __init__(self) -> None:
        super().__init__()
        self.feed = Feed()
        self.feed.lost_through = self.lost_through
        self.published: dict[int, Notification] = {}
        self.oldest_seq = 1
        self.sparse: set[int] = set()
        self.freed: set[int] = set()
        self.jumped_to = 0
        """The last number before the window of the latest snapshot; it may never have been here."""
        self.newest_seq = 0

    readers: Bundle[tuple[Audience, int]] = Bundle("readers")

    @property
    def history(self) -> list[int]:
        return [*sorted(self.sparse), *range(self.oldest_seq, self.newest_seq + 1)]

    def lost_through(self, topics: Iterable[str] | None) -> int:
        lost = set(self.published) - set(self.history)
        if topics is not None:
            named = set(topics)
            lost = {seq for seq in lost if named & set(self.published[seq].topics)}
        return max(lost, default=0)

    @rule(events=st.lists(PUBLISHED, max_size=12))
    def publish(self, events: list[PublishedTopics]) -> None:
        new = [
            notification(
                self.newest_seq + n, data=None if is_category else "hello\nthere"
            )._replace(topics=topics, private=private)
            for n, (topics, is_category, private) in enumerate(events, start=1)
        ]
        self.feed.extend(new)
        before = set(self.history)
        self.newest_seq += len(new)
        self.published.update((one.seq, one) for one in new)
        self.oldest_seq = max(self.oldest_seq, self.newest_seq - self.SIZE + 1)
        last = {
            seq
            for topic in TOPICS
            for seq in [
                seq
                for seq in sorted({*before, *(one.seq for one in new)})
                if topic in self.published[seq].topics
            ][-self.PER_TOPIC :]
        }
        self.sparse = {seq for seq in last if seq < self.oldest_seq}
        gone = ({*before} | {one.seq for one in new}) - set(self.history)
        self.feed.trim(self.oldest_seq, list(gone))

    @rule(readers_at=st.integers(0, 20), count=st.sampled_from([None, 1, 3]))
    def release(self, readers_at: int, count: int | None) -> None:
        through_seq = self.newest_seq - readers_at
        former = sorted(set(self.published) - set(self.history) - self.freed)
        freed = [seq for seq in former if seq <= through_seq][:count]
        assert self.feed.release(through_seq, count) == (len(freed) == count)
        self.freed.update(freed)

    @rule(jump=st.integers(0, 20), kept=st.integers(0, SIZE), data=st.data())
    def install_snapshot(self, jump: int, kept: int, data: st.DataObject) -> None:
        for seq in range(self.newest_seq + 1, self.newest_seq + jump + kept + 1):
            self.published[seq] = notification(seq, data.draw(st.sampled_from(TOPICS)))
        self.newest_seq += jump + kept
        self.oldest_seq = self.newest_seq - kept + 1
        older = [seq for seq in self.published if seq < self.oldest_seq]
        self.sparse = set(data.draw(st.lists(st.sampled_from(older), max_size=5)) if older else [])
        self.freed = set(self.published) - set(self.history)
        self.jumped_to = self.oldest_seq - 1
        self.feed.reset([self.published[seq] for seq in self.history], self.oldest_seq)

    @rule(target=readers, audience=AUDIENCES)
    def subscribe(self, audience: Audience) -> tuple[Audience, int]:
        return audience, self.newest_seq

    @rule(target=readers, audience=AUDIENCES, place=st.integers(0, 2 * SIZE))
    def resume(self, audience: Audience, place: int) -> tuple[Audience, int]:
        if place >= len(self.history):
            return audience, EDGE
        seq = self.history[place]
        assert self.feed.position_of(f"id-{seq}") == seq
        lost = [
            other
            for other, one in self.published.items()
            if other > seq and other not in self.history and sees(audience, one)
        ]
        if self.feed.has_gap(audience, seq):
            return audience, EDGE
        assert not lost, "a gap was hidden"
        return audience, seq

    @rule(audience=AUDIENCES, count=st.integers(1, 5))
    def look_for_the_last(self, audience: Audience, count: int) -> None:
        cursor = self.feed.before_last(audience, count)
        seen = [seq for seq in self.history if sees(audience, self.published[seq])]
        shown = [seq for seq in seen if seq > place_of(cursor)]
        assert shown == seen[-count:]

    @rule(target=readers, reader=readers, bytes_max=st.sampled_from([1, 100, 1 << 20]))
    def read(self, reader: tuple[Audience, int], bytes_max: int) -> tuple[Audience, int]:
        audience, cursor = reader
        batch = self.feed.read(audience, cursor, bytes_max)
        place = place_of(cursor)
        if isinstance(batch, FellBehind):
            assert self.feed.has_gap(audience, cursor)
            # A snapshot may have jumped over numbers that were never here. Those from before its
            # window that it held, and that left history since, are taken for lost as well.
            assert place < max([*self.freed, self.jumped_to])
            return audience, self.newest_seq
        if cursor == EDGE:
            place = min(self.history, default=self.newest_seq + 1) - 1
        through = place_of(batch.seq)
        expected = [
            one.id
            for seq, one in sorted(self.published.items())
            if place < seq <= through
            and (cursor >= 0 or seq not in self.freed)
            and sees(audience, one)
        ]
        assert ids(batch.data.decode()) == expected
        assert batch.events == len(expected)
        assert batch.seq == self.newest_seq or batch.events > 0 or through > place
        return audience, batch.seq

    @rule(audience=AUDIENCES)
    def watch(self, audience: Audience) -> None:
        self.feed.watch(audience)
        self.feed.with_news()

    @rule(audience=AUDIENCES)
    def forget(self, audience: Audience) -> None:
        self.feed.forget(audience)

    @rule(events=st.lists(PUBLISHED, min_size=1, max_size=4))
    def whoever_has_something_to_read_is_named(self, events: list[PublishedTopics]) -> None:
        self.feed.with_news()
        before_seq = self.newest_seq
        self.publish(events)
        named = set(self.feed.with_news())
        new = [one for seq, one in self.published.items() if seq > before_seq]
        for audience in self.feed._watched:
            if any(sees(audience, one) for one in new):
                assert audience in named
            elif audience.view is View.MERCURE:
                assert audience not in named

    @invariant()
    def both_ends_agree(self) -> None:
        retained = self.feed.retained
        assert self.feed.newest_seq == self.newest_seq
        assert self.feed.oldest_seq == self.oldest_seq
        assert set(retained.notifications) == set(self.published) - self.freed
        assert sorted(retained.backwards()) == self.history

    @invariant()
    def bytes_are_counted_by_the_event(self) -> None:
        retained = self.feed.retained
        former = set(self.published) - set(self.history) - self.freed
        for after_seq in range(0, self.newest_seq + 1, 5):
            assert retained.beyond(after_seq) == sum(
                footprint(self.published[seq]) for seq in former if seq > after_seq
            )
        assert retained.backlog_bytes == retained.beyond(0)
        assert retained.history_bytes == sum(footprint(self.published[seq]) for seq in self.history)


TestFeedAgainstPlainHistory = FeedAgainstPlainHistory.TestCase
TestFeedAgainstPlainHistory.settings = settings(
    max_examples=40, stateful_step_count=30, deadline=None
)


def test_no_heartbeat_moves_a_reader_past_what_it_was_not_sent() -> None:
    feed = Feed()
    feed.extend(notifications(1, 2))
    assert (
        feed.heartbeat(EVENT_STREAM, 0, with_cursor=True)
        == feed.heartbeat(EVENT_STREAM, 2, with_cursor=False)
        == b":\n"
    )
    fresh = sse.cursor(feed.retained.newest_cursor)
    assert feed.heartbeat(EVENT_STREAM, 2, with_cursor=True) == b":\n" + fresh


def test_a_pattern_gets_what_left_history_before_it_was_matched() -> None:
    feed = Feed()
    reader = Audience(View.MERCURE, frozenset({topic_selector("a{x}")}))
    feed.watch(reader)
    feed.with_news()
    feed.extend([notification(seq, "a1") for seq in range(1, 13)])
    feed.trim(5)
    batch = feed.read(reader, 0, 1 << 20)
    assert isinstance(batch, Batch)
    assert ids(batch.data.decode()) == [f"id-{seq}" for seq in range(1, 13)]


def test_each_framing_has_batches_of_its_own_and_what_is_seen_is_the_same() -> None:
    feed = Feed()
    feed.extend(notifications(1, 3))
    objects = Audience(View.MERCURE, frozenset({ALL_TOPICS}), framing=WEBSOCKET_OBJECTS)
    streamed, shown = read(feed, ALL, 0), read(feed, objects, 0)
    assert (streamed.seq, streamed.events) == (shown.seq, shown.events) == (3, 3)
    assert streamed.wire == sse.chunk(streamed.data)
    assert shown.wire == shown.data
    assert shown.data.count(b'"id":"id-') == 3


def test_audience_of_an_event_is_who_would_be_sent_it() -> None:
    feed, selector = Feed(), topic_selector("a")
    public = Audience(View.MERCURE, frozenset({selector}))
    entitled = Audience(View.MERCURE, frozenset({selector}), frozenset({selector}))
    others = Audience(View.MERCURE, frozenset({topic_selector("b")}))
    category = Audience(View.CATEGORY, frozenset({ALL_TOPICS}))
    for audience in (ALL, public, entitled, others, category):
        feed.watch(audience)
    event = notification(1)._replace(topics=("a", "a/b"), data="no category")
    assert set(feed.audiences_of(event)) == {ALL, public, entitled}
    assert set(feed.audiences_of(event._replace(private=True))) == {entitled}
    message = '{"user_id":7,"category_from":"books","category_to":"films"}'
    event = event._replace(seq=2, topics=("c",), data=message)
    assert set(feed.audiences_of(event)) == {ALL, category}
