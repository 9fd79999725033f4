"""What many clients saw, as numbers that add up over processes.

Enters: counts and delays. Leaves: totals and percentiles.
Never: I/O, clocks, one record per delivery.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

DELAY_STEP_NS: Final = 20_000
"""Delays are counted in steps of 20 us: finer than a process is woken up."""


@dataclass(slots=True)
class Tally:
    """Deliveries of one stretch of time."""

    events: int = 0
    """Events received, each client's counted."""
    received_bytes: int = 0
    lost: int = 0
    """Events that a client never got although it got a later one, or the run ended."""
    repeated: int = 0
    """Events that a client had already, or that came after a later one."""
    ended: int = 0
    """Streams that the server ended or broke, or that could not be opened."""
    finished: int = 0
    """Those of them that ended in order."""
    delays: Counter[int] = field(default_factory=Counter)
    """Deliveries by delay from publication to the client's read, in steps of `DELAY_STEP_NS`."""

    def add(self, other: Self) -> None:
        """Take in what another process counted."""
        self.events += other.events
        self.received_bytes += other.received_bytes
        self.lost += other.lost
        self.repeated += other.repeated
        self.ended += other.ended
        self.finished += other.finished
        self.delays.update(other.delays)

    def delay_ms(self, share: float) -> float:
        """Return the delay that `share` (0 to 1) of the deliveries do not exceed (nearest rank).

        0.0 without deliveries; never flattering, as a step counts with its upper end.
        """
        wanted = share * self.delays.total()
        passed = 0
        step = -1
        for step in sorted(self.delays):
            passed += self.delays[step]
            if passed >= wanted:
                break
        return (step + 1) * DELAY_STEP_NS / 1e6

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "events": self.events,
            "received_bytes": self.received_bytes,
            "lost": self.lost,
            "repeated": self.repeated,
            "ended": self.ended,
            "finished": self.finished,
            "delays": sorted(self.delays.items()),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Return what `as_json` made."""
        delays = Counter({int(step): int(count) for step, count in document["delays"]})
        return cls(**{**document, "delays": delays})
