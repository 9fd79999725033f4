"""Wakes a task at a moment that may be moved while it waits.

Enters: Trio's time. Leaves: the task, awake, in the same pass of the scheduler in which the end of
a cancel scope with that deadline would have woken it. Never: a cancellation of its own.

A scope does the same for three times as much, and simulated networks, disks and clocks do hardly
anything but wait for a moment. An alarm stands among the scheduler's deadlines as a scope does,
with the two private names by which the scheduler knows one; `test_alarm.py` fails loudly when they
change.
"""

import math
from collections.abc import Callable
from typing import Any

from trio._core import _run
from trio.lowlevel import Abort, Task, current_task, reschedule, wait_task_rescheduled


def now() -> float:
    """Return what `trio.current_time` does, which takes three times as long to ask the clock."""
    found: float = _run.GLOBAL_RUN_CONTEXT.runner.clock.current_time()
    return found


class Alarm:
    """For one task at a time."""

    __slots__ = ("_registered_deadline", "_task")

    def __init__(self) -> None:
        """Begin with nobody who waits."""
        self._registered_deadline = math.inf
        self._task: Task | None = None

    async def wait_until(self, at: float) -> None:
        """Return at `at`, or at the moment to which `move` changes that; never without a pass."""
        self._task = current_task()
        self._register(at)
        await wait_task_rescheduled(self._abort)

    @property
    def is_set(self) -> bool:
        """Whether anybody waits."""
        return self._task is not None

    def move(self, at: float) -> None:
        """Let whoever waits be woken at `at` instead."""
        assert self._task is not None, "only an alarm that is set can be moved"
        self._register(at)

    def _register(self, at: float) -> None:
        before = self._registered_deadline
        if before == at:
            return
        deadlines: Any = _run.GLOBAL_RUN_CONTEXT.runner.deadlines
        self._registered_deadline = at
        if before != math.inf:
            deadlines.remove(before, self)
        if at != math.inf:
            deadlines.add(at, self)

    def _cancel(self, _reason: object) -> None:
        """Be due: the scheduler's name for it."""
        task, self._task = self._task, None
        self._register(math.inf)
        assert task is not None, "an alarm without anybody who waits is not registered"
        reschedule(task)

    def _abort(self, _raise_cancel: Callable[[], object]) -> Abort:
        self._register(math.inf)
        self._task = None
        return Abort.SUCCEEDED


async def sleep_until(at: float) -> None:
    """Do what `trio.sleep_until` does."""
    await Alarm().wait_until(at)
