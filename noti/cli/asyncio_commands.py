"""What commands that run on asyncio directly have in common: their end, and standard input.

Enters: a coroutine, signals, a file descriptor. Leaves: a clean end, lines. Never: Trio, a thread.
"""

import asyncio
import os
import selectors
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any, Final

READ_BYTES: Final = 64 * 1024
"""What a pipe holds."""


def run_until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, or until SIGINT or SIGTERM cancels it, which is a clean end too."""

    async def until_signalled() -> None:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    # trio-asyncio, where it was imported, would put another loop in the place of the default one,
    # and epoll, which the default one takes, does not know regular files.
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(selectors.PollSelector())
    ) as runner:
        runner.run(until_signalled())


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
