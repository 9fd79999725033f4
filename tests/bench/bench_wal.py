"""How long a durable write of 4 KiB takes, while the event loop has other things to do.

Into a pre-zeroed file, written and synced, by the writer process of a node; the baseline,
`trio.to_thread`, does the same two system calls in the same run. The loop meanwhile

- idles;
- is busy: a task burns CPU in slices of 1 ms and yields between them, as a node's tasks do;
- fans out: a real hub sends 200 events a second to 1,000 clients on loopback, whose reader is
  another process.
"""

import argparse
import os
import random
import resource
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import trio
from prometheus_client import REGISTRY

from noti.history.notification import Notification
from noti.history.selectors import ALL_TOPICS
from noti.raft.storage.disk import FileDisk, open_disk
from noti.streams import sockets
from noti.streams.config import HubConfig
from noti.streams.feed import Audience, View
from noti.streams.hub import Hub
from noti.streams.open_streams import Reader
from tests.bench.clusters import HOST, Processes
from tests.bench.report import Arguments, Report, quantile, tell

BLOCK_BYTES = 4096
FILE_BYTES = 8 * 1024 * 1024
SLICE_S = 0.001
EVENT_BYTES = 200
PUBLISH_INTERVAL_S = 0.005

RESPONSE_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

Write = Callable[[int, bytes], Awaitable[None]]
LoopLoad = Callable[[], AbstractAsyncContextManager[None]]


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--writes", type=int, default=1000, help="at most so many for each load")
    arguments.add_argument(
        "--seconds", type=float, default=12, help="at most so long for each load"
    )
    arguments.add_argument("--clients", type=int, default=1000, help="of the hub")
    arguments.add_argument("--directory", type=Path, help="where to write (default: /tmp)")
    options = arguments.options(argv)
    report = Report("a durable write of 4 KiB", options.json)
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        trio.run(_measure, Path(directory), options, report)
    report.finish()


async def _measure(directory: Path, options: argparse.Namespace, report: Report) -> None:
    loads: dict[str, LoopLoad] = {
        "idle": _idle,
        "busy in 1 ms slices": _busy,
        f"fan-out to {options.clients}": lambda: _fan_out(directory, options.clients),
    }
    async with open_disk(directory) as disk:
        ways = await _ways(disk, directory)
        for loop, load in loads.items():
            async with load():
                ours, theirs = await _time_writes(ways, options.writes, options.seconds)
            tell(f"loop {loop}: {len(ours)} writes each")
            for name, share in (("p50", 0.5), ("p99", 0.99), ("worst", 1.0)):
                report.add(
                    f"loop {loop}, {name}",
                    quantile(ours, share) * 1000,
                    "ms",
                    "trio.to_thread",
                    quantile(theirs, share) * 1000,
                )


async def _ways(disk: FileDisk, directory: Path) -> tuple[Write, Write]:
    """Return what is measured, and its baseline; each writes to a file of its own."""
    await disk.create("log", FILE_BYTES)
    await disk.create("baseline", FILE_BYTES)
    descriptor = os.open(directory / "baseline", os.O_RDWR)  # until the process ends

    async def through_process(offset: int, data: bytes) -> None:
        await disk.write("log", offset, data)

    def write_and_sync(offset: int, data: bytes) -> None:
        os.pwrite(descriptor, data, offset)
        os.fdatasync(descriptor)

    async def through_thread(offset: int, data: bytes) -> None:
        await trio.to_thread.run_sync(write_and_sync, offset, data)

    return through_process, through_thread


async def _time_writes(
    ways: Sequence[Write], writes: int, seconds: float
) -> tuple[list[float], ...]:
    """Return how long each write took, for each way; they take turns, so that nothing that
    happens meanwhile hits only one of them."""
    durations: tuple[list[float], ...] = tuple([] for _ in ways)
    data = os.urandom(BLOCK_BYTES)
    end = time.perf_counter() + seconds
    for turn in range(writes):
        for way, its_durations in zip(ways, durations, strict=True):
            started = time.perf_counter()
            await way(turn * BLOCK_BYTES % FILE_BYTES, data)
            its_durations.append(time.perf_counter() - started)
        if time.perf_counter() > end:
            break
    return durations


@asynccontextmanager
async def _idle() -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def _busy() -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_burn)
        yield
        nursery.cancel_scope.cancel()


async def _burn() -> None:
    while True:
        end = time.perf_counter() + SLICE_S
        while time.perf_counter() < end:
            pass
        await trio.lowlevel.checkpoint()


@asynccontextmanager
async def _fan_out(directory: Path, clients: int) -> AsyncIterator[None]:
    """Run a hub with clients that another process reads."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    hub = Hub(HubConfig(), random.Random(1))
    with Processes(directory) as processes, socket.create_server((HOST, 0)) as listener:
        sockets.prepare(listener, hub.config)
        listening = trio.socket.from_stdlib_socket(listener)
        port = listener.getsockname()[1]
        readers = [sys.executable, "-m", "tests.bench.readers", HOST, str(port), str(clients)]
        processes.start("readers", readers)
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            for _ in range(clients):
                connection, _ = await listening.accept()
                await connection.send(RESPONSE_HEAD)
                # The hub owns the descriptor from here on.
                plain = socket.socket(fileno=connection.detach())
                plain.setblocking(False)
                everything = Audience(View.MERCURE, frozenset({ALL_TOPICS}))
                hub.adopt(plain, Reader(everything, 0, HOST))
            nursery.start_soon(_publish, hub)
            before, started = _deliveries(), time.perf_counter()
            yield
            rate = (_deliveries() - before) / (time.perf_counter() - started)
            tell(f"the hub delivered {rate:,.0f} events a second to {hub.clients} clients")
            nursery.cancel_scope.cancel()


async def _publish(hub: Hub) -> None:
    data = "x" * EVENT_BYTES
    number = 0
    while True:
        number += 1
        hub.publish([Notification(number, f"id-{number}", ("jobs.noti.bench",), data, 0)])
        await trio.sleep(PUBLISH_INTERVAL_S)


def _deliveries() -> float:
    return REGISTRY.get_sample_value("noti_streams_deliveries_total") or 0.0


if __name__ == "__main__":
    main()
