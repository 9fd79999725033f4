"""What operators are told of rejected peers."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.certificates.rejection_log import RejectionLog
from noti.certificates.rejections import Rejection
from noti.throttled_log import INTERVAL_S

EXPIRED = Rejection("expired", "shows a certificate that has expired")
PLAIN = Rejection("plain", "speaks plain text")


def count(reason: str) -> float:
    name = "noti_tls_rejected_total"
    return REGISTRY.get_sample_value(name, {"at": "test", "reason": reason}) or 0


def test_every_reason_is_counted_from_zero() -> None:
    """An alert on a rate misses the first event of a series that comes with it."""
    RejectionLog("nobody yet")
    for reason in ("expired", "plain"):
        labels = {"at": "nobody yet", "reason": reason}
        assert REGISTRY.get_sample_value("noti_tls_rejected_total", labels) == 0
    assert REGISTRY.get_sample_value("noti_tls_plain_total", {"at": "nobody yet"}) == 0


def test_each_rejection_is_counted_and_each_host_and_reason_is_throttled() -> None:
    now = 0.0
    rejections = RejectionLog("test", lambda: now)
    expired, plain = count("expired"), count("plain")
    with capture_logs() as logs:
        for port in range(10):
            rejections.log("10.0.0.1", port, EXPIRED)
        rejections.log("10.0.0.1", 1, PLAIN)
        rejections.log("::1", 7, EXPIRED)
    assert [line["event"] for line in logs] == [
        "rejected: 10.0.0.1:0 shows a certificate that has expired",
        "rejected: 10.0.0.1:1 speaks plain text",
        "rejected: [::1]:7 shows a certificate that has expired",
    ]
    assert (count("expired"), count("plain")) == (expired + 11, plain + 1)
    now = INTERVAL_S
    with capture_logs() as logs:
        rejections.log("10.0.0.1", 5, EXPIRED)
    assert len(logs) == 1


def test_who_may_pass_without_tls_is_counted_and_told_once_a_minute_for_all() -> None:
    name, labels = "noti_tls_plain_total", {"at": "test"}
    before = REGISTRY.get_sample_value(name, labels) or 0
    rejections = RejectionLog("test", lambda: 0.0)
    with capture_logs() as logs:
        for last in range(10):
            rejections.let_pass(f"10.0.0.{last}", 7, "speaks plain text")
    assert REGISTRY.get_sample_value(name, labels) == before + 10
    assert [line["event"] for line in logs] == [
        "used without TLS, as the mode is permissive: 10.0.0.0:7 speaks plain text"
    ]
