"""The one asyncio loop of a process, as a child of the Trio tree.

Enters: asyncio coroutine functions, called from any Trio task. Leaves: their results.
Never: domain types; asyncio outside this module and the two adapters (gRPC, NATS) that run on it.

grpclib and nats-py know asyncio only. The loop is trio-asyncio's: it runs on Trio's own scheduler,
in the same thread, so the two worlds call each other without locks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, TypeVarTuple

import structlog
import trio
import trio_asyncio

from noti.errors import LocalError, Unavailable

log = structlog.get_logger("noti.rpc")

HOLD_S: Final = 5.0
"""How long a cancelled loop waits for its users to clean up; each of them has a shorter limit."""

HANDLES_AT_ONCE: Final = 64
"""Callbacks run before other Trio tasks get a turn; trio-asyncio by itself gives them one after
each."""

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Island:
    """The asyncio loop, and the bridge to it. Whoever calls it lives inside `run`'s lifetime."""

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
            loop.set_exception_handler(_log_stray_error)
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
        """Keep the loop open for the cleanup of whoever is in the body."""
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
        `asyncio.CancelledError`; this waits until it has ended and then raises `trio.Cancelled`
        (or returns, if the task finished after all). When the asyncio side cancels the task, which
        happens only when the loop ends, this raises `Unavailable`.

        Raises `LocalError` when the loop is not open.
        """
        # Trio's own rule: always a checkpoint, and a cancelled caller starts nothing.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._loop is None:
            raise LocalError("the asyncio loop is not running")
        try:
            result: T = await self._loop.run_aio_coroutine(_as_coroutine(function, *args))
        except asyncio.CancelledError:
            raise Unavailable("the asyncio loop is shutting down") from None
        return result

    def is_running(self) -> bool:
        """Tell whether `call` works now."""
        return self._loop is not None


def _run_more_at_once(loop: trio_asyncio.BaseTrioEventLoop) -> None:
    """Spare turns of Trio's scheduler, which cost more than most of what asyncio does in one.

    All callbacks that wait run before the loop's next checkpoint, up to a limit; and whoever has
    read from a socket waits for them only if there are any.
    """
    run_one, synchronize = loop._main_loop_one, loop.synchronize

    async def run_several(no_wait: bool = False) -> None:
        await run_one(no_wait)
        for _ in range(HANDLES_AT_ONCE - 1):
            try:
                await run_one(no_wait=True)
            except trio.WouldBlock:
                return

    async def synchronize_if_need_be() -> None:
        if loop._q_recv.statistics().current_buffer_used:
            await synchronize()

    loop._main_loop_one = run_several
    loop.synchronize = synchronize_if_need_be


def _as_coroutine(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> Coroutine[Any, Any, T]:
    async def enter() -> T:
        # Called in here so that everything the function touches sees the running loop.
        return await function(*args)

    return enter()


def _log_stray_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    log.warning(
        "asyncio error outside any call",
        message=context.get("message"),
        error=f"{type(error).__name__}: {error}" if error is not None else None,
    )
