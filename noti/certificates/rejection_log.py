"""Counts and logs who was rejected because of TLS, or let pass without it, on either side.

No text of a peer's is logged.
"""

import time
from collections.abc import Callable
from typing import get_args

import structlog
from prometheus_client import Counter

from noti.address import format_address
from noti.certificates.rejections import Reason, Rejection
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.certificates")

_REJECTED = Counter(
    "noti_tls_rejected_total",
    "Connections and calls rejected because of TLS.",
    ["at", "reason"],
)
_PLAIN = Counter(
    "noti_tls_plain_total",
    "Connections without TLS where it is on, which a mode of `permissive` allows.",
    ["at"],
)


class RejectionLog:
    """The rejections at one place: `rpc` or `http`."""

    def __init__(self, at: str, now: Callable[[], float] = time.monotonic) -> None:
        self._at = at
        self._throttled = ThrottledLog(now)
        _PLAIN.labels(at)
        for reason in get_args(Reason):
            _REJECTED.labels(at, reason)  # from zero, as alerts see only what grows

    def log(self, host: str, port: int, rejection: Rejection) -> None:
        """Count a rejection, and log it, throttled for each host and reason."""
        _REJECTED.labels(self._at, rejection.reason).inc()
        self._throttled.log(
            log.warning,
            f"rejected: {format_address((host, port))} {rejection}",
            (host, rejection.reason),
            at=self._at,
            reason=rejection.reason,
        )

    def let_pass(self, host: str, port: int, why: str) -> None:
        """Count a connection without TLS that is used all the same, and log one now and then."""
        _PLAIN.labels(self._at).inc()
        self._throttled.log(
            log.info,
            f"used without TLS, as the mode is permissive: {format_address((host, port))} {why}",
            at=self._at,
        )
