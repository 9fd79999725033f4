"""Events from JetStream at 100 browsers of three nodes, beside a plain nats-py program.

Real processes on loopback: one NATS server with a work-queue in files, three nodes with fsync, 200
bytes of text an event. The plain program (asyncio, no Trio) fetches 500 at most and acknowledges
each, from a stream of its own, before the nodes start. A rate is what all browsers have, all of
them, each event once:

- backlog: the events lie in the stream, and somebody else's consumer keeps the nodes from it until
  browsers are connected. From the first event that is read to the last;
- live: so many publishers each send their next event when JetStream has answered the last one. They
  share a connection, as those of one process do, and wait while readers are more than
  `BEHIND_MAX` events behind, so that no backlog grows;
- p50 of the age at 100 events/s is measured as in `bench_latency`.

Everything shares the machine's processors, so what a process takes of them for each event of the
live rounds is told too.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
from nats.js import api

from tests.bench.bench_latency import Browsers, ages_at_baseline, publish
from tests.bench.bridge_processes import Progress, ProgressFile
from tests.bench.clusters import HOST, NotiCluster, NotiNode, Processes, start_nats, until
from tests.bench.report import Arguments, Report, quantile, tell

EVENT_BYTES: Final = 200
STREAM: Final = "bridge"
PLAIN_STREAM: Final = "plain"
OCCUPANT: Final = "occupant"
"""Somebody else's consumer, which keeps nodes from a work-queue."""

BEHIND_MAX: Final = 4096
"""Events that are published and not read: some hundred milliseconds of work."""
FILLING: Final = 1024
"""Publishes that wait for JetStream's answer while a backlog is made."""

WARM_UP_S: Final = 1.0
WITHIN_S: Final = 60.0
"""Much longer than any round takes."""
LOOK_S: Final = 0.002
"""How often to look how far readers are, while publishers wait for them."""
LATENCY_RATE: Final = 100
WITH_CHILDREN: Final = ("leader", "a follower")
"""Processes that have one which writes their log."""

_INBOX: Final = b"_INBOX.bench"
_ANSWERED: Final = b"MSG " + _INBOX
_LINE_BYTES_MAX: Final = 256
"""An answer of JetStream to a publication is shorter."""

PROCESSES: Final = [sys.executable, "-m", "tests.bench.bridge_processes"]


@dataclass(frozen=True, slots=True)
class Round:
    """What one round measured."""

    rate: float
    cpu_us: Mapping[str, float]
    """What each process took of the processors for an event, in microseconds."""


