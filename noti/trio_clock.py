"""Time for a running node: Trio's clock, which tests replace by a virtual one."""

import time

import trio


class TrioClock:
    """`noti.ports.Clock` on whatever clock Trio runs with."""

    now = staticmethod(trio.current_time)
    """Trio's monotonic seconds."""

    async def sleep_until(self, deadline: float) -> None:
        """Return when `now()` is at least `deadline`."""
        await trio.sleep_until(deadline)

    def scope_until(self, deadline: float) -> trio.CancelScope:
        """Return a scope that is cancelled at `deadline`."""
        return trio.CancelScope(deadline=deadline)

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        return time.time_ns() // 1_000_000
