"""Runs Trio so that a seed decides everything: virtual time, one order of tasks.

Enters: a seed and an async function. Leaves: its result. Never: threads, asyncio, real time.

Two switches are needed, and neither is on by default: the scheduler sorts each batch of tasks only
when `_ALLOW_DETERMINISTIC_SCHEDULING` is set, and shuffles it by a generator of its own, which must
be seeded. Both names are private to Trio; `test_deterministic.py` fails loudly when they change.
"""

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
        clock = trio.testing.MockClock(autojump_threshold=0)
        return trio.run(function, clock=clock)
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = before
        scheduler._r.setstate(state)
