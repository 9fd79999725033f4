"""The cluster's level: when it rises, and what it says to those who are too old."""

import pytest

from noti.history.levels import SUPPORTED, TRACED_EVENTS, level_to_raise, too_old


@pytest.mark.parametrize(
    ("level", "supported", "expected"),
    [
        (0, [1, 1, 1], 1),
        (0, [1, 0, 1], None),
        (0, [1, None, 1], None),
        (0, [3, 2, 3], 2),
        (1, [1, 1], None),
        (2, [1, 1], None),
        (0, [], None),
    ],
)
def test_level_rises_to_what_every_member_supports_and_never_falls(
    level: int, supported: list[int | None], expected: int | None
) -> None:
    assert level_to_raise(level, supported) == expected


def test_who_is_too_old_is_told_what_to_install() -> None:
    assert "install 0.7.0 or newer" in too_old(TRACED_EVENTS, 0)
    assert "install the release that the other nodes run" in too_old(SUPPORTED + 1, SUPPORTED)
