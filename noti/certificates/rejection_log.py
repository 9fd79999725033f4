"""Counts and tells who was refused for the sake of TLS, on every listener and dialer.

Enters: refusals, from the side that refuses or was refused. Leaves: a counter, log lines. Never:
more than one line a minute for one peer and one reason; a text of the peer's.
"""

import time
from collections.abc import Callable

import structlog
from prometheus_client import Counter

from noti.address import format_address
from noti.certificates.rejections import Refusal

log = structlog.get_logger("noti.certificates")

QUIET_S = 60.0
"""Peers dial again every second; an operator needs to be told once."""
TOLD_MAX = 1000
"""Pairs of peer and reason that are remembered; more is an attack, and then all is forgotten."""

_REFUSED = Counter(
    "noti_tls_refused_total", "Connections and calls refused for the sake of TLS.", ["at", "reason"]
)


class RefusalLog:
    """The refusals at one place: `rpc` or `http`."""

    def __init__(self, at: str, now: Callable[[], float] = time.monotonic) -> None:
        self._at = at
        self._now = now
        self._told: dict[tuple[str, str], float] = {}

    def tell(self, host: str, port: int, refusal: Refusal) -> None:
        """Count a refusal, and log it if this host's last one for this reason was long ago."""
        _REFUSED.labels(self._at, refusal.reason).inc()
        now = self._now()
        told_at = self._told.get((host, refusal.reason))
        if told_at is not None and now - told_at < QUIET_S:
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told[host, refusal.reason] = now
        log.warning(
            f"refused: {format_address((host, port))} {refusal}", at=self._at, reason=refusal.reason
        )
