"""How long events stand still when the leader goes: by kill -9, and by SIGTERM.

Three node processes and a NATS server on loopback; a publisher sends numbered events, 50 a second;
event-stream clients of all nodes note when each event arrives. Then the leader is killed (or asked
to stop), the others carry on, it is started again, and so on. For each time:

- next event: from the signal until a client of a surviving node sees an event that was published
  after it. On average half the publisher's interval, 10 ms, is waiting for that publication.
- longest delay: the longest time from the publication of an event, shortly before the signal or
  after it, until a client of a surviving node saw it. What a person would notice.

Both include everything: the election, the new leader's way to NATS, the commit, the event stream.

Beside it, in alternating rounds, the leader of three members of etcd is killed in the same way,
with the same load, while noti's publisher is stopped (etcd is in noti's rounds): once with etcd's
own timeouts, once with those in `etcd=HEARTBEAT:ELECTION` (ms; the default is noti's; etcd demands
that an election timeout is at least five heartbeats). There it is the time until a put succeeds
that was begun after the signal, at a member that survives: no stream of events, and no third party,
is in it.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import trio

from tests.bench.clusters import (
    ETCD_INSTALL,
    HOST,
    EtcdCluster,
    NotiCluster,
    NotiNode,
    Processes,
    etcd_binary,
    start_nats,
)
from tests.bench.etcd_outages import kill_leader
from tests.bench.report import Arguments, Report, quantile, tell

BEFORE_S = 0.5
"""Events published so long before the signal may be delayed by it."""
NEXT_EVENT_WITHIN_S = 15.0
SETTLE_S = 0.5
"""After the next event was seen, before the delays are looked at: delayed events come together."""
PAUSE_S = (0.2, 0.6)
"""Between a whole cluster and the next signal; drawn, so that it hits any phase of a heartbeat."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event, as a client of one node saw it; wall time, the publisher's and ours are one."""

    node: int
    created_s: float
    arrived_s: float


@dataclass(frozen=True, slots=True)
class Outage:
    """What one signal did."""

    next_event_ms: float
    longest_delay_ms: float


class Observer:
    """Clients of all nodes, each reconnecting when its node comes back."""

    def __init__(self) -> None:
        self.arrivals: list[Arrival] = []
        self.news = trio.Event()

    async def watch(self, node: NotiNode) -> None:
        """Note every event that a node shows, for ever."""
        while True:
            with suppress(OSError):
                stream = await trio.open_tcp_stream(HOST, node.http)
                async with stream:
                    await self._read(node, stream)
            await trio.sleep(0.02)

    async def _read(self, node: NotiNode, stream: trio.SocketStream) -> None:
        request = "GET /.well-known/mercure?topic=* HTTP/1.1\r\nHost: bench\r\n\r\n"
        await stream.send_all(request.encode())
        rest = b""
        async for data in stream:
            arrived_s = time.time()
            # Chunks hold whole frames, so no line of a frame is ever cut by a chunk's own lines.
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    created = json.loads(line[len(b"data: ") :])["created_at"]
                    created_s = datetime.fromisoformat(created).timestamp()
                    self.arrivals.append(Arrival(node.number, created_s, arrived_s))
            self.news.set()
            self.news = trio.Event()


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--kills", type=int, default=30, help="times kill -9")
    arguments.add_argument("--stops", type=int, default=15, help="times SIGTERM")
    arguments.add_argument("--rate", type=float, default=50, help="events a second")
    arguments.add_argument(
        "--etcd", default="100:500", help="its timeouts beside the default, with commas; or none"
    )
    arguments.add_argument("--limit", type=float, default=170, help="seconds for everything")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    options = arguments.options(argv)
    report = Report(f"outages with {options.rate:g} events/s", options.json)
    trio.run(_run, options, report)
    report.finish()


async def _run(options: argparse.Namespace, report: Report) -> None:
    ends = trio.current_time() + options.limit
    # Two stops for every four kills, until there are enough: when time runs out, there are some
    # of both.
    order = _mixed(options.kills, options.stops)
    outages: dict[signal.Signals, list[Outage]] = {signal.SIGKILL: [], signal.SIGTERM: []}
    with tempfile.TemporaryDirectory(dir=options.directory) as name, Processes(Path(name)) as them:
        nats_url = start_nats(them, Path(name))
        cluster = NotiCluster(them, Path(name), nats_url)
        await trio.to_thread.run_sync(cluster.wait_until_whole)
        theirs = _etcd_clusters(them, Path(name), options.etcd)
        their_outages_ms: dict[str, list[float]] = {name: [] for name in theirs}
        publish = ["mock-publisher", f"--nats-url={nats_url}", f"--rate={options.rate}"]
        publisher = them.start("publisher", [sys.executable, "-m", "noti", *publish])
        observer = Observer()
        async with trio.open_nursery() as nursery:
            for node in cluster.nodes:
                nursery.start_soon(observer.watch, node)
            with trio.move_on_at(ends):
                for number in order:
                    outages[number].append(await _outage(cluster, observer, number))
                    if number is signal.SIGKILL:
                        for kind, etcd in theirs.items():
                            outage_ms = await _etcd_outage(cluster, etcd, publisher, options.rate)
                            their_outages_ms[kind].append(outage_ms)
                            tell(f"SIGKILL of {kind}: next put after {outage_ms:.0f} ms")
            nursery.cancel_scope.cancel()
    for number, what in ((signal.SIGKILL, "kill -9"), (signal.SIGTERM, "SIGTERM")):
        if outages[number]:
            _add_figures(report, f"{what} ({len(outages[number])} times)", outages[number])
    for kind, values in their_outages_ms.items():
        if values:
            _add_quantiles(report, f"kill -9 of {kind} ({len(values)} times), next put", values)


