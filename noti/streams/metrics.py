"""What operators see of a hub.

These are gauges, counters, the age of events, and one log line when streams had to be ended.
"""

import math
import time
from collections.abc import Callable

import structlog
import trio
from prometheus_client import Counter, Gauge, Histogram

from noti.streams.config import HubConfig
from noti.streams.end_reason import EndReason
from noti.streams.retained import Retained
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.streams")

OPEN = Gauge("noti_streams_clients", "Streams open now.")
OPEN_MAX = Gauge("noti_streams_clients_max", "Streams that there may be.")
OPENED = Counter("noti_streams_clients_opened_total", "Streams opened.")
CLOSED = Counter("noti_streams_clients_closed_total", "Streams closed, by reason.", ["reason"])
DELIVERIES = Counter("noti_streams_deliveries_total", "Events handed to clients' connections.")
SENT = Counter("noti_streams_sent_bytes_total", "Bytes handed to clients' connections.")
AGE = Histogram(
    "noti_streams_event_age_seconds",
    "Time from the publisher to the end of the pass that sent an event, for the oldest of each.",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
HISTORY_BYTES = Gauge("noti_streams_history_bytes", "Memory of what can be resumed from.")
BACKLOG_BYTES = Gauge(
    "noti_streams_backlog_bytes", "Memory of older events that streams still need."
)
BACKLOG_BYTES_MAX = Gauge("noti_streams_backlog_bytes_max", "Bound of that, for each stream.")
PRESSURE = Gauge(
    "noti_streams_pressure", "Share of the backlog's bound that streams that read need."
)

CLOSED_FOR = {reason: CLOSED.labels(reason.value) for reason in EndReason}
"""Looked up once; every reason is shown from the start."""


class HubMetrics:
    """The metrics of one hub."""

    def __init__(
        self,
        config: HubConfig,
        retained: Retained,
        streams: Callable[[], int],
        pressure: Callable[[], float],
    ) -> None:
        """All but the configuration is looked up whenever metrics are read."""
        self._config = config
        self._retained = retained
        self._streams = streams
        self._pressure = pressure
        self._oldest_ms = math.inf
        self._throttled = ThrottledLog(trio.current_time)
        self._unlogged = 0

    def show(self) -> None:
        """Let the gauges of this process be those of this hub."""
        retained = self._retained
        OPEN.set_function(self._streams)
        OPEN_MAX.set(self._config.clients_max)
        BACKLOG_BYTES_MAX.set(self._config.backlog_bytes)
        HISTORY_BYTES.set_function(lambda: retained.history_bytes)
        BACKLOG_BYTES.set_function(lambda: retained.backlog_bytes)
        PRESSURE.set_function(self._pressure)

    def sends(self, created_ms: int) -> None:
        """Note that events are sent, the first of which was made then."""
        self._oldest_ms = min(self._oldest_ms, created_ms)

    def passed(self) -> None:
        """Note the end of a pass: the oldest of what was sent stands for all of it."""
        if self._oldest_ms < math.inf:
            AGE.observe(max(0.0, time.time() - self._oldest_ms / 1000))
            self._oldest_ms = math.inf

    def ended_early(self, streams: int) -> None:
        """Log that streams had to be ended, in one line for many: they may be thousands."""
        self._unlogged += streams
        if self._throttled.log(
            log.warning,
            "streams needed older events than --sse-backlog-bytes can hold, and were ended",
            streams=self._unlogged,
            backlog_bytes=self._config.backlog_bytes,
        ):
            self._unlogged = 0