class Publisher:
    """Publishers that share a connection; each sends its next event when the last is answered."""

    def __init__(self, nats_url: str, subject: str, progress: ProgressFile) -> None:
        self._sock = socket.create_connection((HOST, int(nats_url.rpartition(":")[2])))
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.settimeout(WITHIN_S)
        self._sock.recv(65536)
        hello = b'CONNECT {"verbose":false,"pedantic":false,"headers":false}\r\nSUB %b 1\r\n'
        self._sock.sendall(hello % _INBOX)
        self._head = b"PUB %b %b %d\r\n" % (subject.encode(), _INBOX, EVENT_BYTES)
        self._progress = progress
        self._seam = b""
        self.published = 0
        """Of which all but `unanswered` lie in the stream."""
        self.unanswered = 0
        self.rounds = 0

    def run(self, publishers: int, goes_on: Callable[[], bool], behind_max: int = 2**62) -> None:
        """Publish until `goes_on` is false, and the last event has been answered."""
        while self.unanswered or goes_on():
            room = self._progress.read().events + behind_max - self.published
            count = min(publishers - self.unanswered, room) if goes_on() else 0
            if count > 0:
                self._send(f"event {self.published:012}", count)
            if self.unanswered:
                self._take_answers()
            else:
                time.sleep(LOOK_S)

    def finish(self) -> None:
        """Publish the last event of a round, and wait until all readers have it."""
        self.rounds += 1
        self._send(f"the last of round {self.rounds:03}", 1)
        while self.unanswered:
            self._take_answers()
        deadline = time.monotonic() + WITHIN_S
        while (progress := self._progress.read()).last < self.rounds:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{progress} of {self.published} events, round {self.rounds}")
            time.sleep(LOOK_S)
        if progress.events != self.published:
            raise ValueError(f"{progress.events} arrivals of {self.published} events")

    def _send(self, text: str, count: int) -> None:
        event = b"%b%b\r\n" % (self._head, text.encode().ljust(EVENT_BYTES, b"."))
        self.published += count
        self.unanswered += count
        self._sock.sendall(event * count)

    def _take_answers(self) -> None:
        received = self._seam + self._sock.recv(256 * 1024)
        *whole, rest = received.rpartition(b"}\r\n")
        data = b"".join(whole)
        self._seam = rest
        answers = data.count(_ANSWERED)
        if not data or b'"error"' in data or data.count(b'"seq"') != answers:
            if len(rest) < _LINE_BYTES_MAX and not data:
                return
            raise ValueError(f"JetStream answered {received[:_LINE_BYTES_MAX]!r}")
        self.unanswered -= answers


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--publishers", default="64,256", help="numbers of publishers")
    arguments.add_argument("--events", type=int, default=60_000, help="in the backlog")
    arguments.add_argument("--seconds", type=float, default=4.0, help="for each live round")
    arguments.add_argument("--browsers", type=int, default=100, help="in turns at the nodes")
    arguments.add_argument("--latency", choices=("on", "off"), default="on")
    arguments.add_argument(
        "--program", default="noti", help="module that runs a node, such as one that profiles it"
    )
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    options = arguments.options(argv)
    report = Report("events of 200 bytes from JetStream to browsers, one machine", options.json)
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        url = start_nats(them, Path(name))
        theirs = _measure_plain(them, Path(name), url, options)
        cluster, ours = _measure_noti(them, Path(name), url, options)
        for what, one in ours.items():
            report.add(what, one.rate, "events/s", "nats-py, fetch and ack", theirs[what].rate)
            for process, cpu_us in one.cpu_us.items():
                baseline_us = theirs[what].cpu_us.get(process)
                baseline = None if baseline_us is None else "with nats-py"
                report.add(f"{what}, {process}, of an event", cpu_us, "us", baseline, baseline_us)
            plain_us = theirs[what].cpu_us["nats-py"]
            report.add(f"{what}, nats-py, of an event", plain_us, "us")
        if options.latency == "on":
            _measure_latency(them, url, cluster, options, report)
    report.finish()


def _measure_plain(
    processes: Processes, directory: Path, url: str, options: argparse.Namespace
) -> dict[str, Round]:
    asyncio.run(_make_stream(url, PLAIN_STREAM))
    progress = directory / "plain.progress"
    publisher = Publisher(url, f"{PLAIN_STREAM}.events", ProgressFile(progress))
    reader: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        command = [*PROCESSES, "consume", url, PLAIN_STREAM, str(progress)]
        reader.append(processes.start("nats-py", command))

    def pids() -> dict[str, list[int]]:
        return {"nats-py": [one.pid for one in reader], **_common(processes)}

    try:
        return _measure("nats-py", publisher, ProgressFile(progress), start, pids, options)
    finally:
        for one in reader:
            one.kill()


def _measure_noti(
    processes: Processes, directory: Path, url: str, options: argparse.Namespace
) -> tuple[NotiCluster, dict[str, Round]]:
    asyncio.run(_make_stream(url, STREAM, OCCUPANT))
    settings = [f"--nats-stream={STREAM}", f"--nats-subject={STREAM}.>", "--nats-decoder=text"]
    cluster = NotiCluster(processes, directory, url, settings, ("-m", options.program))
    leader = until("the nodes have a leader", lambda: _leader(cluster))
    progress = directory / "browsers.progress"
    followed = ProgressFile(progress)
    followed.write(Progress(0, -1))
    ports = ",".join(str(node.http) for node in cluster.nodes)
    command = [*PROCESSES, "browse", ports, str(options.browsers), str(progress)]
    browsers = processes.start("browsers", command)
    until("browsers are connected", lambda: followed.read().last == 0)
    publisher = Publisher(url, f"{STREAM}.events", followed)
    followers = [node for node in cluster.nodes if node is not leader]

    def pids() -> dict[str, list[int]]:
        return {
            "leader": _pids([leader]),
            "a follower": _pids(followers),
            "browsers": [browsers.pid],
            **_common(processes),
        }

    def start() -> None:
        asyncio.run(_leave(url))

    measured = _measure("noti", publisher, followed, start, pids, options)
    if _leader(cluster) is not leader:
        raise ValueError("another node leads now; the machine was too busy")
    browsers.kill()
    return cluster, measured


