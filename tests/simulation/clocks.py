"""The clock of one simulated machine: its own rate, a wall clock that jumps, a process that stops.

Enters: Trio's virtual time. Leaves: the machine's time (the `Clock` port). Never: real time.

Freezing is SIGSTOP or a virtual machine that is not scheduled: time goes on, the process does not.
Everything that would wake the process asks `thawed` first: timers here, and disk, streams, source
and browsers in their memory versions.
"""

import math

import trio

from noti.trio_clock import TrioClock
from tests.simulation.alarm import now, sleep_until

EPSILON_S = 1e-7
"""A timer is a little late, so that rounding cannot make it early, for ever."""


class MachineClock(TrioClock):
    """Survives the process, as a machine's clock does."""

    def __init__(self, rate: float = 1.0, offset_s: float = 0.0) -> None:
        self._rate = rate
        self._offset_s = offset_s
        self._thawed: trio.Event | None = None
        self._scopes: list[tuple[float, trio.CancelScope]] = []
        self._wall_ahead_ms = 0

    @property
    def frozen(self) -> bool:
        return self._thawed is not None

    def freeze(self) -> None:
        """Let nothing that waits on this clock go on."""
        if self._thawed is None:
            self._thawed = trio.Event()
            for _, scope in self._scopes:
                scope.deadline = math.inf

    def thaw(self) -> None:
        """Let everything that is due go on."""
        if self._thawed is not None:
            for at, scope in self._scopes:
                scope.deadline = at
            self._thawed.set()
            self._thawed = None

    async def thawed(self) -> None:
        """Return when the process runs; at once, without a checkpoint, when it does."""
        while self._thawed is not None:
            await self._thawed.wait()

    def now(self) -> float:
        return now() * self._rate + self._offset_s

    def step_wall(self, seconds: float) -> None:
        """Let the wall clock jump, as when somebody or NTP sets it; monotonic time does not."""
        self._wall_ahead_ms += round(seconds * 1000)

    async def sleep_until(self, deadline: float) -> None:
        await sleep_until(self._world_time(deadline))
        await self.thawed()

    async def sleep(self, seconds: float) -> None:
        """Sleep seconds of the world, not of this clock: for the machine's hardware."""
        await sleep_until(now() + seconds)
        await self.thawed()

    def scope_until(self, deadline: float) -> trio.CancelScope:
        at = self._world_time(deadline)
        scope = trio.CancelScope(deadline=math.inf if self.frozen else at)
        if at < math.inf:
            present = now()
            if len(self._scopes) > 32 and not self.frozen:  # a frozen one is overdue, not over
                self._scopes = [(due, kept) for due, kept in self._scopes if due > present]
            self._scopes.append((at, scope))
        return scope

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + round(now() * 1000) + self._wall_ahead_ms

    def _world_time(self, own_time: float) -> float:
        return (own_time - self._offset_s) / self._rate + EPSILON_S
