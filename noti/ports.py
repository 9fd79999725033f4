"""What several rooms ask of the world.

A port that one room needs lives in that room (`ports` there), and a port has a real and an in-
memory version; the same contract suite (tests/contract) runs against both. No foreign exception
crosses one: adapters translate into `noti.errors`.
"""

from typing import Protocol

import trio


class Clock(Protocol):
    """Time. Monotonic seconds for decisions, wall time only as data."""

    def now(self) -> float:
        """Return monotonic seconds; only differences mean anything."""

    async def sleep_until(self, deadline: float) -> None:
        """Return when `now()` is at least `deadline`. A checkpoint, cancellable."""

    def scope_until(self, deadline: float) -> trio.CancelScope:
        """Return a scope, to be entered at once, that `deadline` on this clock cancels."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970: data, compared only with what others date (a token)."""