def _measure(
    who: str,
    publisher: Publisher,
    followed: ProgressFile,
    start: Callable[[], None],
    pids: Callable[[], dict[str, list[int]]],
    options: argparse.Namespace,
) -> dict[str, Round]:
    """Measure the backlog, which is read from `start` on, then the live rounds."""
    publisher.run(FILLING, lambda: publisher.published < options.events)
    start()
    began_at = until(f"{who} reads", lambda: followed.read().events and time.perf_counter())
    before, cpu_s = followed.read().events, _processor_s(pids())
    publisher.finish()
    took_s, events = time.perf_counter() - began_at, publisher.published - before
    measured = {"backlog": _round(events, took_s, cpu_s, _processor_s(pids()))}
    tell(f"{who}, a backlog of {publisher.published} events: {events / took_s:,.0f} events/s")
    for number in map(int, options.publishers.split(",")):
        publisher.run(number, _for(WARM_UP_S), BEHIND_MAX)
        before, began_at, cpu_s = followed.read().events, time.perf_counter(), _processor_s(pids())
        publisher.run(number, _for(options.seconds), BEHIND_MAX)
        events, took_s = followed.read().events - before, time.perf_counter() - began_at
        one = measured[f"{number} publishers"] = _round(events, took_s, cpu_s, _processor_s(pids()))
        publisher.finish()
        share = one.cpu_us["publishers"] * one.rate / 1e6
        tell(
            f"{who}, {number} publishers: {one.rate:,.0f} events/s (publishers took {share:.0%} "
            f"of a core)"
        )
    return measured


def _for(seconds: float) -> Callable[[], bool]:
    """Return what is true for so long."""
    ends = time.perf_counter() + seconds
    return lambda: time.perf_counter() < ends


def _round(
    events: int, took_s: float, before: Mapping[str, float], after: Mapping[str, float]
) -> Round:
    taken = {name: 1e6 * (after[name] - before.get(name, 0)) / events for name in after}
    return Round(events / took_s, taken)


def _measure_latency(
    processes: Processes,
    url: str,
    cluster: NotiCluster,
    options: argparse.Namespace,
    report: Report,
) -> None:
    browsers = Browsers()
    browsers.connect(cluster.nodes, options.browsers)
    try:
        browsers.follow(publish(processes, url, f"{STREAM}.warm", LATENCY_RATE, WARM_UP_S))
        baseline_ms = ages_at_baseline(processes, url, LATENCY_RATE, options.seconds)
        read = browsers.follow(
            publish(processes, url, f"{STREAM}.ages", LATENCY_RATE, options.seconds)
        )
    finally:
        browsers.close()
    ages_ms = [(now - at) / 1e6 for at, now in read]
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        ours, theirs = quantile(ages_ms, share), quantile(baseline_ms, share)
        report.add(f"{LATENCY_RATE} events/s, {name}", ours, "ms", "nats-py, fetch of 1", theirs)


async def _make_stream(url: str, name: str, occupant: str | None = None) -> None:
    client = await nats.connect(url)
    jetstream = client.jetstream()
    await jetstream.add_stream(
        name=name,
        subjects=[f"{name}.>"],
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
    )
    if occupant is not None:
        config = api.ConsumerConfig(durable_name=occupant, ack_policy=api.AckPolicy.EXPLICIT)
        await jetstream.add_consumer(name, config)
    await client.close()


async def _leave(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().delete_consumer(STREAM, OCCUPANT)
    await client.close()


def _leader(cluster: NotiCluster) -> NotiNode | None:
    """Return the leader that all nodes follow."""
    statuses = [node.status() for node in cluster.nodes]
    if any(status is None or not status["leader"] for status in statuses):
        return None
    leading = {status["leader"] for status in statuses if status is not None}
    return next((node for node in cluster.nodes if {node.name} == leading), None)


def _common(processes: Processes) -> dict[str, list[int]]:
    return {
        "nats-server": [processes.started("nats")[0].pid],
        "publishers": [os.getpid()],
    }


def _processor_s(pids: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return what each has taken of the processors, in seconds; of followers, their mean."""
    ticks = dict.fromkeys(pids, 0)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        for name, theirs in pids.items():
            is_child = int(fields[1]) in theirs and name in WITH_CHILDREN
            if int(stat.parent.name) in theirs or is_child:
                ticks[name] += int(fields[11]) + int(fields[12])
    per_s = os.sysconf("SC_CLK_TCK")
    means = {name: len(pids[name]) if name in WITH_CHILDREN else 1 for name in pids}
    return {name: ticks[name] / per_s / means[name] for name in pids}


def _pids(nodes: Sequence[NotiNode]) -> list[int]:
    return [node.process.pid for node in nodes if node.process is not None]


if __name__ == "__main__":
    main()
