"""How old events are when browsers read them: JetStream, three nodes, 100 browsers.

Publishers note the moment of publication in the event, and the monotonic clock is the same in all
processes of a machine. Each rate is measured on the machine as it is, and beside two busy loops of
the same priority (`nice 0`). Those share a session with all else, and Linux shares out processors
by sessions first; `sessions=own` gives each process its own, as containers do.

The baseline is a plain nats-py program that fetches and acknowledges the events of a stream of its
own, in turns with noti. `timeline=on` also tells when an event passes each hop (p50, on nodes that
are traced and therefore slower); `rates=` leaves out all but that.
"""

import argparse
import json
import math
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.bench.clusters import HOST, NotiCluster, NotiNode, Processes, start_nats
from tests.bench.report import Arguments, Report, quantile, tell
from tests.bench.traced_node import FOLDER, HOPS

BUSY_LOOPS: Final = 2
STREAM: Final = "latency"
REQUEST: Final = b"GET /.well-known/mercure?topic=* HTTP/1.1\r\nHost: bench\r\n\r\n"
SETTLE_S: Final = 1.0
"""After the last publication: for what is still under way."""
LOOK_S: Final = 0.1
"""How often to look whether the publisher has ended, while nothing comes."""
MISSING_S: Final = 10.0
"""How long an event that some browsers have may be missing at others; more is an error."""
WINDOW_S: Final = 0.09
"""Hops within this after a publication belong to it; at ten events a second no other one does."""

PROCESSES: Final = [sys.executable, "-m", "tests.bench.latency_processes"]


@dataclass
class Browsers:
    """Sockets that follow the nodes; what came is (published, read), nanoseconds."""

    sockets: dict[int, socket.socket] = field(default_factory=dict)

    def connect(self, nodes: Sequence[NotiNode], count: int) -> None:
        """Open `count` streams, evenly at all nodes."""
        for number in range(count):
            sock = socket.create_connection((HOST, nodes[number % len(nodes)].http))
            sock.sendall(REQUEST)
            self.sockets[sock.fileno()] = sock

    def follow(self, publisher: subprocess.Popen[bytes]) -> list[tuple[int, int]]:
        """Return what is published until `publisher` ends and comes within `SETTLE_S` of that.

        What has come to one browser is waited for at all others.
        """
        since = time.monotonic_ns()
        ended_at = math.inf
        received: list[tuple[int, bytes, int]] = []
        with select.epoll() as poll:
            for descriptor in self.sockets:
                poll.register(descriptor, select.EPOLLIN)
            while True:
                if publisher.poll() is not None:
                    ended_at = min(ended_at, time.monotonic())
                settled_s = time.monotonic() - ended_at
                if settled_s >= SETTLE_S:
                    # Only now, as it would make browsers look slow.
                    read = self._events_in(received, since)
                    if _is_whole(read, len(self.sockets)) or settled_s >= MISSING_S:
                        return read
                for descriptor, _ in poll.poll(LOOK_S):
                    data = self.sockets[descriptor].recv(65536)
                    received.append((descriptor, data, time.monotonic_ns()))
                    if not data:
                        raise ConnectionError("a node ended a stream")

    def _events_in(
        self, received: Sequence[tuple[int, bytes, int]], since: int
    ) -> list[tuple[int, int]]:
        read: list[tuple[int, int]] = []
        rests: dict[int, bytes] = {}
        for descriptor, data, now in received:
            *lines, rests[descriptor] = (rests.get(descriptor, b"") + data).split(b"\n")
            published = [int(line[6:].split()[0]) for line in lines if line.startswith(b"data: ")]
            read += [(at, now) for at in published if at >= since]
        return read

    def close(self) -> None:
        """Hang up."""
        for sock in self.sockets.values():
            sock.close()


def _is_whole(read: Sequence[tuple[int, int]], browsers: int) -> bool:
    return len(read) == len({at for at, _ in read}) * browsers


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--rates", default="10,50,100", help="events a second, one by one")
    arguments.add_argument("--browsers", type=int, default=100)
    arguments.add_argument("--seconds", type=float, default=4.0, help="for each rate")
    arguments.add_argument(
        "--sessions",
        choices=("one", "own"),
        default="one",
        help="own: each process in a session of its own, and so with a share of the processors of "
        "its own, as in containers",
    )
    arguments.add_argument("--timeline", choices=("on", "off"), default="off")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    options = arguments.options(argv)
    report = Report("age of an event at browsers, three nodes, one machine", options.json)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        if options.rates:
            _measure_all(Path(name), options, report)
        if options.timeline == "on":
            traces = Path(name, "traced")
            traces.mkdir()
            _draw_timelines(traces, options, report)
    report.finish()


@contextmanager
def _cluster(
    directory: Path, options: argparse.Namespace, program: Sequence[str] = ("-m", "noti")
) -> Iterator[tuple[Processes, str, NotiCluster, Browsers]]:
    with Processes(directory, own_sessions=options.sessions == "own") as processes:
        url = start_nats(processes, directory)
        settings = [f"--nats-stream={STREAM}", f"--nats-subject={STREAM}.>"]
        cluster = NotiCluster(processes, directory, url, settings, program)
        cluster.wait_until_whole()
        browsers = Browsers()
        browsers.connect(cluster.nodes, options.browsers)
        try:
            browsers.follow(publish(processes, url, f"{STREAM}.bench", 50, 1))
            yield processes, url, cluster, browsers
        finally:
            browsers.close()


