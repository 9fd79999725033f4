"""Promises of the timetable."""

import math
import random

from noti.streams.config import HubConfig
from noti.streams.schedule import Schedule


def timetable(**settings: float) -> Schedule:
    times = Schedule(HubConfig(**settings), random.Random(1))  # type: ignore[arg-type]
    times.begin(100.0)
    return times


def test_clients_are_looked_at_four_times_while_they_may_stall_and_often_in_a_hurry() -> None:
    times = timetable(stall_timeout_s=10.0, heartbeat_s=300.0)
    assert times.sweep_at == 102.5
    times.hurry(101.0, 105.0)
    assert times.sweep_at == 101.0
    times.plan(101.0)
    assert times.sweep_at == 101.05
    times.plan(105.0)
    assert times.sweep_at == 107.5


def test_heartbeats_are_considered_twice_in_their_time() -> None:
    times = timetable(heartbeat_s=10.0, stall_timeout_s=300.0)
    assert times.sweep_at == 105.0
    assert times.sweep(104.0)[0] is False
    assert times.sweep(105.0)[0] is True
    assert times.sweep(106.0)[0] is False


def test_no_look_blames_clients_for_longer_than_it_should_have_taken() -> None:
    times = timetable(stall_timeout_s=10.0)
    assert times.sweep(102.0)[1] == 2.0
    assert times.sweep(150.0)[1] == 2.5, "the process was stopped"


def test_streams_end_at_their_age_or_never() -> None:
    assert timetable(lifetime_s=0.0).end_of_stream(1.0) == math.inf
    ends = {timetable(lifetime_s=100.0).end_of_stream(0.0) for _ in range(5)}
    assert all(90 <= end <= 110 for end in ends)
