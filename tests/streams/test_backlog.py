"""Promises of the backlog: who holds memory, who must go, and whose lateness slows the intake."""

import pytest

from noti.history.selectors import ALL_TOPICS
from noti.streams.backlog import FREED_AT_ONCE, SLOW_CLIENTS_MIN, Backlog
from noti.streams.end_reason import EndReason
from noti.streams.feed import Audience, Feed, View
from noti.streams.open_streams import OpenStream, Reader, State, StreamLimits
from noti.streams.sending import Sending
from tests import promises
from tests.http.stage import notifications
from tests.streams.takers import Taker

ALL = Audience(View.MERCURE, frozenset({ALL_TOPICS}))
NOW = 100.0
READS_WITHIN_S = 2.5


class Stage:
    """A hub's records of its streams, without a hub."""

    def __init__(self, newest: int, oldest: int, bytes_max: int = 1_000_000) -> None:
        self.bytes_max = bytes_max
        self.feed = Feed()
        self.sending = Sending(self.feed, StreamLimits(10_000, 0), 65536)
        self.sending.subscribe(Reader(ALL, -1, ""), 0.0)  # so that there is a group
        self.feed.extend(notifications(1, newest))
        self.feed.trim(oldest)
        self.backlog = Backlog(self.feed, self.sending, bytes_max, READS_WITHIN_S)
        [self.group] = self.sending.groups.pass_on()
        self.sending.groups.settle(self.group)

    def client(self, cursor: int, *, slow: bool, blocked_at: float | None = None) -> OpenStream:
        stream = self.sending.subscribe(Reader(ALL, cursor, ""), 0.0)
        stream.slow = slow
        if blocked_at is not None:
            stream.state, stream.blocked_at = State.BLOCKED, blocked_at
        return stream

    def in_step(self, count: int) -> None:
        for _ in range(count):
            self.client(self.feed.newest_seq, slow=False)

    def pressure(self) -> float:
        self.backlog.take_stock(NOW)
        return self.backlog.pressure

    def share(self, cursor: int) -> float:
        return self.feed.retained.beyond(cursor) / self.bytes_max


def test_a_client_that_the_hub_is_late_for_raises_the_pressure_alone() -> None:
    stage = Stage(200, 191)
    stage.in_step(1000)
    assert stage.pressure() == 0.0
    stage.client(50, slow=False)
    assert stage.pressure() == stage.share(50) > 0.0


def test_a_group_that_the_hub_is_late_for_raises_it_too() -> None:
    stage = Stage(200, 191)
    stage.client(200, slow=False)
    stage.sending.adopt(Reader(ALL, 200, ""), 0.0, Taker(7))
    assert stage.sending.adopted[7].state is State.IN_STEP
    stage.group.cursor, stage.group.lagging = 20, True
    stage.sending.groups.lagging[ALL] = stage.group
    assert stage.pressure() == stage.share(20)


@promises.HOSTILE_CLIENT_HARMS_NOBODY
@pytest.mark.parametrize("slow", [1, SLOW_CLIENTS_MIN, 40])
def test_a_minority_of_slow_clients_never_slows_the_intake(slow: int) -> None:
    stage = Stage(200, 191)
    stage.in_step(60)
    for _ in range(slow):
        stage.client(10, slow=True, blocked_at=NOW)
    assert stage.pressure() == 0.0


def test_few_slow_clients_alone_on_a_node_do_not_count_against_it() -> None:
    stage = Stage(200, 191)
    for _ in range(SLOW_CLIENTS_MIN - 1):
        stage.client(10, slow=True, blocked_at=NOW)
    assert stage.pressure() == 0.0


def test_when_most_that_read_are_slow_the_median_counts() -> None:
    stage = Stage(200, 191)
    stage.in_step(10)
    for cursor in range(10, 40):
        stage.client(cursor, slow=True, blocked_at=NOW if cursor % 2 else None)
    for _ in range(500):
        stage.client(1, slow=True, blocked_at=NOW - READS_WITHIN_S - 1)  # these do not read
    assert stage.pressure() == stage.share(30)


def test_pressure_follows_what_is_published_before_anybody_looks_again() -> None:
    stage = Stage(100, 91)
    stage.in_step(1)
    assert stage.pressure() == 0.0
    stage.feed.extend(notifications(101, 300))
    stage.feed.trim(291)
    assert stage.backlog.pressure == stage.share(100) > 0.0


@promises.BURST_DISCONNECTS_NOBODY
def test_only_whoever_holds_more_than_the_bound_must_go() -> None:
    stage = Stage(2000, 1991, bytes_max=500_000)
    far, near = stage.client(5, slow=True, blocked_at=NOW), stage.client(1900, slow=False)
    edge = stage.client(-1, slow=False)
    assert stage.backlog.take_stock(NOW) == [(far, EndReason.BEHIND)]
    far.slow = False
    assert stage.backlog.take_stock(NOW) == [(far, EndReason.OVERRUN)]
    stage.sending.close(far)
    assert stage.backlog.take_stock(NOW) == []
    assert {near, edge} < stage.sending.subscriptions


@promises.BURST_DISCONNECTS_NOBODY
def test_what_a_newcomer_needs_is_kept_before_anybody_looks_again() -> None:
    stage = Stage(100, 91)
    stage.in_step(1)
    stage.pressure()
    stage.backlog.enter(-1)
    stage.backlog.enter(95)
    stage.feed.extend(notifications(101, 200))
    stage.feed.trim(191)
    stage.backlog.free()
    assert min(stage.feed.retained.notifications) == 96


def test_a_place_is_held_for_who_is_about_to_come_and_not_for_ever() -> None:
    stage = Stage(100, 91)
    stage.backlog.hold(50, NOW + 1)
    stage.backlog.hold(95, NOW + 2)
    stage.backlog.hold(-1, NOW + 2)
    stage.feed.extend(notifications(101, 200))
    stage.feed.trim(191)
    for now, first_seq in [(NOW, 51), (NOW + 1, 96), (NOW + 2, 191)]:
        stage.backlog.free_all(now)
        assert min(stage.feed.retained.notifications) == first_seq


def test_no_place_is_held_beyond_the_bound() -> None:
    stage = Stage(100, 91, bytes_max=20_000)
    stage.backlog.hold(1, NOW + 1)
    stage.backlog.free_all(NOW)
    assert min(stage.feed.retained.notifications) == 91


def test_what_nobody_needs_is_freed_in_slices() -> None:
    stage = Stage(3 * FREED_AT_ONCE, 3 * FREED_AT_ONCE)
    stage.client(2 * FREED_AT_ONCE, slow=True, blocked_at=NOW)
    stage.pressure()
    slices = 1
    while stage.backlog.free():
        slices += 1
    assert slices == 3, "the last one finds nothing"
    assert min(stage.feed.retained.notifications) == 2 * FREED_AT_ONCE + 1


def test_stock_is_taken_only_when_there_is_a_backlog_and_rarely_when_it_takes_long() -> None:
    stage = Stage(20, 11)
    stage.backlog.took_stock(1.0, 1.001)
    assert stage.backlog.due_at() == pytest.approx(1.021)
    stage.backlog.took_stock(1.0, 3.0)
    assert stage.backlog.due_at() == pytest.approx(3.2)
    stage.backlog.free_all(NOW)
    assert stage.backlog.due_at() == float("inf")
