"""What TLS costs: committed events and deliveries a second, with it and without it.

Real processes on loopback, with TLS and without in turns; a figure is the median of the rounds.

- `committed, N publishers`: events of 200 bytes from JetStream through a cluster of three, whose
  RPCs are encrypted; a publisher sends its next event when the last one is shown at the leader.
- `committed, backlog`: what the cluster takes in when it never lacks work.
- `delivered to N browsers`: one node of its own on one core, HTTPS to all browsers, which share the
  other core with NATS; so many events are on their way at once that the node never waits.
"""

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import nats

from tests.bench.bench_raft import _bridge, _category, _fill_stream, _measure_all, _time_backlog
from tests.bench.clusters import HOST, NotiCluster, Processes, start_nats
from tests.bench.hub_servers import Noti
from tests.bench.report import Arguments, Report, tell
from tests.certificates.authority import Wanted, authority, issue

EVENT_BYTES = 200
ON_THE_WAY_MAX = 64
"""Events published and not yet delivered: they keep a node busy, and stay in its history."""
WARM_UP_S = 1.0
BACKLOG = "committed, backlog"


class Files:
    """A CA and one certificate for everything, if there is TLS."""

    def __init__(self, directory: Path, names: Sequence[str], *, tls: bool) -> None:
        self.ca = directory / "ca.pem"
        self._tls = tls
        if tls:
            root = authority()
            self.ca.write_bytes(root.pem)
            wanted = Wanted(dns=tuple(names), ips=(HOST,))
            self._pair = issue(wanted, root).write(directory, "node")

    def for_rpc(self) -> list[str]:
        """Return the flags for RPC."""
        if not self._tls:
            return []
        certificate, key = self._pair
        return [f"--tls-cert={certificate}", f"--tls-key={key}", f"--tls-ca={self.ca}"]

    def for_browsers(self) -> list[str]:
        """Return the flags for HTTP."""
        if not self._tls:
            return []
        certificate, key = self._pair
        return [f"--http-tls-cert={certificate}", f"--http-tls-key={key}"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--publishers", type=int, default=64, help="who wait for each event")
    arguments.add_argument("--browsers", type=int, default=200, help="streams on one node")
    arguments.add_argument("--seconds", type=float, default=3.0, help="for each figure")
    arguments.add_argument("--rounds", type=int, default=3, help="of each kind, in turns")
    arguments.add_argument("--events", type=int, default=10_000, help="in the backlog")
    options = arguments.options(argv)
    report = Report("with TLS, compared to without, one machine", options.json)
    asyncio.run(_run(options, report))
    report.finish()


async def _run(options: argparse.Namespace, report: Report) -> None:
    rounds: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for number in range(1, options.rounds + 1):
        for tls in (True, False):
            tell(f"round {number} of {options.rounds}, {'with' if tls else 'without'} TLS")
            figures = await _committed(options, tls=tls)
            figures |= await asyncio.to_thread(_delivered, options, tls=tls)
            rounds[tls].append(figures)
    for name in rounds[True][0]:
        with_tls, without = (median(one[name] for one in rounds[tls]) for tls in (True, False))
        report.add(name, with_tls, "events/s", "without TLS", without)


async def _committed(options: argparse.Namespace, *, tls: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as processes:
        directory = Path(name)
        nats_url = start_nats(processes, directory)
        await _fill_stream(nats_url, options.events)
        files = Files(directory, ("node1", "node2", "node3"), tls=tls)
        cluster = NotiCluster(processes, directory, nats_url, files.for_rpc())
        backlog = await _time_backlog(cluster, options.events)
        leader = await asyncio.to_thread(cluster.wait_until_whole)
        async with _bridge(nats_url, leader) as bridge:
            measured = await _measure_all(
                "committed, ", bridge.propose_one, [options.publishers], options.seconds
            )
    return {BACKLOG: backlog.rate} | {name: one.rate for name, one in measured.items()}


def _delivered(options: argparse.Namespace, *, tls: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name, Processes(Path(name)) as processes:
        files = Files(Path(name), ("node1",), tls=tls)
        noti = Noti(processes, Path(name), 0, files.for_browsers())
        readers = [sys.executable, "-m", "tests.bench.stream_readers", str(noti.node.http)]
        readers += [str(options.browsers), str(files.ca) if tls else "-"]
        with subprocess.Popen(["taskset", "-c", "1", *readers], stdout=subprocess.PIPE) as process:
            try:
                rate = asyncio.run(_deliver(noti.nats_url, process, options))
            finally:
                process.kill()
    tell(f"delivered to {options.browsers} browsers: {rate:,.0f} events/s")
    return {f"delivered to {options.browsers} browsers": rate}


async def _deliver(
    nats_url: str, readers: "subprocess.Popen[bytes]", options: argparse.Namespace
) -> float:
    """Publish as fast as is delivered; return the deliveries a second."""
    client = await nats.connect(nats_url)
    delivered, progress = 0, asyncio.Event()

    def note(count: int) -> None:
        nonlocal delivered
        delivered = count
        progress.set()

    following = asyncio.create_task(
        asyncio.to_thread(_follow, readers, asyncio.get_running_loop().call_soon_threadsafe, note)
    )
    await progress.wait()
    published, since, delivered_then = 0, time.perf_counter() + WARM_UP_S, 0
    measuring = False
    while True:
        now = time.perf_counter()
        if not measuring and now >= since:
            measuring, since, delivered_then = True, now, delivered
        if measuring and now - since >= options.seconds:
            break
        progress.clear()
        while published - delivered // options.browsers < ON_THE_WAY_MAX:
            published += 1
            await client.publish("jobs.noti.bench", _category(published, EVENT_BYTES))
        await progress.wait()
    rate = (delivered - delivered_then) / (time.perf_counter() - since)
    readers.kill()
    await following
    await client.close()
    return rate


def _follow(
    readers: "subprocess.Popen[bytes]",
    call_soon: Callable[[Callable[[int], None], int], object],
    note: Callable[[int], None],
) -> None:
    assert readers.stdout is not None
    for line in readers.stdout:
        call_soon(note, int(line))


if __name__ == "__main__":
    main()