@contextmanager
def _beside(busy: bool, directory: Path, options: argparse.Namespace) -> Iterator[None]:
    with Processes(directory, own_sessions=options.sessions == "own") as loops:
        if busy:
            for number in range(BUSY_LOOPS):
                loops.start(f"busy{number}", [*PROCESSES, "burn"])
            time.sleep(1)  # imports are over
        yield


def publish(
    processes: Processes, url: str, subject: str, rate: float, seconds: float
) -> subprocess.Popen[bytes]:
    """Start a publisher of `rate` events a second."""
    command = [*PROCESSES, "publish", url.rpartition(":")[2], subject]
    return processes.start("publisher", [*command, str(rate), str(seconds)])


def _measure_all(directory: Path, options: argparse.Namespace, report: Report) -> None:
    rates = [float(rate) for rate in options.rates.split(",")]
    with _cluster(directory, options) as (processes, url, cluster, browsers):
        for busy in (False, True):
            beside = f"beside {BUSY_LOOPS} busy loops" if busy else "quiet"
            for rate in rates:
                with _beside(busy, directory, options):
                    baseline_ms = ages_at_baseline(processes, url, rate, options.seconds / 2)
                    cpu_s = _processor_s(cluster)
                    read = browsers.follow(
                        publish(processes, url, f"{STREAM}.bench", rate, options.seconds)
                    )
                    cpu_s = _processor_s(cluster) - cpu_s
                ages_ms = [(now - at) / 1e6 for at, now in read]
                events = len({at for at, _ in read})
                if not _is_whole(read, options.browsers):
                    raise ValueError(f"{len(read)} arrivals of {events} events at every browser")
                name = f"{rate:g} events/s, {beside}"
                for share, quantile_name in ((0.5, "p50"), (0.99, "p99")):
                    ours, theirs = quantile(ages_ms, share), quantile(baseline_ms, share)
                    report.add(f"{name}, {quantile_name}", ours, "ms", "nats-py, fetch", theirs)
                report.add(f"{name}, processor of an event", 1e3 * cpu_s / events, "ms")
                tell(f"{name}: p50 {quantile(ages_ms, 0.5):.1f} ms of {events} events")


def ages_at_baseline(processes: Processes, url: str, rate: float, seconds: float) -> list[float]:
    """Return the ages, ms, of events that a plain program fetches and acknowledges."""
    command = [*PROCESSES, "consume", url, "baseline", "baseline", str(seconds + SETTLE_S)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
        try:
            assert consumer.stdout is not None
            consumer.stdout.readline()
            publish(processes, url, "baseline", rate, seconds)
            ages_ms: list[float] = json.loads(consumer.stdout.read())
        finally:
            consumer.kill()
    return ages_ms


def _processor_s(cluster: NotiCluster) -> float:
    """Return what the nodes have taken of the processors, with those that write their logs."""
    nodes = [node.process.pid for node in cluster.nodes if node.process is not None]
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(stat.parent.name) in nodes or int(fields[1]) in nodes:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _draw_timelines(directory: Path, options: argparse.Namespace, report: Report) -> None:
    os.environ[FOLDER] = str(directory)
    program = ("-m", "tests.bench.traced_node")
    with _cluster(directory, options, program) as (processes, url, cluster, browsers):
        leader = cluster.wait_until_whole()
        for busy in (False, True):
            with _beside(busy, directory, options):
                read = browsers.follow(
                    publish(processes, url, f"{STREAM}.bench", 10, options.seconds)
                )
            beside = "busy" if busy else "quiet"
            first_read: dict[int, int] = {}
            last_read: dict[int, int] = {}
            for at, now in read:
                first_read.setdefault(at, now)
                last_read[at] = now
            offsets: dict[tuple[str, str], list[float]] = defaultdict(list)
            for node in cluster.nodes:
                role = "leader" if node is leader else "follower"
                _add_offsets(directory / f"{node.name}.trace", role, sorted(first_read), offsets)
            for what, moments in (("first", first_read), ("last", last_read)):
                ages = [(now - at) / 1e6 for at, now in moments.items()]
                offsets["browser", f"{what} one has read"] = ages
            for (role, hop), times in sorted(
                offsets.items(), key=lambda one: quantile(one[1], 0.5)
            ):
                report.add(f"timeline, {beside}: {role}: {hop}", quantile(times, 0.5), "ms")


def _add_offsets(
    trace: Path,
    role: str,
    published: Sequence[int],
    offsets: dict[tuple[str, str], list[float]],
) -> None:
    """Add when each hop was first passed after each publication, ms."""
    passed: dict[str, list[int]] = {hop: [] for hop, *_ in HOPS}
    for line in trace.read_text().splitlines():
        at, _, hop = line.partition(" ")
        passed[hop].append(int(at))
    for hop, times in passed.items():
        for began in published:
            after = [at for at in times if 0 <= at - began < WINDOW_S * 1e9]
            if after:
                offsets[role, hop].append((after[0] - began) / 1e6)


if __name__ == "__main__":
    main()
