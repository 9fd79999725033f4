"""noti beside nginx with nchan: the same clients, the same events of 150 bytes, in the same call.

One noti node with its Raft log and store running, against nginx with one worker. The server has
one processor for itself; clients, publisher and NATS share another.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from noti.load.course import Course, Stretch, new_run
from noti.load.fleets import Fleets
from tests.bench.clusters import Processes
from tests.bench.hub_servers import NGINX_INSTALL, Nchan, Noti, Server, nginx_root
from tests.bench.report import Arguments, Report, tell

SERVER_CPU, LOAD_CPU = 0, 1

StartServer = Callable[[Processes, Path], Server]


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--clients", default="1000,5000", help="numbers of clients to flood")
    arguments.add_argument("--seconds", type=float, default=5, help="for each measurement")
    arguments.add_argument("--window", type=int, default=256, help="events under way at most")
    arguments.add_argument("--batch", type=int, default=64, help="events published at once")
    arguments.add_argument("--only", default="", help="measure this server only: noti or nchan")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    options = arguments.options(argv)
    report = Report("fan-out of events of 150 bytes, one processor for the server", options.json)
    os.sched_setaffinity(0, {LOAD_CPU})
    servers = _servers(options.only)
    for clients in map(int, options.clients.split(",")):
        results = {
            name: _flood(start, clients, options) if start else None
            for name, start in servers.items()
        }
        ours, theirs = results.get("noti"), results.get("nchan")
        baseline = "nchan" if servers.get("nchan") else f"nchan (not installed: {NGINX_INSTALL})"
        if ours is not None:
            report.add(
                f"{clients} clients, batches of {options.batch}",
                ours.deliveries_per_s,
                "deliveries/s",
                baseline,
                theirs.deliveries_per_s if theirs else None,
            )
    report.finish()


def _servers(only: str) -> dict[str, StartServer | None]:
    root = nginx_root()
    servers: dict[str, StartServer | None] = {
        "noti": lambda them, directory: Noti(them, directory, SERVER_CPU),
        "nchan": None
        if root is None
        else lambda them, directory: Nchan(them, directory, root, SERVER_CPU),
    }
    return {name: start for name, start in servers.items() if only in ("", name)}


@contextmanager
def _course(start: StartServer, clients: int, directory: Path | None) -> Iterator[Course]:
    run = new_run()
    with tempfile.TemporaryDirectory(dir=directory) as name, Processes(Path(name)) as them:
        server = start(them, Path(name))
        with Fleets(server.url, clients, run, cpus=[LOAD_CPU]) as fleets:
            reached = fleets.open()
            tell(f"{server.name}: {clients} clients open after {reached.open_s:.2f} s")
            publisher = server.publisher()
            try:
                yield Course(fleets, publisher, run, server.pids)
            finally:
                publisher.close()


def _flood(start: StartServer, clients: int, options: argparse.Namespace) -> Stretch:
    with _course(start, clients, options.directory) as course:
        stretch = course.flood(options.window, options.batch, options.seconds)
    _tell_stretch(stretch)
    return stretch


def _tell_stretch(stretch: Stretch) -> None:
    tally = stretch.tally
    tell(
        f"  {stretch.deliveries_per_s:,.0f} deliveries/s, {stretch.published} published, "
        f"lost {tally.lost}, repeated {tally.repeated}, ended {tally.ended}; "
        f"p50 {tally.delay_ms(0.5):.1f} ms, p99 {tally.delay_ms(0.99):.1f} ms; "
        f"clients' CPU {stretch.clients_cpu:.0%}, server's {stretch.server_cpu or 0:.0%}"
    )


if __name__ == "__main__":
    main()
