"""A server with its clients, whichever it is and however they come: what benchmarks measure."""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.clusters import Processes
from tests.bench.hub_servers import (
    CENTRIFUGO_INSTALL,
    NCHAN_INSTALL,
    Centrifugo,
    Certificate,
    Nchan,
    Noti,
    Server,
    centrifugo_binary,
    nchan_root,
)
from tests.bench.load.course import Course, Stretch, new_run
from tests.bench.load.fleets import Fleets
from tests.bench.load.processes import cpu_s
from tests.bench.report import Arguments, Report, tell

SERVER_CPU, LOAD_CPU = 0, 1

Start = Callable[[Processes, Path, str, Certificate | None], Server]


@dataclass
class Site:
    """A server with its clients."""

    server: Server
    course: Course
    fleets: Fleets
    open_s: float
    """How long it took until all clients had their stream."""
    open_cpu_s: float
    """CPU time of the server for that."""
    client_bytes: float
    """What the server's memory grew by for each of them."""


class Sites:
    """The servers that can be had here."""

    def __init__(self, options: argparse.Namespace, settings: Sequence[str] = ()) -> None:
        """`options` are those of `add_placing`, `only` (one server) and `directory`; `settings`
        are noti's."""
        self._directory: Path | None = options.directory
        self._cpus = (SERVER_CPU, LOAD_CPU) if _is_bound(options) else None
        cpu = None if self._cpus is None else self._cpus[0]
        workers: int = options.workers
        only: str = options.only
        self._starts: dict[str, Start] = {
            "noti": lambda them, at, transport, tls: Noti(
                them, at, cpu, settings, transport=transport, tls=tls, web_workers=workers
            )
        }
        self.missing: dict[str, str] = {}
        """Baselines that cannot be had, and how they are installed."""
        root, binary = nchan_root(), centrifugo_binary()
        if root is None:
            self.missing["nchan"] = NCHAN_INSTALL
        else:
            self._starts["nchan"] = lambda them, at, transport, tls: Nchan(
                them, at, root, cpu, transport, tls
            )
        if binary is None:
            self.missing["centrifugo"] = CENTRIFUGO_INSTALL
        else:
            self._starts["centrifugo"] = lambda them, at, transport, tls: Centrifugo(
                them, at, binary, cpu, transport, tls
            )
        self._only = only

    def names(self, *wanted: str) -> list[str]:
        """Return those of `wanted` that are here and asked for."""
        return [name for name in wanted if name in self._starts and self._only in ("", name)]

    @contextmanager
    def site(
        self,
        name: str,
        clients: int,
        transport: str = "sse",
        *,
        processes: int | None = None,
        sources: int | None = None,
        settle_s: float = 0.0,
    ) -> Iterator[Site]:
        """Start a server, let all clients come, and rest for `settle_s`."""
        run = new_run()
        with (
            tempfile.TemporaryDirectory(dir=self._directory) as directory,
            Processes(Path(directory)) as them,
        ):
            tls = Certificate.made(Path(directory)) if transport.endswith("-tls") else None
            server = self._starts[name](them, Path(directory), transport, tls)
            with Fleets(
                server.url,
                clients,
                run,
                processes=processes,
                cpus=[] if self._cpus is None else [self._cpus[1]],
                sources=sources,
                tls_ca=None if tls is None else tls.ca,
            ) as fleets:
                course = Course(fleets, run, server.pids)
                before = course.resident_bytes()
                cpu_before = cpu_s(server.pids)
                open_s = fleets.open().open_s
                open_cpu_s = cpu_s(server.pids) - cpu_before
                client_bytes = (course.resident_bytes() - before) / clients
                tell(f"{name}, {transport}: {clients} clients open after {open_s:.2f} s")
                time.sleep(settle_s)
                yield Site(server, course, fleets, open_s, open_cpu_s, client_bytes)


def add_placing(arguments: Arguments) -> None:
    """Take options for web workers, and for who uses which processor."""
    arguments.add_argument("--workers", type=int, default=0, help="web workers of the node")
    arguments.add_argument(
        "--bound",
        choices=("auto", "yes", "no"),
        default="auto",
        help="the server to one processor, the load to another (auto: unless there are workers)",
    )


def _is_bound(options: argparse.Namespace) -> bool:
    bound: str = options.bound
    return not options.workers if bound == "auto" else bound == "yes"


def stay_beside(options: argparse.Namespace) -> None:
    """Let this process, which publishes, use the clients' processor, or any."""
    if _is_bound(options):
        os.sched_setaffinity(0, {LOAD_CPU})


SUMMED_UP: Final = (
    "  {:,.0f} deliveries/s, {} published, lost {}, repeated {}, ended {}; "
    "p50 {:.1f} ms, p99 {:.1f} ms; clients' CPU {:.0%}, server's {:.0%}"
)


def tell_of(stretch: Stretch) -> None:
    """Say what happened."""
    tally = stretch.tally
    tell(
        SUMMED_UP.format(
            stretch.deliveries_per_s,
            stretch.published,
            tally.lost,
            tally.repeated,
            tally.ended,
            tally.delay_ms(0.5),
            tally.delay_ms(0.99),
            stretch.clients_cpu,
            stretch.server_cpu or 0,
        )
    )


def add_beside(
    report: Report, sites: Sites, name: str, unit: str, found: dict[str, float | None]
) -> None:
    """Note what was found of each server: noti's beside each baseline's."""
    ours = found.get("noti")
    others = {server: value for server, value in found.items() if server != "noti"}
    if ours is None:
        for server, value in others.items():
            if value is not None:
                report.add(f"{server}, {name}", value, unit)
        return
    missing = {f"{server} (not installed: {how})": None for server, how in sites.missing.items()}
    for server, value in {**others, **missing}.items() or {"": None}.items():
        report.add(name, ours, unit, server or None, value)
