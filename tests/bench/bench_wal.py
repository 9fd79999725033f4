"""How long one write to the log takes, through the writer process and through a thread.

Enters: command-line options. Leaves: a table. Never: a verdict; compare rows of one run, not runs.

`python -m tests.bench.bench_wal`: 4 KiB into a pre-zeroed file, written and synced, while the event
loop is idle and while a task burns CPU in slices of 1 ms. The baseline, `trio.to_thread`, does the
same two system calls.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio

from noti.raft.disk import open_disk

BLOCK_BYTES = 4096
FILE_BYTES = 8 * 1024 * 1024
SLICE_S = 0.001

Write = Callable[[int, bytes], Awaitable[None]]


def main(argv: Sequence[str] | None = None) -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=500, help="at most so many for each row")
    parser.add_argument("--seconds", type=float, default=4.0, help="at most so long for each row")
    parser.add_argument("--directory", type=Path, help="where to write (default: temporary)")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        trio.run(_measure, Path(directory), options.writes, options.seconds)


async def _measure(directory: Path, writes: int, seconds: float) -> None:
    print(f"{'4 KiB write + sync':<24}{'loop':<8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'n':>6}")
    async with open_disk(directory) as disk:
        await disk.create("log", FILE_BYTES)
        await disk.create("baseline", FILE_BYTES)
        descriptor = os.open(directory / "baseline", os.O_RDWR)

        async def through_process(offset: int, data: bytes) -> None:
            await disk.write("log", offset, data)

        def write_and_sync(offset: int, data: bytes) -> None:
            os.pwrite(descriptor, data, offset)
            os.fdatasync(descriptor)

        async def through_thread(offset: int, data: bytes) -> None:
            await trio.to_thread.run_sync(write_and_sync, offset, data)

        try:
            for busy in (False, True):
                for name, write in (
                    ("writer process", through_process),
                    ("trio.to_thread", through_thread),
                ):
                    durations = await _time_writes(write, writes, seconds, busy=busy)
                    _print_row(name, "busy" if busy else "idle", durations)
        finally:
            os.close(descriptor)


async def _time_writes(write: Write, writes: int, seconds: float, *, busy: bool) -> list[float]:
    durations: list[float] = []
    async with trio.open_nursery() as nursery:
        if busy:
            nursery.start_soon(_burn)
        data = os.urandom(BLOCK_BYTES)
        end = time.perf_counter() + seconds
        while len(durations) < writes and time.perf_counter() < end:
            started = time.perf_counter()
            await write(len(durations) * BLOCK_BYTES % FILE_BYTES, data)
            durations.append(time.perf_counter() - started)
        nursery.cancel_scope.cancel()
    return durations


async def _burn() -> None:
    while True:
        end = time.perf_counter() + SLICE_S
        while time.perf_counter() < end:
            pass
        await trio.lowlevel.checkpoint()


def _print_row(name: str, loop: str, durations: list[float]) -> None:
    ordered = sorted(duration * 1000 for duration in durations)
    p50 = ordered[len(ordered) // 2]
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    print(f"{name:<24}{loop:<8}{p50:>9.2f}{p99:>9.2f}{ordered[-1]:>9.2f}{len(ordered):>6}")


if __name__ == "__main__":
    main()
