"""The one asyncio loop of a process, as a child of the Trio tree.

grpclib and nats-py know asyncio only. The loop is trio-asyncio's: it runs on Trio's own scheduler,
in the same thread, so the two worlds call each other without locks. asyncio functions are called
from any Trio task through `AsyncioLoop.call`; only the adapters for gRPC and NATS use asyncio.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar, TypeVarTuple

import structlog
import trio
import trio_asyncio

from noti.errors import LocalError, Unavailable
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.rpc")

HOLD_S: Final = 5.0
"""How long a cancelled loop waits for its users to clean up; each of them has a shorter limit."""

CANCEL_AGAIN_S: Final = 0.05
"""Libraries swallow cancellations (nats-py while it flushes, Python 3.11's `wait_for` at its end):
a cancelled task that goes on is cancelled again after so long."""

HANDLES_AT_ONCE: Final = 64
"""Callbacks run before other Trio tasks get a turn; trio-asyncio by itself gives them one after
each."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class AsyncioLoop:
    """The asyncio loop, and the bridge to it. Its callers live inside `run`'s lifetime."""

    def __init__(self) -> None:
        self._loop: trio_asyncio.TrioEventLoop | None = None
        self._holds = 0
        self._unheld = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the loop open until cancelled; started when `call` works.

        *Cancellation*: when the root of the tree is cancelled, so are users and loop at the same
        moment, wherever they are nested. The loop stays open until nobody holds it any more (at
        most `HOLD_S`), then cancels the asyncio tasks that are left and waits for them.
        *Error handling*: an exception that no asyncio code waits for is logged. It does not end the
        loop: a peer that breaks grpclib's protocol parser must not stop the node.
        """
        async with trio_asyncio.open_loop() as loop:
            throttled = ThrottledLog(trio.current_time)
            loop.set_exception_handler(partial(_log_stray_error, throttled))
            _run_more_at_once(loop)
            self._loop = loop
            try:
                task_status.started()
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(HOLD_S, shield=True):
                    while self._holds:
                        self._unheld = trio.Event()
                        await self._unheld.wait()
                self._loop = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep the loop open for the cleanup of the body."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
            if self._holds == 0:
                self._unheld.set()

    async def call(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        """Run `function(*args)` as an asyncio task and return its result or raise its exception.

        Works from every Trio task, also one whose context variables know no loop.

        *Cancellation* goes both ways. When the calling scope is cancelled, the asyncio task gets
        `asyncio.CancelledError`, again and again until it has ended; then this raises
        `trio.Cancelled`, also when the task failed on its way out, or returns, if it finished after
        all. When the asyncio side cancels the task, as it does when the loop ends, this raises
        `Unavailable`.

        Raises `LocalError` when the loop is not open.
        """
        # Trio's own rule: always a checkpoint, and a cancelled caller starts nothing.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._loop is None:
            raise LocalError("the asyncio loop is not running")
        work = self._loop.create_task(_as_coroutine(function, *args))
        return await _outcome_of(work, self._loop)


def _run_more_at_once(loop: trio_asyncio.BaseTrioEventLoop) -> None:
    """Spare turns of Trio's scheduler, which cost more than most of what asyncio does in one.

    All callbacks that wait run before the loop's next checkpoint, up to a limit. `_main_loop_one`
    is private, and there is no other way in: without this a unary call takes half as much again of
    the processor. Nobody who has read from a socket waits for callbacks: what a connection can have
    waiting is bounded by its own limits.
    """
    run_one = loop._main_loop_one

    async def run_several(no_wait: bool = False) -> None:
        await run_one(no_wait)
        for _ in range(HANDLES_AT_ONCE - 1):
            try:
                await run_one(no_wait=True)
            except trio.WouldBlock:
                return

    async def synchronize() -> None:
        pass

    loop._main_loop_one = run_several
    loop.synchronize = synchronize


async def _outcome_of(work: "asyncio.Task[T]", loop: trio_asyncio.BaseTrioEventLoop) -> T:
    """Wait for an asyncio task from Trio; see `AsyncioLoop.call`."""
    waiting = trio.lowlevel.current_task()
    raise_cancelled: Callable[[], object] | None = None

    def cancel() -> None:
        if not work.done():
            work.cancel()
            loop.call_later(CANCEL_AGAIN_S, cancel)

    def abort(raise_cancel: Callable[[], object]) -> trio.lowlevel.Abort:
        nonlocal raise_cancelled
        raise_cancelled = raise_cancel
        cancel()
        return trio.lowlevel.Abort.FAILED  # it goes on until the task has cleaned up

    work.add_done_callback(lambda _: trio.lowlevel.reschedule(waiting))
    await trio.lowlevel.wait_task_rescheduled(abort)
    failure = None if work.cancelled() else work.exception()
    if raise_cancelled is not None and (work.cancelled() or isinstance(failure, Exception)):
        log.debug("a cancelled call ended", error=repr(failure))
        raise_cancelled()
    if work.cancelled():
        raise Unavailable("the asyncio side cancelled the call; its loop may be shutting down")
    return work.result()


def _as_coroutine(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> Coroutine[Any, Any, T]:
    async def enter() -> T:
        # Called in here so that everything the function touches sees the running loop.
        return await function(*args)

    return enter()


def _log_stray_error(
    throttled: ThrottledLog, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]
) -> None:
    message, error = context.get("message"), context.get("exception")
    reason = f"{type(error).__name__}: {error}" if error is not None else None
    throttled.log(
        log.warning,
        "asyncio error outside any call",
        (message, reason),
        message=message,
        error=reason,
    )
