"""Counts and tells what callers sent that no caller should send.

Enters: complaints. Leaves: a counter, log lines. Never: what concerns TLS, which is counted in
`certificates/rejection_log.py`.
"""

import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import structlog
from prometheus_client import Counter

from noti.address import format_address
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.rpc")

Kind: TypeAlias = Literal[
    "http2",  # breaks the rules of HTTP/2
    "hello",  # begins a stream between nodes with anything but a hello
    "cluster",  # belongs to another cluster, or claims to be somebody else
    "request",  # asks for something to be published that does not decode
]
"""Labels of the counter: bounded, as every label must be."""

_refused = Counter("noti_rpc_refused_total", "What callers sent that was refused", ["kind"])


class Complaints:
    """The complaints of one node."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._throttled = ThrottledLog(now)

    def tell(self, transport: Any, kind: Kind, reason: str) -> None:
        """Count what came over an asyncio transport; log it, throttled for each host and kind."""
        _refused.labels(kind).inc()
        host, port = (transport.get_extra_info("peername") or ("?", 0))[:2]
        self._throttled.log(
            log.warning,
            "refused what a caller sent",
            (host, kind),
            peer=format_address((host, port)),
            kind=kind,
            reason=reason,
        )
