"""Promises of the backlog: who holds memory, who must go, and whose lateness slows the intake."""

from dataclasses import dataclass, field
from unittest.mock import sentinel

import pytest

from noti.streams.backlog import FREED_AT_ONCE, SLOW_CLIENTS_MIN, Apart, Backlog
from noti.streams.clients import Client, Stay
from noti.streams.feed import Audience, Feed, View
from noti.streams.groups import Groups
from tests import promises
from tests.http.stage import notifications

ALL = Audience(View.MERCURE, frozenset({"*"}))
NOW = 100.0
SINCE = NOW - 2.5


@dataclass
class Stage:
    """A hub's records of its clients, without a hub."""

    newest: int
    oldest: int
    bytes_max: int = 1_000_000
    behind: dict[int, Client] = field(default_factory=dict)
    apart: set[Stay] = field(default_factory=set)
    clients: int = 0

    def __post_init__(self) -> None:
        self.feed = Feed()
        self.groups = Groups(self.feed)
        self.group = self.groups.enter(ALL)
        self.feed.extend(notifications(1, self.newest))
        self.feed.trim(self.oldest)
        self.backlog = Backlog(
            self.feed, self.groups, Apart(self.behind, {}, self.apart), self.bytes_max
        )
        self.groups.pass_on()
        self.groups.settle(self.group)

    def client(self, cursor: int, *, slow: bool, blocked_at: float | None = None) -> Stay:
        stay = Stay(self.group, "", 0.0, cursor, False, slow=slow)
        stay.blocked, stay.blocked_at = blocked_at is not None, blocked_at or 0.0
        self.apart.add(stay)
        self.clients += 1
        return stay

    def in_step(self, count: int) -> None:
        self.clients += count

    def pressure(self) -> float:
        self.backlog.take_stock(self.clients, SINCE, NOW)
        return self.backlog.pressure

    def share(self, cursor: int) -> float:
        return self.feed.retained.beyond(cursor) / self.bytes_max


def test_a_client_that_the_hub_is_late_for_tells_the_pressure_alone() -> None:
    stage = Stage(200, 191)
    stage.in_step(1000)
    assert stage.pressure() == 0.0
    stage.client(50, slow=False)
    assert stage.pressure() == stage.share(50) > 0.0


def test_a_group_that_the_hub_is_late_for_tells_it_too() -> None:
    stage = Stage(200, 191)
    client = Client(stage.group, "", 0.0, 0, False, sock=sentinel.sock, fd=7)
    stage.group.in_step[7] = client
    stage.group.cursor, stage.group.lagging = 20, True
    stage.groups.lagging[ALL] = stage.group
    stage.clients = 1
    assert stage.pressure() == stage.share(20)


@promises.HOSTILE_CLIENT_HARMS_NOBODY
@pytest.mark.parametrize("slow", [1, SLOW_CLIENTS_MIN, 40])
def test_a_minority_of_slow_clients_never_slows_the_intake(slow: int) -> None:
    stage = Stage(200, 191)
    stage.in_step(60)
    for _ in range(slow):
        stage.client(10, slow=True, blocked_at=NOW)
    assert stage.pressure() == 0.0


def test_few_slow_clients_alone_on_a_node_say_nothing_about_it() -> None:
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
        stage.client(1, slow=True, blocked_at=SINCE - 1)  # these do not read
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
    stage.pressure()
    assert stage.backlog.overdrawn() == [far]
    stage.apart.remove(far)
    stage.pressure()
    assert stage.backlog.overdrawn() == []
    assert {near, edge} == stage.apart


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
    assert stage.feed.retained.first_seq == 96


def test_a_place_is_held_for_who_is_about_to_come_and_not_for_ever() -> None:
    stage = Stage(100, 91)
    stage.backlog.hold(50, NOW + 1)
    stage.backlog.hold(95, NOW + 2)
    stage.backlog.hold(-1, NOW + 2)
    stage.feed.extend(notifications(101, 200))
    stage.feed.trim(191)
    for now, first_seq in [(NOW, 51), (NOW + 1, 96), (NOW + 2, 191)]:
        stage.backlog.free_all(now)
        assert stage.feed.retained.first_seq == first_seq


def test_no_place_is_held_beyond_the_bound() -> None:
    stage = Stage(100, 91, bytes_max=50_000)
    stage.backlog.hold(1, NOW + 1)
    stage.backlog.free_all(NOW)
    assert stage.feed.retained.first_seq == 91


def test_what_nobody_needs_is_freed_in_slices() -> None:
    stage = Stage(3 * FREED_AT_ONCE, 3 * FREED_AT_ONCE)
    stage.client(2 * FREED_AT_ONCE, slow=True, blocked_at=NOW)
    stage.pressure()
    slices = 1
    while stage.backlog.free():
        slices += 1
    assert slices == 2
    assert stage.feed.retained.first_seq == 2 * FREED_AT_ONCE + 1


def test_stock_is_taken_only_when_there_is_a_backlog_and_rarely_when_it_takes_long() -> None:
    stage = Stage(20, 11)
    stage.backlog.took_stock(1.0, 1.001)
    assert stage.backlog.due_at() == pytest.approx(1.021)
    stage.backlog.took_stock(1.0, 3.0)
    assert stage.backlog.due_at() == pytest.approx(3.2)
    stage.backlog.free_all(NOW)
    assert stage.backlog.due_at() == float("inf")
