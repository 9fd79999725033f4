"""Runs Trio so that a seed decides everything: virtual time, one order of tasks.

Enters: a seed and an async function. Leaves: its result. Never: threads, asyncio, real time.

Two switches are needed, and neither is on by default: the scheduler sorts each batch of tasks only
when `_ALLOW_DETERMINISTIC_SCHEDULING` is set, and shuffles it by a generator of its own, which must
be seeded. Both names are private to Trio; `test_deterministic.py` fails loudly when they change.
"""

import math
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
import trio.testing

T = TypeVar("T")


def run_deterministically(seed: int, function: Callable[[], Awaitable[T]]) -> T:
    """Run `function` under a clock that jumps over every wait; raises what it raises."""
    scheduler: Any = trio._core._run
    before = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    state = scheduler._r.getstate()
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True
    scheduler._r.seed(seed)
    try:
        return trio.run(function, clock=_jumping_clock())
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
        scheduler._r.setstate(state)


def _jumping_clock() -> trio.testing.MockClock:
    """Return Trio's own clock that jumps, which need not look at the machine's: its time stands
    still between two jumps, and it is asked for the time some ten times for each task that runs."""
    clock: Any = trio.testing.MockClock(autojump_threshold=0)

    def jump() -> None:
        deadline = trio._core._run.GLOBAL_RUN_CONTEXT.runner.deadlines.next_deadline()
        if clock._virtual_base < deadline < math.inf:
            clock.jump(deadline - clock._virtual_base)

    clock.current_time = lambda: clock._virtual_base
    clock._autojump = jump
    found: trio.testing.MockClock = clock
    return found
