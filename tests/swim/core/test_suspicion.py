"""How long a suspicion lasts: tables from memberlist's own tests."""

import pytest

from noti.swim.core.suspicion import Suspicion, remaining_s, suspicion_min_s
from noti.swim.core.timing import SwimConfig


@pytest.mark.parametrize(
    ("members", "expected_s"),
    [(1, 3.0), (5, 3.0), (10, 3.0), (50, 5.094), (100, 6.0), (500, 8.094), (1000, 9.0)],
)
def test_shortest_suspicion_grows_with_the_logarithm_of_the_cluster(
    members: int, expected_s: float
) -> None:
    assert suspicion_min_s(3, members, 1.0) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("confirmations", "elapsed_s", "expected_s"),
    [(0, 0, 30), (1, 2, 14), (2, 3, 4.81), (3, 4, -2)],
)
def test_each_confirmation_shortens_what_remains(
    confirmations: int, elapsed_s: float, expected_s: float
) -> None:
    remains_s = remaining_s(confirmations, 3, elapsed_s, 2, 30)
    assert remains_s == pytest.approx(expected_s, abs=0.011)


def test_only_new_accusers_count_and_only_as_many_as_wanted() -> None:
    suspicion = Suspicion.begin("a", 10, SwimConfig(), 100.0)
    assert suspicion.wanted == 2
    assert suspicion.deadline() == 124.0
    assert not suspicion.confirm("a")
    assert suspicion.deadline() == 124.0
    assert suspicion.confirm("b")
    between = suspicion.deadline()
    assert 104.0 < between < 124.0
    assert not suspicion.confirm("b")
    assert suspicion.deadline() == between
    assert suspicion.confirm("c")
    assert suspicion.deadline() == 104.0
    assert not suspicion.confirm("d")


@pytest.mark.parametrize("members", [1, 2, 3])
def test_nobody_is_waited_for_in_a_cluster_too_small_to_confirm(members: int) -> None:
    suspicion = Suspicion.begin("a", members, SwimConfig(), 0.0)
    assert suspicion.deadline() == 4.0
    assert not suspicion.confirm("b")


@pytest.mark.parametrize(("confirmations", "share"), [(0, 1.0), (1, 0.75), (2, 0.6), (3, 0.5)])
def test_suspicion_is_the_longest_until_others_share_it(confirmations: int, share: float) -> None:
    config = SwimConfig(suspicion_multiplier=5, suspicion_max_multiplier=2)
    suspicion = Suspicion.begin("a", 5, config, 0.0)
    for number in range(confirmations):
        assert suspicion.confirm(f"n{number}")
    assert suspicion.deadline() == pytest.approx(10.0 * share, abs=0.1)


def test_late_confirmation_ends_a_suspicion_that_has_lasted_long_enough() -> None:
    suspicion = Suspicion.begin("a", 10, SwimConfig(), 100.0)
    now = 110.0
    assert suspicion.deadline() > now
    suspicion.confirm("b")
    suspicion.confirm("c")
    assert suspicion.deadline() < now


def test_postponed_suspicion_ends_no_sooner_whoever_confirms_it() -> None:
    suspicion = Suspicion.begin("a", 10, SwimConfig(), 100.0)
    suspicion.not_before = 130.0
    for name in "bcd":
        suspicion.confirm(name)
    suspicion.shorten(101.0, 0.5)
    assert suspicion.deadline() == 130.0
