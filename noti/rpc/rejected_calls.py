"""Counts and tells what callers sent that no caller should send.

Enters: complaints. Leaves: a counter, log lines. Never: more than one line a minute for one host
and one kind; what concerns TLS, which is counted in `certificates/refusal_log.py`.
"""

import time
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

import structlog
from prometheus_client import Counter

from noti.address import format_address

log = structlog.get_logger("noti.rpc")

Kind: TypeAlias = Literal[
    "http2",  # breaks the rules of HTTP/2
    "hello",  # begins a stream between nodes with anything but a hello
    "cluster",  # belongs to another cluster, or claims to be somebody else
    "request",  # asks for something to be published that does not decode
]
"""Labels of the counter: bounded, as every label must be."""

QUIET_S: Final = 60.0
"""Whoever is broken says so again and again; an operator needs to be told once."""
TOLD_MAX: Final = 1000
"""Pairs of host and kind that are remembered; more is an attack, and then all is forgotten."""

_refused = Counter("noti_rpc_refused_total", "What callers sent that was refused", ["kind"])


class Complaints:
    """The complaints of one node."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._told: dict[tuple[str, Kind], float] = {}

    def tell(self, transport: Any, kind: Kind, reason: str) -> None:
        """Count what came over an asyncio transport, and log it if that is news."""
        _refused.labels(kind).inc()
        host, port = (transport.get_extra_info("peername") or ("?", 0))[:2]
        now = self._now()
        told_at = self._told.get((host, kind))
        if told_at is not None and now - told_at < QUIET_S:
            return
        if len(self._told) >= TOLD_MAX:
            self._told.clear()
        self._told[host, kind] = now
        log.warning(
            "refused what a caller sent",
            peer=format_address((host, port)),
            kind=kind,
            reason=reason,
        )
