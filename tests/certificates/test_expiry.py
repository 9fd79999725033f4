"""The warning ahead of a certificate's end."""

from datetime import UTC, datetime, timedelta

import pytest

from noti.certificates.expiry import expiry_notice, expiry_timestamp

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def test_no_notice_while_more_than_thirty_days_remain() -> None:
    assert expiry_notice(NOW + timedelta(days=30, seconds=1), NOW) is None


@pytest.mark.parametrize(
    ("left", "notice"),
    [
        (timedelta(days=29, hours=1), "expires in 29 days, on 2026-05-30 13:00 UTC: renew it"),
        (timedelta(hours=5), "expires in 5 hours, on 2026-05-01 17:00 UTC: renew it now"),
        (timedelta(hours=-1), "expired on 2026-05-01 11:00 UTC: renew it now"),
    ],
)
def test_notice_states_how_long_and_until_when(left: timedelta, notice: str) -> None:
    assert expiry_notice(NOW + left, NOW) == notice


def test_metric_is_unix_time() -> None:
    assert expiry_timestamp(datetime(1970, 1, 1, 0, 1, tzinfo=UTC)) == 60.0
