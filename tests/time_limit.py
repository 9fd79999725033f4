"""No test runs for ever: what happens when one reaches its limit, and the limits.

`pytest-timeout` brings the setting, `--timeout` and the marker; this module decides how a test
ends, in steps of growing force:

1. At the limit a test on Trio is cancelled, so that it takes its processes with it, and all its
   tasks are shown with their stacks. Any other test gets `TimeLimitReached` where it is.
2. A test that swallows the cancellation, shields itself or never comes to a checkpoint gets
   `TimeLimitReached` wherever it is, again and again.
3. What survives that too, or sits in C and handles no signal, ends with the whole run, and the
   stacks of all threads are shown.
"""

import faulthandler
import os
import signal
import traceback
import types
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, NoReturn, Protocol

import outcome
import pytest
import trio
from trio.lowlevel import Task

LIMITS_S = {"slow": 120.0, "interop": 270.0}
"""By marker, for machines that do much else; `timeout` in pyproject.toml is for all others. A
test's own marker `timeout` goes before."""
GRACE_S_MAX = 8.0
"""From one step to the next; less for those who set a limit below it."""
STEPS = 5


class TimeLimitReached(BaseException):
    """Not an `Exception`: neither the code that is tested nor Hypothesis may take it for theirs."""


class Settings(Protocol):
    """What pytest-timeout knows of a test's limit."""

    timeout: float


@pytest.hookimpl
def pytest_configure(config: pytest.Config) -> None:
    # Nothing is captured yet; later, this descriptor goes past the capture.
    config.stash[_STDERR] = os.fdopen(os.dup(2), "w")


@pytest.hookimpl
def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_STDERR].close()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        limits_s = [limit_s for name, limit_s in LIMITS_S.items() if item.get_closest_marker(name)]
        overridden = item.config.getoption("timeout") is not None
        if limits_s and not overridden and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(max(limits_s)))


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Settings) -> bool:
    limit_s, grace_s = settings.timeout, min(settings.timeout, GRACE_S_MAX)

    def reached(_signal: int, frame: types.FrameType | None) -> None:
        first = _REACHED not in item.stash
        message = item.stash.setdefault(_REACHED, f"the test reached its limit of {limit_s:g} s")
        if trio.lowlevel.in_trio_run():
            tasks = list(_tasks())
            if first:
                _show(tasks, item)
                if _cancel(tasks):
                    return
            if frame is None or frame.f_globals["__name__"].startswith("trio."):
                # Raised in here, it would leave Trio unusable for the tests that follow.
                trio.lowlevel.current_trio_token().run_sync_soon(_raise_in, tasks, message)
                return
        raise TimeLimitReached(message)

    signal.signal(signal.SIGALRM, reached)
    signal.setitimer(signal.ITIMER_REAL, limit_s, grace_s)
    # Its watchdog is a thread of C, which no test can hold up.
    faulthandler.dump_traceback_later(
        limit_s + STEPS * grace_s, exit=True, file=item.config.stash[_STDERR]
    )
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item: pytest.Item) -> bool:
    """Let the time run on: pytest-timeout asks for this at each failure, and a failed test may
    hang while it is cleaned up. Only a debugger stops it."""
    if item.config.getoption("usepdb"):
        _disarm()
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        _disarm()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Fail a test that was cancelled, whatever it made of it."""
    try:
        yield
    except (Exception, trio.Cancelled, BaseExceptionGroup) as error:
        if reached := item.stash.get(_REACHED, None):
            raise TimeLimitReached(reached) from error
        raise
    if reached := item.stash.get(_REACHED, None):
        raise TimeLimitReached(reached)


def _disarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    faulthandler.cancel_dump_traceback_later()


def _tasks() -> Iterator[tuple[Task, int]]:
    """Yield what runs on Trio besides Trio's own, with its depth."""
    root = trio.lowlevel.current_root_task()
    if root is not None and root.child_nurseries:
        yield from _below(root.child_nurseries[-1])  # the last is that of the main task


def _below(nursery: trio.Nursery, depth: int = 0) -> Iterator[tuple[Task, int]]:
    for task in nursery.child_tasks:
        yield task, depth
        for inner in task.child_nurseries:
            yield from _below(inner, depth + 1)


def _show(tasks: list[tuple[Task, int]], item: pytest.Item) -> None:
    where = item.config.stash[_STDERR]
    where.write(f"\n{item.nodeid} ends here: {item.stash[_REACHED]}; its tasks:\n")
    for task, depth in tasks:
        margin = "  " * depth
        where.write(f"{margin}{task.name}\n")
        for frame in traceback.StackSummary.extract(task.iter_await_frames()):
            if not any(room in Path(frame.filename).parts for room in ("trio", "pytest_trio")):
                where.write(f"{margin}  {frame.filename}:{frame.lineno}: {frame.line}\n")
    where.flush()


def _cancel(tasks: list[tuple[Task, int]]) -> bool:
    """Cancel the test that pytest-trio runs; False when it runs none. In a signal's handler."""
    for task, _ in tasks:
        if task.name.startswith("<test ") and task.parent_nursery is not None:
            scope = task.parent_nursery.cancel_scope
            trio.lowlevel.current_trio_token().run_sync_soon(scope.cancel)
            return True
    return False


def _raise_in(tasks: list[tuple[Task, int]], message: str) -> None:
    """Give all tasks `TimeLimitReached`, in the way in which Trio cancels those that sleep.

    One that swallows its cancellation at once is never seen asleep: it finds this in its place.
    """

    def reached() -> NoReturn:
        raise TimeLimitReached(message)

    for task, _ in tasks:
        if task._abort_func is not None:
            task._attempt_abort(reached)
        elif isinstance(task._next_send, outcome.Error):
            task._next_send = outcome.capture(reached)


_STDERR = pytest.StashKey[IO[str]]()
_REACHED = pytest.StashKey[str]()
