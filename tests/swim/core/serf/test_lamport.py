"""Lamport clocks, and telling what is new."""

import pytest

from noti.errors import MessageInvalid
from noti.swim.core.serf.lamport import AHEAD_MAX, TIMES_MAX, LamportClock, RecentItems


def at(time: int) -> LamportClock:
    clock = LamportClock()
    clock.time = time
    return clock


def test_own_times_rise_and_are_above_all_that_was_witnessed() -> None:
    clock = LamportClock()
    assert [clock.tick(), clock.tick()] == [1, 2]
    clock.witness(10)
    clock.witness(4)
    assert clock.tick() == 11


def test_time_far_ahead_is_rejected_and_changes_nothing() -> None:
    clock = LamportClock()
    clock.witness(1 + AHEAD_MAX)
    with pytest.raises(MessageInvalid):
        clock.witness(clock.time + AHEAD_MAX + 1)
    assert clock.time == AHEAD_MAX + 2


def test_different_items_of_one_time_are_each_new_once() -> None:
    recent: RecentItems[str] = RecentItems(10)
    clock = at(6)
    assert [recent.add(5, item, clock) for item in ("a", "b", "a", "b")] == [
        True,
        True,
        False,
        False,
    ]


def test_item_older_than_the_window_is_dropped_and_one_at_its_edge_is_not() -> None:
    recent: RecentItems[str] = RecentItems(10)
    clock = at(1000)
    assert recent.add(1000 - TIMES_MAX, "edge", clock)
    assert not recent.add(1000 - TIMES_MAX - 1, "old", clock)


def test_of_too_many_items_the_oldest_go_and_are_not_new_again() -> None:
    recent: RecentItems[int] = RecentItems(100)
    clock = at(50)
    for number in range(300):
        recent.add(10 + number // 10, number, clock)
    assert sum(len(items) for _, items in recent.by_time()) <= 100
    assert not recent.add(10, 0, clock)
    assert recent.add(45, 7, clock)


def test_items_of_before_a_time_can_be_dropped() -> None:
    recent: RecentItems[str] = RecentItems(10)
    recent.drop_until(7)
    recent.drop_until(3)
    assert [recent.add(time, "a", at(9)) for time in (7, 8)] == [False, True]
