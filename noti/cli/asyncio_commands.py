"""What commands that run on asyncio directly have in common: their end, time, and standard input.

One cancellation is not enough on asyncio: `wait_for` of Python 3.11 loses the one that comes in the
moment in which what it waits for ends, and nats-py takes some for its own. So a task that is to end
is cancelled again and again until it does. Nothing waits for a thread.
"""

import asyncio
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar

import structlog

log = structlog.get_logger("noti.cli")

T = TypeVar("T")

READ_BYTES: Final = 64 * 1024
"""What a pipe holds."""

CANCEL_AGAIN_S: Final = 0.1
"""Pause between cancellations: what closes in good order needs less."""

STOP_S_MAX: Final = 3.0
"""A task that has not ended after so long of that never will."""

INTERRUPTED: Final = 130
"""Exit status of a process that was ended so: 128 + SIGINT, as shells have it."""


def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or until SIGINT or SIGTERM cancels it, which is a clean end too.

    Raises what `work` raises, unless it was cancelled. A process whose tasks do not end within
    `STOP_S_MAX` ends all the same.
    """

    async def until_signalled() -> None:
        loop = asyncio.get_running_loop()
        signalled = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, signalled.set)
        task = asyncio.ensure_future(work)
        waiting = asyncio.ensure_future(signalled.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        ended = await _end([task])
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not await _end(others) or not ended:
            _leave_at_once()
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and signalled.is_set():
            log.debug("failed while it was stopped", error=repr(error))
        elif error is not None:
            raise error

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(until_signalled())


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; raises `TimeoutError` when that takes longer than `timeout_s`.

    Unlike with `asyncio.timeout`, work that loses a cancellation ends nevertheless.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=timeout_s)
        in_time = task.done()
    finally:
        await _end([task])
    if not in_time or task.cancelled():
        raise TimeoutError
    return task.result()


async def read_lines(descriptor: int, line_bytes_max: int) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a file, pipe or terminal, without their ends, as many as are there.

    A line may be longer than `line_bytes_max` by what is read at once; then it is the last one.
    """
    rest = b""
    while data := await _read(descriptor):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > line_bytes_max:
            break
        yield lines
    yield [rest]


async def _read(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
    return os.read(descriptor, READ_BYTES)


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> bool:
    """Cancel until all have ended; False when that takes too long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + STOP_S_MAX
    pending = {task for task in tasks if not task.done()}
    while pending and loop.time() < until:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    return not pending


def _leave_at_once() -> None:
    """End the process without the waits at the end of a loop."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(INTERRUPTED)


class _Loop(asyncio.SelectorEventLoop):
    """asyncio's loop, which can read regular files, and never waits for names at its end."""

    def __init__(self) -> None:
        # trio-asyncio, where it was imported, would put another loop in the place of the default
        # one, and epoll, which the default one takes, does not know regular files.
        super().__init__(selectors.PollSelector())

    async def getaddrinfo(self, *args: Any, **options: Any) -> Any:
        """As asyncio's, in a thread that is not joined: a silent name server keeps it for long."""
        found: asyncio.Future[Any] = self.create_future()

        def deliver(result: object, error: OSError | None) -> None:
            if found.done():
                return
            if error is None:
                found.set_result(result)
            else:
                found.set_exception(error)

        def resolve() -> None:
            result, problem = None, None
            try:
                result = socket.getaddrinfo(*args, **options)
            except OSError as error:
                problem = error
            with suppress(RuntimeError):  # the loop is closed: none waits any more
                self.call_soon_threadsafe(deliver, result, problem)

        threading.Thread(target=resolve, daemon=True).start()
        return await found
