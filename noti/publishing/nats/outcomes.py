"""Counts what becomes of the messages of one stream, and tells of dead letters."""

from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter, Histogram

from noti.ports import Clock
from noti.publishing.nats.ports import DeadLetter

log = structlog.get_logger("noti.publishing")

EVENTS: Final = Counter(
    "noti_source_events_total",
    "Messages of the source, by outcome: `committed` or `dead_letter`.",
    ["stream", "outcome"],
)
COMMIT_S: Final = Histogram(
    "noti_source_commit_seconds",
    "Time from the source's taking a message to its event's commit; of the oldest of each batch.",
    ["stream"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600),
)

_TOLD_MAX: Final = 5
"""Lines for the dead letters of one batch; a publisher that errs, errs often."""


class Outcomes:
    """Of one stream, on this node."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._committed = EVENTS.labels(name, "committed")
        self._dead = EVENTS.labels(name, "dead_letter")
        self._commit_s = COMMIT_S.labels(name)
        self.committed_count = 0
        self.dead_letter_count = 0
        # Stream and sequence of the last dead letter, so that it is counted once.
        self._last_dead: tuple[str, int] = ("", 0)

    def committed(self, count: int, oldest_ms: int) -> None:
        """Note so many events as committed, the first of which the source took at `oldest_ms`."""
        self.committed_count += count
        self._committed.inc(count)
        self._commit_s.observe(max(0, self._clock.wall_ms() - oldest_ms) / 1000)

    def dead_letters(self, stream: str, letters: Sequence[DeadLetter]) -> None:
        """Count and tell those that were not yet; they may come again with a new session."""
        known_stream, known_seq = self._last_dead
        news = [
            letter for letter in letters if stream != known_stream or letter.message.seq > known_seq
        ]
        if not news:
            return
        self._last_dead = stream, news[-1].message.seq
        self.dead_letter_count += len(news)
        self._dead.inc(len(news))
        for letter in news[:_TOLD_MAX]:
            log.warning(
                "a message can never be an event",
                stream=stream,
                seq=letter.message.seq,
                subject=letter.message.subject,
                error=letter.reason,
            )
        if len(news) > _TOLD_MAX:
            log.warning(
                "more messages can never be events", stream=stream, count=len(news) - _TOLD_MAX
            )
