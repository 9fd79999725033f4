"""Counts and logs what clients sent that no client should send.

What concerns TLS is counted in `certificates/rejection_log.py`.
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
    "hello",  # begins a stream between nodes with anything but a hello, or with nothing
    "cluster",  # belongs to another cluster, or claims to be somebody else
    "stranger",  # is not in the configuration, as too many others that have dialed
    "request",  # asks for something to be published that does not decode
]
"""Labels of the counter: bounded, as every label must be."""

_counter = Counter("noti_rpc_rejected_total", "What clients sent that was rejected", ["kind"])


class RejectedCalls:
    """What one node has rejected."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._throttled = ThrottledLog(now)

    def report(self, transport: Any, kind: Kind, reason: str) -> None:
        """Count what came over an asyncio transport; log it, throttled for each host and kind."""
        _counter.labels(kind).inc()
        host, port = (transport.get_extra_info("peername") or ("?", 0))[:2]
        self._throttled.log(
            log.warning,
            "rejected what a client sent",
            (host, kind),
            peer=format_address((host, port)),
            kind=kind,
            reason=reason,
        )
