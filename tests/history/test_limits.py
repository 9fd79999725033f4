"""The limits of an empty log."""

from noti.history.limits import NO_LIMIT, HistoryLimits


def test_limits_of_an_empty_log_are_those_of_old_versions_which_knew_only_the_count() -> None:
    assert HistoryLimits() == HistoryLimits(1000, NO_LIMIT, 0, 0)
