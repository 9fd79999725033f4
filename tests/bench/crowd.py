"""More clients than one process may hold: what each step costs the server for each of them.

A process may hold some 20,000 descriptors on small machines, so that as many web workers serve as
are needed, and as many processes load, from many addresses of 127.0.0.0/8. Nothing is bound to a
processor. Costs are in CPU time of the server (all its processes) for one client, so that numbers
of clients can be compared: what grows faster than they do shows.
"""

import argparse
import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from types import FrameType
from typing import Final

from noti.errors import LocalError
from tests.bench.hub_servers import Noti
from tests.bench.load.processes import cpu_s
from tests.bench.report import Report, tell
from tests.bench.sites import Site, Sites

CROWD: Final = 16_000
"""More than this do not fit into one process with 20,000 descriptors."""
CLIENTS_OF_A_WORKER: Final = 16_700
"""It has room for some 17,100; the kernel shares connections out evenly to one of a hundred, and
who finds no room comes again."""
ALL_FOR_STREAMS: Final = ("--http-connections-max=256", "--rpc-connections-max=64")
"""Other connections leave their descriptors to streams."""
EVENTS: Final = 5
"""Shown to all, each when all have had the one before."""
HEARTBEATS_S: Final = 30.0
"""Two of them for each client."""
AWAY_S: Final = 2.0
DRAINED: Final = ("--sse-drain-s=5", "--shutdown-deadline-s=60")
"""Who is sent away at once comes back at once; 5 s are the least that is used with so many."""
NOTICED_S: Final = 30.0
"""Until fleets have read what a node that has ended left for them."""
MIB: Final = 1024 * 1024
LOOK_S: Final = 0.05


class Crowd:
    """One run with one number of clients."""

    def __init__(self, options: argparse.Namespace, report: Report, clients: int) -> None:
        needed = 0 if clients <= CROWD else math.ceil(clients / CLIENTS_OF_A_WORKER)
        workers: int = options.workers or needed
        placing = {"workers": workers, "bound": "no", "only": "noti"}
        self._options = argparse.Namespace(**{**vars(options), **placing})
        self._report = report
        self._clients = clients
        self._name = f"{clients} clients, {workers} workers"

    def measure(self) -> None:
        """Let them come, listen, be silent, storm and be sent away. Raises `LocalError` when it
        takes longer than `options.limit` seconds."""
        clients = self._clients
        sites = Sites(
            self._options, [f"--sse-clients-max={clients * 2}", *ALL_FOR_STREAMS, *DRAINED]
        )
        with _limited(self._options.limit), sites.site("noti", clients, settle_s=1.0) as site:
            assert isinstance(site.server, Noti)
            self._add("first connections", clients / site.open_s, "clients/s")
            self._add("CPU of a connection", 1e6 * site.open_cpu_s / clients, "us")
            self._add("memory of an idle one", site.client_bytes, "bytes")
            self._add("memory of the server", site.course.resident_bytes() / MIB, "MiB")
            self._events(site)
            self._heartbeats(site)
            self._storm(site)
            self._drain(site, site.server)

    def _events(self, site: Site) -> None:
        with closing(site.server.publisher()) as publisher:
            stretch = site.course.singly(publisher, EVENTS)
        tally = stretch.tally
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            self._add(f"an event to all, {name}", tally.delay_ms(share), "ms")
        cpu_us = 1e6 * (stretch.server_cpu or 0) * stretch.seconds / max(1, tally.events)
        self._add("CPU of a delivery", cpu_us, "us")
        load_us = 1e6 * stretch.clients_cpu * stretch.seconds / max(1, tally.events)
        self._add("CPU of a delivery, load", load_us, "us")
        self._add("lost, repeated or ended", tally.lost + tally.repeated + tally.ended, "")

    def _heartbeats(self, site: Site) -> None:
        cpu = site.course.idle_cpu(HEARTBEATS_S)
        self._add("CPU while idle", 100 * cpu, "%")
        self._add("CPU while idle, of a client", 1e6 * cpu / self._clients, "us/s")

    def _storm(self, site: Site) -> None:
        before = cpu_s(site.server.pids)
        with closing(site.server.publisher()) as publisher:
            reached = site.course.storm(publisher, AWAY_S)
        tally = site.course.storm_tally
        self._add("storm until all are caught up", reached.reached_s, "s")
        cpu_us = 1e6 * (cpu_s(site.server.pids) - before) / self._clients
        self._add("storm, CPU of a client", cpu_us, "us")
        self._add("storm, lost or repeated", tally.lost + tally.repeated, "")

    def _drain(self, site: Site, server: Noti) -> None:
        site.fleets.start_counting()
        pids: Sequence[int] = server.pids
        before = spent = cpu_s(pids)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        while server.process.poll() is None:
            with suppress(LocalError):  # some of them are gone: the last sum is the best one
                spent = cpu_s(pids)
            time.sleep(LOOK_S)
        self._add("drain until the node has ended", time.monotonic() - began, "s")
        self._add("drain, CPU of a client", 1e6 * (spent - before) / self._clients, "us")
        noticed_by = time.monotonic() + NOTICED_S
        while site.fleets.open_now and time.monotonic() < noticed_by:
            time.sleep(LOOK_S)
        tally, _ = site.fleets.report(0)
        self._add("drain, streams ended in order", 100 * tally.finished / self._clients, "%")

    def _add(self, figure: str, value: float, unit: str) -> None:
        tell(f"  {figure}: {value:,.1f} {unit}")
        self._report.add(f"{self._name}, {figure}", value, unit)


@contextmanager
def _limited(limit_s: float) -> Iterator[None]:
    """Raise `LocalError` when the block takes longer."""

    def over(number: int, frame: FrameType | None) -> None:
        raise LocalError(f"not done within {limit_s:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
