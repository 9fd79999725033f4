"""Tells operators how a hub is doing: gauges, the age of events, one line when streams had to go.

Enters: one hub's feed and numbers. Leaves: metrics, log lines. Never: deciding.
"""

import math
import time
from collections.abc import Callable

import structlog
import trio
from prometheus_client import Gauge, Histogram

from noti.streams.config import HubConfig
from noti.streams.retained import Retained
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.streams")

AGE = Histogram(
    "noti_web_event_age_seconds",
    "Time from the publisher to the end of the pass that sent an event, for the oldest of each.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
HISTORY_BYTES = Gauge("noti_web_history_bytes", "Memory of what can be resumed from.")
BACKLOG_BYTES = Gauge("noti_web_backlog_bytes", "Memory of older events that streams still need.")
BACKLOG_BYTES_MAX = Gauge("noti_web_backlog_bytes_max", "Bound of that, for each stream.")
PRESSURE = Gauge("noti_web_pressure", "Share of the backlog's bound that streams that read need.")


class Measures:
    """What is told of one hub."""

    def __init__(
        self, config: HubConfig, retained: Retained, pressure: Callable[[], float]
    ) -> None:
        """`pressure` and the retained bytes are asked for when somebody wants to know."""
        self._config = config
        self._retained = retained
        self._pressure = pressure
        self._oldest_ms = math.inf
        self._throttled = ThrottledLog(trio.current_time)
        self._untold = 0

    def show(self) -> None:
        """Let the gauges of this process be those of this hub."""
        retained = self._retained
        BACKLOG_BYTES_MAX.set(self._config.backlog_bytes)
        HISTORY_BYTES.set_function(lambda: retained.history_bytes)
        BACKLOG_BYTES.set_function(lambda: retained.backlog_bytes)
        PRESSURE.set_function(self._pressure)

    def sends(self, created_ms: int) -> None:
        """Note that events are sent, the first of which was made then."""
        self._oldest_ms = min(self._oldest_ms, created_ms)

    def passed(self) -> None:
        """Note that everybody has had a turn: the oldest of what was sent stands for all of it."""
        if self._oldest_ms < math.inf:
            AGE.observe(max(0.0, time.time() - self._oldest_ms / 1000))
            self._oldest_ms = math.inf

    def let_go(self, streams: int) -> None:
        """Say that streams had to go, in one line for many: they may be thousands."""
        self._untold += streams
        if self._throttled.log(
            log.warning,
            "streams needed older events than --sse-backlog-bytes can hold, and were ended",
            streams=self._untold,
            backlog_bytes=self._config.backlog_bytes,
        ):
            self._untold = 0
