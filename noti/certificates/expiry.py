"""When a certificate expires, as a warning ahead of time and as a number to alert on."""

from datetime import UTC, datetime, timedelta

NOTICE_BEFORE = timedelta(days=30)
"""A third of the 90 days that we issue for: the usual time to renew (Let's Encrypt advises it)."""


def expiry_notice(not_after: datetime, now: datetime) -> str | None:
    """Return a line when less than 30 days remain, or none; both times have a time zone."""
    left = not_after - now
    if left > NOTICE_BEFORE:
        return None
    when = moment(not_after)
    if left < timedelta(0):
        return f"expired on {when}: renew it now"
    if left < timedelta(days=2):
        return f"expires in {int(left.total_seconds() // 3600)} hours, on {when}: renew it now"
    return f"expires in {left.days} days, on {when}: renew it"


def expiry_timestamp(not_after: datetime) -> float:
    """Return the end as Unix time, seconds: the value of the metric.

    A time, not a remainder, as Prometheus advises: it is right even while it is not updated.
    """
    return not_after.timestamp()


def moment(when: datetime) -> str:
    """Return a time as people read it, to the minute."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
