"""The score of how well this node itself does."""

import pytest

from noti.swim.core.awareness import SCORE_MAX, LocalHealth, points_of_failed_probe
from noti.swim.core.events import HealthChanged
from noti.swim.core.outbox import Outbox
from noti.swim.core.timing import SwimConfig


def test_score_stays_between_well_and_eightfold_and_each_change_is_told() -> None:
    outbox = Outbox(SwimConfig())
    health = LocalHealth(outbox)
    health.improve()
    assert health.stretch(1.5) == 1.5
    health.worsen(3)
    assert health.stretch(1.5) == 6.0
    health.worsen(0)
    health.worsen(100)
    assert health.score == SCORE_MAX == 7
    assert health.stretch(1.0) == 8.0
    health.improve()
    told = [each.score for each in outbox.collect() if isinstance(each, HealthChanged)]
    assert told == [3, 7, 6]


def test_accusations_count_again_after_a_member_answered() -> None:
    health = LocalHealth(Outbox(SwimConfig()))
    for _ in range(9):
        health.on_accusation()
    assert health.score == 1
    health.worsen(1)
    health.improve()
    health.on_accusation()
    assert health.score == 2


@pytest.mark.parametrize(
    ("expected", "received", "points"),
    [(0, 0, 1), (3, 0, 3), (3, 2, 1), (3, 3, 0), (1, 5, 0)],
)
def test_failed_probe_costs_the_missing_nacks_and_one_when_none_could_come(
    expected: int, received: int, points: int
) -> None:
    assert points_of_failed_probe(expected, received) == points
