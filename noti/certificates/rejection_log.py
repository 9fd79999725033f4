"""Counts and tells who was refused for the sake of TLS, on every listener and dialer.

Enters: refusals, from the side that refuses or was refused. Leaves: a counter, log lines. Never:
a text of the peer's.
"""

import time
from collections.abc import Callable

import structlog
from prometheus_client import Counter

from noti.address import format_address
from noti.certificates.rejections import Refusal
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.certificates")

_REFUSED = Counter(
    "noti_tls_refused_total", "Connections and calls refused for the sake of TLS.", ["at", "reason"]
)


class RefusalLog:
    """The refusals at one place: `rpc` or `http`."""

    def __init__(self, at: str, now: Callable[[], float] = time.monotonic) -> None:
        self._at = at
        self._throttled = ThrottledLog(now)

    def tell(self, host: str, port: int, refusal: Refusal) -> None:
        """Count a refusal, and log it, throttled for each host and reason."""
        _REFUSED.labels(self._at, refusal.reason).inc()
        self._throttled.log(
            log.warning,
            f"refused: {format_address((host, port))} {refusal}",
            (host, refusal.reason),
            at=self._at,
            reason=refusal.reason,
        )