def _etcd_clusters(them: Processes, directory: Path, settings: str) -> dict[str, EtcdCluster]:
    """Start those of etcd, by name: one with its own timeouts, one for each pair of others. They
    are stopped (SIGSTOP) until their turn comes."""
    binary = etcd_binary()
    if settings == "none" or binary is None:
        tell("without etcd" if settings == "none" else f"without etcd: {ETCD_INSTALL}")
        return {}
    clusters: dict[str, EtcdCluster] = {}
    for pair in ["", *settings.split(",")]:
        heartbeat, _, election = pair.partition(":")
        timeouts = [f"--heartbeat-interval={heartbeat}", f"--election-timeout={election}"]
        name = f"etcd ({pair or 'its own timeouts'})"
        place = directory / f"etcd{len(clusters)}"
        place.mkdir()
        clusters[name] = EtcdCluster(them, place, binary, timeouts if pair else ())
    for cluster in clusters.values():
        cluster.wait_until_whole()
        cluster.signal(signal.SIGSTOP)
    return clusters


async def _etcd_outage(
    cluster: NotiCluster, etcd: EtcdCluster, publisher: subprocess.Popen[bytes], rate: float
) -> float:
    """Kill etcd's leader while noti is whole and has nothing to do; return milliseconds."""
    await trio.to_thread.run_sync(cluster.wait_until_whole)
    publisher.send_signal(signal.SIGSTOP)
    try:
        await trio.sleep(random.uniform(*PAUSE_S))
        leader, outage_ms = await trio.to_thread.run_sync(
            partial(kill_leader, etcd, rate=rate, before_s=BEFORE_S, within_s=NEXT_EVENT_WITHIN_S)
        )
        # Not in a thread: a process ends with the thread that started it.
        etcd.start(leader)
        await trio.to_thread.run_sync(etcd.wait_until_whole)
        etcd.signal(signal.SIGSTOP)
        return outage_ms
    finally:
        publisher.send_signal(signal.SIGCONT)


def _mixed(kills: int, stops: int) -> list[signal.Signals]:
    """Return the signals to send, both kinds spread evenly."""
    placed = [((i + 0.5) / kills, signal.SIGKILL) for i in range(kills)]
    placed += [((i + 0.5) / stops, signal.SIGTERM) for i in range(stops)]
    return [number for _, number in sorted(placed)]


async def _outage(cluster: NotiCluster, observer: Observer, number: signal.Signals) -> Outage:
    """Signal the leader, wait until the cluster is whole again, return what clients noticed."""
    leader = await trio.to_thread.run_sync(cluster.wait_until_whole)
    await trio.sleep(random.uniform(*PAUSE_S))
    observer.arrivals.clear()
    await trio.sleep(BEFORE_S)
    while not observer.arrivals:  # the publisher is slow to start
        await observer.news.wait()
    assert leader.process is not None
    at_s = time.time()
    leader.process.send_signal(number)
    with trio.fail_after(NEXT_EVENT_WITHIN_S):
        while not (later := _after(observer, leader, at_s)):
            await observer.news.wait()
    next_event_s = min(arrival.arrived_s for arrival in later) - at_s
    await trio.sleep(SETTLE_S)
    longest_s = _longest_delay_s(observer, leader, at_s)
    outage = Outage(next_event_s * 1000, longest_s * 1000)
    await trio.to_thread.run_sync(leader.process.wait)
    cluster.start(leader)
    tell(
        f"{number.name} of {leader.name}: next event after {outage.next_event_ms:.0f} ms, "
        f"longest delay {outage.longest_delay_ms:.0f} ms"
    )
    return outage


def _after(observer: Observer, leader: NotiNode, at_s: float) -> list[Arrival]:
    """Return the arrivals at surviving nodes of events that were published after `at_s`."""
    return [a for a in observer.arrivals if a.node != leader.number and a.created_s > at_s]


def _longest_delay_s(observer: Observer, leader: NotiNode, at_s: float) -> float:
    """Return the longest way of an event to the first surviving client that saw it."""
    first: dict[float, float] = {}
    for arrival in observer.arrivals:
        if arrival.node != leader.number and arrival.created_s > at_s - BEFORE_S:
            seen_s = first.setdefault(arrival.created_s, arrival.arrived_s)
            first[arrival.created_s] = min(seen_s, arrival.arrived_s)
    return max(arrived_s - created_s for created_s, arrived_s in first.items())


def _add_figures(report: Report, name: str, outages: Sequence[Outage]) -> None:
    _add_quantiles(report, f"{name}, next event", [one.next_event_ms for one in outages])
    _add_quantiles(report, f"{name}, longest delay", [one.longest_delay_ms for one in outages])


def _add_quantiles(report: Report, name: str, values: Sequence[float]) -> None:
    report.add(f"{name}, p50", quantile(values, 0.5), "ms")
    report.add(f"{name}, p99", quantile(values, 0.99), "ms")
    report.add(f"{name}, worst", max(values), "ms")


if __name__ == "__main__":
    main()
