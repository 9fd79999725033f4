"""When the next batch may go."""

import pytest

from noti.presence.pace import TOLD_A_SECOND, TOLD_AT_ONCE, Pace


def test_few_wait_for_nothing() -> None:
    pace = Pace(0, 0.0)
    for step in range(20):
        now = step * TOLD_AT_ONCE / TOLD_A_SECOND
        assert pace.wait_s((step + 1) * TOLD_AT_ONCE, now) == 0.0


@pytest.mark.parametrize("nodes", [1, 3, 9])
def test_many_are_told_at_the_pace_however_many_nodes_tell(nodes: int) -> None:
    told, now, until = 0, 0.0, 20.0
    pace = Pace(0, 0.0)
    while (now := now + pace.wait_s(told, now) + 0.001) < until:
        told += nodes * 250
    most = TOLD_AT_ONCE + until * TOLD_A_SECOND + nodes * 250
    assert 0.9 * until * TOLD_A_SECOND < told <= most


def test_every_wait_moves_the_clock() -> None:
    pace = Pace(0, 0.0)
    told, now = 0, 1e6
    for _ in range(200):
        told += 33
        while wait_s := pace.wait_s(told, now):
            assert now + wait_s > now
            now += wait_s


def test_quiet_time_is_not_saved_up() -> None:
    pace = Pace(0, 0.0)
    assert pace.wait_s(0, 1000.0) == 0.0
    assert pace.wait_s(TOLD_AT_ONCE + TOLD_A_SECOND, 1000.0) == pytest.approx(1.0)
