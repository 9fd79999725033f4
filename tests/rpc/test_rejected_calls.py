"""What callers sent that no caller should: counted each time, told once a minute."""

from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.rpc.rejected_calls import RejectedCalls
from noti.throttled_log import INTERVAL_S


class Transport:
    def __init__(self, host: str) -> None:
        self._host = host

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        assert name == "peername"
        return (self._host, 4711) if self._host else None


def counted() -> float:
    return REGISTRY.get_sample_value("noti_rpc_rejected_total", {"kind": "hello"}) or 0.0


def test_every_rejection_is_counted_and_each_host_and_kind_is_throttled() -> None:
    now, before = 100.0, counted()
    rejected = RejectedCalls(lambda: now)
    with capture_logs() as records:
        for _ in range(3):
            rejected.report(Transport("10.0.0.1"), "hello", "no hello")
        rejected.report(Transport("10.0.0.2"), "hello", "no hello")
        rejected.report(Transport("10.0.0.1"), "http2", "no frame")
        now += INTERVAL_S
        rejected.report(Transport("10.0.0.1"), "hello", "still no hello")
    assert counted() == before + 5
    assert [(r["peer"], r["reason"]) for r in records] == [
        ("10.0.0.1:4711", "no hello"),
        ("10.0.0.2:4711", "no hello"),
        ("10.0.0.1:4711", "no frame"),
        ("10.0.0.1:4711", "still no hello"),
    ]


def test_client_that_has_left_already_is_logged_all_the_same() -> None:
    with capture_logs() as records:
        RejectedCalls().report(Transport(""), "hello", "no hello")
    assert [record["peer"] for record in records] == ["?:0"]
