"""What operators see of the reader of events: its state since when, and how far it is behind.

It shows that in metrics and in `/status`, and never asks the source: a question would stand in the
way of reading.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import Gauge

from noti.ports import Clock
from noti.publishing.nats.ports import SourceLag, SourceSession

State: TypeAlias = Literal["standby", "connecting", "reading", "waiting", "failed"]
"""`standby`: another node reads. `waiting`: for the next attempt. `failed`: the same, after an
error that nobody foresaw; its traceback is in the log."""

_TROUBLE: Final = ("connecting", "waiting", "failed")
"""These alternate while the source is away, and are one episode."""

STATE: Final = Gauge(
    "noti_source_state", "1 for what the reader of a stream does.", ["stream", "state"]
)
PENDING: Final = Gauge(
    "noti_source_pending",
    "Messages of a stream that were not delivered to this node yet.",
    ["stream"],
)
UNACKNOWLEDGED: Final = Gauge(
    "noti_source_unacknowledged",
    "Messages that this node has got and that are neither committed nor acknowledged.",
    ["stream"],
)
OLDEST: Final = Gauge(
    "noti_source_oldest_unacknowledged_seconds",
    "Age of the oldest of these messages.",
    ["stream"],
)

NO_LAG: Final = SourceLag(0, 0, None)


class Gauges:
    """Of one reader."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._session: SourceSession | None = None
        self._state: State = "standby"
        self.error: str | None = None
        """Why it does not read, if it should."""
        self._since, self._since_ms = clock.now(), clock.wall_ms()

    def enter(self, state: State, error: str | None) -> None:
        """Note a state."""
        if state != self._state and not (state in _TROUBLE and self._state in _TROUBLE):
            self._since, self._since_ms = self._clock.now(), self._clock.wall_ms()
        self._state, self.error = state, error
        for one in get_args(State):
            STATE.labels(self._name, one).set(one == state)
        # A scrape gets the figures of that moment.
        PENDING.labels(self._name).set_function(lambda: self._lag().pending)
        UNACKNOWLEDGED.labels(self._name).set_function(lambda: self._lag().unacknowledged)
        OLDEST.labels(self._name).set_function(self._oldest_s)

    @contextmanager
    def reading(self, session: SourceSession) -> Iterator[None]:
        """Take the lag from this session meanwhile."""
        self._session = session
        try:
            yield
        finally:
            self._session = None

    def status(self) -> dict[str, object]:
        """Return what `/status` shows of it.

        `since` is RFC 3339: since when it reads, stands by, or fails to do either.
        """
        lag, since = self._lag(), datetime.fromtimestamp(self._since_ms / 1000, UTC)
        return {
            "state": self._state,
            "error": self.error or lag.trouble,
            "since": since.isoformat(timespec="milliseconds"),
            "for_s": round(self._clock.now() - self._since, 1),
            "pending": lag.pending,
            "unacknowledged": lag.unacknowledged,
            "oldest_unacknowledged_s": self._oldest_s(),
        }

    def _lag(self) -> SourceLag:
        return NO_LAG if self._session is None else self._session.lag()

    def _oldest_s(self) -> float:
        oldest_ms = self._lag().oldest_ms
        return 0.0 if oldest_ms is None else max(0, self._clock.wall_ms() - oldest_ms) / 1000
