"""Runs Trio so that a seed decides everything: virtual time, one order of tasks.

Enters: a seed and an async function. Leaves: its result. Never: threads, asyncio, real time.

Two switches are needed, and neither is on by default: the scheduler sorts each batch of tasks only
when `_ALLOW_DETERMINISTIC_SCHEDULING` is set, and shuffles it by a generator of its own, which must
be seeded. What is private to Trio is named here and in `alarm.py`; `test_deterministic.py` fails
loudly when it changes.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
import trio.testing

T = TypeVar("T")

POLLED_EVERY = 256
"""Passes of the scheduler after which the machine is asked for real events: only Ctrl-C is one."""


def run_deterministically(seed: int, function: Callable[[], Awaitable[T]]) -> T:
    """Run `function` under a clock that jumps over every wait; raises what it raises."""
    scheduler: Any = trio._core._run

    async def main() -> T:
        runner = scheduler.GLOBAL_RUN_CONTEXT.runner
        runner.io_manager = _RarelyPolled(runner.io_manager)
        return await function()

    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    state = scheduler._r.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        return trio.run(main, clock=_jumping_clock())
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
        scheduler._r.setstate(state)


def _jumping_clock() -> trio.testing.MockClock:
    """Return Trio's own clock that jumps, which need not look at the machine's: its time stands
    still between two jumps, and it is asked for the time some ten times for each task that runs.

    It wakes at once whoever waited for the moment to which it jumps; Trio's leaves that to the
    scheduler's next pass, in which nothing else happens.
    """
    clock: Any = trio.testing.MockClock(autojump_threshold=0)

    def jump() -> None:
        runner = trio._core._run.GLOBAL_RUN_CONTEXT.runner
        deadlines = runner.deadlines
        while not runner.runq:
            deadline = deadlines.next_deadline()
            if not clock._virtual_base < deadline < math.inf:
                return
            clock._virtual_base += deadline - clock._virtual_base
            deadlines.expire(clock._virtual_base)

    clock.current_time = lambda: clock._virtual_base
    clock._autojump = jump
    found: trio.testing.MockClock = clock
    return found


class _RarelyPolled:
    """Trio's view of what really happens outside, where nothing does in a simulation."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self._passes = 0

    def get_events(self, timeout: float) -> Any:
        self._passes += 1
        return self._real.get_events(timeout) if self._passes % POLLED_EVERY == 0 else ()

    def process_events(self, events: Any) -> None:
        if events:
            self._real.process_events(events)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)
