"""What operators are told of refused peers."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.certificates.rejection_log import QUIET_S, TOLD_MAX, RefusalLog
from noti.certificates.rejections import Refusal

EXPIRED = Refusal("expired", "shows a certificate that has expired")
PLAIN = Refusal("plain", "speaks plain text")


def count(reason: str) -> float:
    name = "noti_tls_refused_total"
    return REGISTRY.get_sample_value(name, {"at": "test", "reason": reason}) or 0


def test_each_refusal_is_counted_and_each_reason_told_once_a_minute() -> None:
    now = 0.0
    refusals = RefusalLog("test", lambda: now)
    expired, plain = count("expired"), count("plain")
    with capture_logs() as logs:
        for port in range(10):
            refusals.tell("10.0.0.1", port, EXPIRED)
        refusals.tell("10.0.0.1", 1, PLAIN)
        refusals.tell("::1", 7, EXPIRED)
    assert [line["event"] for line in logs] == [
        "refused: 10.0.0.1:0 shows a certificate that has expired",
        "refused: 10.0.0.1:1 speaks plain text",
        "refused: [::1]:7 shows a certificate that has expired",
    ]
    assert (count("expired"), count("plain")) == (expired + 11, plain + 1)
    now = QUIET_S
    with capture_logs() as logs:
        refusals.tell("10.0.0.1", 5, EXPIRED)
    assert len(logs) == 1


def test_memory_is_bounded_however_many_hosts_are_refused() -> None:
    refusals = RefusalLog("test")
    for number in range(2 * TOLD_MAX):
        refusals.tell(f"host{number}", 1, PLAIN)
    assert len(refusals._told) <= TOLD_MAX
