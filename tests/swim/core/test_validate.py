"""What can not be true: incarnations of the far future, versions that nobody speaks."""

import pytest

from noti.swim.core.messages import INCARNATION_MAX, VERSIONS, VERSIONS_UNKNOWN
from noti.swim.core.validate import (
    AHEAD_S_MAX,
    CLOCK_S_MIN,
    REFUTATIONS_AHEAD_MAX,
    Incarnations,
    why_versions_invalid,
)

NOW_S = 1_900_000_000


def accused(incarnation: int, started_with: int = NOW_S, now: float = 0.0) -> bool:
    return Incarnations(started_with, 0.0).why_invalid(incarnation, "n2", now, high=False) is None


@pytest.mark.parametrize("incarnation", [0, 1, NOW_S, NOW_S + 1000, NOW_S + AHEAD_S_MAX])
def test_what_a_node_or_an_agent_can_have_is_believed(incarnation: int) -> None:
    assert accused(incarnation)


@pytest.mark.parametrize(
    "incarnation", [NOW_S + AHEAD_S_MAX + 1, INCARNATION_MAX - 1, INCARNATION_MAX]
)
def test_what_is_years_ahead_is_rejected_with_that_reason(incarnation: int) -> None:
    why = Incarnations(NOW_S, 0.0).why_invalid(incarnation, "n2", 0.0, high=False)
    assert why == f"incarnation {incarnation} of n2 is more than 8 years ahead of our clock"


def test_refutation_of_the_highest_accusation_is_believed() -> None:
    highest = NOW_S + AHEAD_S_MAX
    incarnations = Incarnations(NOW_S, 0.0)
    assert incarnations.why_invalid(highest + 1, "n2", 0.0, high=True) is None
    assert (
        incarnations.why_invalid(highest + REFUTATIONS_AHEAD_MAX + 1, "n2", 0.0, high=True)
        is not None
    )


def test_what_is_above_the_limit_is_below_it_a_second_later() -> None:
    assert not accused(NOW_S + AHEAD_S_MAX + 1, now=0.9)
    assert accused(NOW_S + AHEAD_S_MAX + 1, now=1.0)


def test_node_whose_clock_began_at_zero_believes_the_others() -> None:
    assert accused(CLOCK_S_MIN + 5 * 365 * 86400, started_with=0)


def test_the_largest_number_is_rejected_whatever_our_clock_shows() -> None:
    assert not accused(INCARNATION_MAX, started_with=INCARNATION_MAX - 1000)


@pytest.mark.parametrize(
    ("versions", "believed"),
    [
        (VERSIONS, True),
        (bytes([1, 2, 2, 2, 5, 5]), True),
        (bytes([1, 5, 2, 2, 5, 4]), True),
        (VERSIONS_UNKNOWN, False),
        (bytes([3, 2, 2, 2, 5, 5]), False),
        (bytes([9, 9, 9, 9, 9, 9]), False),
        (bytes([1, 5, 2, 0, 0, 0]), False),
        (bytes([1, 5, 2, 6, 9, 7]), False),
        (bytes([1, 5, 6, 2, 5, 5]), False),
    ],
)
def test_versions_must_be_understood_on_both_sides(versions: bytes, believed: bool) -> None:
    assert (why_versions_invalid(versions, "n2") is None) is believed
