"""noti beside nginx with nchan: the same clients, the same events of 150 bytes, in the same call.

One noti node with its Raft log and store running, against nginx with one worker. The server has
one processor for itself; clients, publisher and NATS share another. Every client checks that it
gets every event once; what is lost or repeated is told.

- fan-out: published as fast as it is accepted, `window` events ahead of the clients at most; one
  by one over gRPC and, the same for nchan, by pipelined HTTP POST; and for noti in batches through
  JetStream. Also per CPU second of the server, which other work of the machine distorts less.
- unpaced: one publisher that is never told to wait, 64 requests under way on one gRPC stream,
  for 10 s: nobody may be closed, nothing may be lost, and deliveries may not collapse.
- delay: from publication to the client's read, at a steady rate.
- memory: of the server's process, before and after the clients came; the kernel's is not in it.
- storm: all clients drop, miss 100 events, and come back at once, each from its last id.
- crowd: more clients than a process may hold, e.g. `clients=100000` (see `crowd.py`).
- commit: how long one event takes to be committed, while clients idle and while events fan out.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

from tests.bench.crowd import CROWD, Crowd
from tests.bench.hub_servers import Noti, Server
from tests.bench.load.course import Stretch
from tests.bench.load.publishers import Publisher
from tests.bench.report import Arguments, Report, quantile, tell
from tests.bench.sites import Site, Sites, add_placing, stay_beside, tell_of

PACED_CLIENTS, PACED_RATE = 1000, 100
COMMIT_CLIENTS = 5000
UNPACED_S = 10.0
AWAY_S = 1.0
"""Until a server has noticed that its clients are gone, so that only their return is measured."""

PARTS = ("fanout", "unpaced", "delay", "idle", "storm", "commit")


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = _arguments().options(argv)
    numbers = [int(number) for number in options.clients.split(",")]
    usual = PARTS if min(numbers) <= CROWD else ("crowd",)
    wanted = options.parts.split(",") if options.parts else usual
    report = Report("fan-out of events of 150 bytes, one processor for the server", options.json)
    if "crowd" in wanted:
        for number in numbers:
            Crowd(options, report, number).measure()
    stay_beside(options)
    bench = Bench(options, report)
    if "fanout" in wanted:
        for number in numbers:
            bench.fan_out(number)
    if "unpaced" in wanted:
        bench.unpaced()
    if "delay" in wanted:
        bench.delay()
    if "idle" in wanted or "storm" in wanted:
        bench.idle_and_storm("storm" in wanted)
    if "commit" in wanted:
        bench.commit()
    report.finish()


def _arguments() -> Arguments:
    arguments = Arguments(__doc__)
    arguments.add_argument("--parts", default="", help=f"{','.join(PARTS)},crowd")
    arguments.add_argument("--limit", type=float, default=600, help="seconds, for a crowd")
    arguments.add_argument("--clients", default="1000,5000", help="numbers of clients, fan-out")
    arguments.add_argument("--many", type=int, default=10_000, help="clients, idle and storm")
    arguments.add_argument("--seconds", type=float, default=5, help="for each measurement")
    arguments.add_argument("--window", type=int, default=256, help="events under way at most")
    arguments.add_argument("--batch", type=int, default=64, help="events in a JetStream batch")
    add_placing(arguments)
    arguments.add_argument("--only", default="", help="measure this server only: noti or nchan")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    return arguments


class Bench:
    """All measurements, each of one server and then of the other."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self._options = options
        self._report = report
        self._sites = Sites(options)
        self._starts = self._sites.names("noti", "nchan")
        how = self._sites.missing.get("nchan")
        self._baseline = f"nchan (not installed: {how})" if how else "nchan"

    def fan_out(self, clients: int) -> None:
        """Deliveries a second, published one by one, and in batches."""
        ours: dict[str, Stretch] = {}
        theirs: Stretch | None = None
        batch = self._options.batch
        for name in self._starts:
            with self._site(name, clients) as site:
                with closing(site.server.publisher()) as publisher:
                    single = self._flood(site, publisher, 1)
                if isinstance(site.server, Noti):
                    ours["published one by one"] = single
                    with closing(site.server.batch_publisher()) as publisher:
                        batched = self._flood(site, publisher, batch)
                    ours[f"JetStream batches of {batch}"] = batched
                else:
                    theirs = single
        shown: Mapping[str, Stretch | None] = ours or {"published one by one": None}
        for how, stretch in shown.items():
            name = f"{clients} clients, {how}"
            self._add(name, *_pair("deliveries/s", stretch, theirs, _per_s))
            self._add(name, *_pair("deliveries/CPU s", stretch, theirs, _per_cpu_s))

    def _flood(self, site: Site, publisher: Publisher, batch: int) -> Stretch:
        options = self._options
        stretch = site.course.flood(publisher, options.window, batch, options.seconds)
        tell_of(stretch)
        return stretch

    def unpaced(self) -> None:
        """A publisher flat out: what it gets through, and whether clients lose by it."""
        if "noti" not in self._starts:
            return
        with (
            self._site("noti", PACED_CLIENTS) as site,
            closing(site.server.publisher()) as publisher,
        ):
            stretch = site.course.unpaced(publisher, UNPACED_S)
            tell_of(stretch)
        name = f"{PACED_CLIENTS} clients, publisher flat out, unpaced, {UNPACED_S:g} s"
        self._report.add(name, stretch.deliveries_per_s, "deliveries/s")
        self._report.add(f"{name}, published", stretch.published / UNPACED_S, "events/s")
        self._report.add(f"{name}, lost", stretch.tally.lost, "events")
        self._report.add(f"{name}, clients closed", stretch.tally.ended, "")

    def delay(self) -> None:
        """Delay from publication to the client at a steady rate."""
        shares = (0.5, 0.99)
        found: dict[str, list[float]] = {}
        for name in self._starts:
            with (
                self._site(name, PACED_CLIENTS) as site,
                closing(site.server.publisher()) as publisher,
            ):
                stretch = site.course.pace(publisher, PACED_RATE, self._options.seconds)
                tell_of(stretch)
                found[name] = [stretch.tally.delay_ms(share) for share in shares]
        for place, share in enumerate(shares):
            ours, theirs = (found[n][place] if n in found else None for n in ("noti", "nchan"))
            what = f"{PACED_CLIENTS} clients, {PACED_RATE} events/s, p{share * 100:.0f}"
            self._add(what, ours, "ms", theirs)

    def idle_and_storm(self, storm: bool) -> None:
        """What clients cost that only listen; and all of them coming back at once."""
        many = self._options.many
        figures: dict[str, dict[str, float]] = {}
        for name in self._starts:
            with self._site(name, many) as site:
                figures[name] = {
                    "memory of an idle client/bytes": site.client_bytes,
                    "CPU when idle/%": 100 * site.course.idle_cpu(self._options.seconds),
                    "first connections/clients/s": many / site.open_s,
                }
                if storm:
                    figures[name] |= self._storm(site)
        ours, theirs = figures.get("noti", {}), figures.get("nchan", {})
        for figure in ours or theirs:
            name, _, unit = figure.partition("/")
            self._add(f"{many} clients, {name}", ours.get(figure), unit, theirs.get(figure))

    def _storm(self, site: Site) -> dict[str, float]:
        term = _term(site.server)
        with closing(site.server.publisher()) as publisher:
            reached = site.course.storm(publisher, AWAY_S)
        elections = _term(site.server) - term
        many = self._options.many
        tell(
            f"  storm: all back after {reached.open_s:.2f} s, caught up after "
            f"{reached.reached_s:.2f} s, {elections} elections"
        )
        tally = site.course.storm_tally
        tell(f"  lost {tally.lost}, repeated {tally.repeated}, ended {tally.ended}")
        figures = {"storm until all are caught up/clients/s": many / reached.reached_s}
        if isinstance(site.server, Noti):
            figures["elections in the storm/"] = float(elections)
        return figures

    def commit(self) -> None:
        """How long one event takes to be committed beside the fan-out."""
        if "noti" not in self._starts:
            return
        seconds = self._options.seconds
        with self._site("noti", COMMIT_CLIENTS) as site:
            assert isinstance(site.server, Noti)
            idle = _probe(site.server, seconds)()
            finish = _probe(site.server, seconds)
            with closing(site.server.publisher()) as publisher:
                tell_of(site.course.flood(publisher, self._options.window, 1, seconds + 1))
            busy = finish()
        tell(f"  {len(idle)} commits idle, {len(busy)} during fan-out")
        for share in (0.5, 0.99):
            self._report.add(
                f"commit while events fan out to {COMMIT_CLIENTS}, p{share * 100:.0f}",
                quantile(busy, share),
                "ms",
                "commit while they idle",
                quantile(idle, share),
            )

    def _site(self, name: str, clients: int) -> AbstractContextManager[Site]:
        return self._sites.site(name, clients)

    def _add(self, name: str, ours: float | None, unit: str, theirs: float | None) -> None:
        if ours is not None:
            self._report.add(name, ours, unit, self._baseline, theirs)
        elif theirs is not None:
            self._report.add(f"nchan, {name}", theirs, unit)


def _pair(
    unit: str,
    ours: Stretch | None,
    theirs: Stretch | None,
    figure: Callable[[Stretch], float | None],
) -> tuple[float | None, str, float | None]:
    return (
        None if ours is None else figure(ours),
        unit,
        None if theirs is None else figure(theirs),
    )


def _per_s(stretch: Stretch) -> float | None:
    return stretch.deliveries_per_s


def _per_cpu_s(stretch: Stretch) -> float | None:
    return stretch.deliveries_per_cpu_s


def _term(server: Server) -> int:
    if not isinstance(server, Noti):
        return 0
    status = server.node.status()
    assert status is not None, "the node answers"
    term: int = status["term"]
    return term


def _probe(server: Noti, seconds: float) -> Callable[[], list[float]]:
    """Begin to time commits; the result waits for the end and returns milliseconds."""
    command = [sys.executable, "-m", "tests.bench.commit_probe", str(server.node.rpc), str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def finish() -> list[float]:
        output, _ = process.communicate()
        durations: list[float] = json.loads(output)
        return durations

    return finish


if __name__ == "__main__":
    main()
