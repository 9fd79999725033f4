"""Every way in which clients come, noti beside nginx with nchan and Centrifugo in the same call.

Event streams (`sse`) and WebSockets (`ws`), plain and over TLS (`sse-tls`, `ws-tls`); the same load
clients, the same events of 150 bytes. Each server has one processor, clients and publisher share
the other (with `workers` all share all, unless `bound=yes`). Every client checks that it gets every
event once.

- fan-out: published as fast as it is accepted, `window` events ahead of the clients at most. The
  share of a processor that the clients took is told: close to 100 %, they are the limit, and the
  deliveries per CPU second of the server say what it could do.
- idle: memory of the server's process for each client, and how fast clients come.
- delay: from publication to the client's read, at steady rates, to 1,000 clients; the worst of all
  deliveries is there too.

Rounds alternate between the servers; a figure is the median of its rounds.
"""

import argparse
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median

from tests.bench.hub_servers import TRANSPORTS
from tests.bench.load.course import Stretch
from tests.bench.report import Arguments, Report, tell
from tests.bench.sites import Site, Sites, add_beside, add_placing, stay_beside, tell_of

PACED_CLIENTS = 1000
SERVERS = ("noti", "nchan", "centrifugo")
PARTS = ("fanout", "idle", "delay")
SUBSCRIBED_S = 0.5
"""A server may confirm a stream before it sends to it: nothing is published until then."""

Figures = dict[tuple[str, str], dict[str, float | None]]
"""By name and unit, of each server."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    options = _arguments().options(argv)
    wanted = options.parts.split(",")
    report = Report("events of 150 bytes over every transport", options.json)
    stay_beside(options)
    bench = Bench(options, report)
    for transport in options.transports.split(","):
        if "fanout" in wanted:
            for clients in map(int, options.clients.split(",")):
                bench.fan_out(transport, clients)
        if "idle" in wanted:
            bench.idle(transport)
        if "delay" in wanted:
            for rate in map(float, options.rates.split(",")):
                bench.delay(transport, rate)
    report.finish()


def _arguments() -> Arguments:
    arguments = Arguments(__doc__)
    arguments.add_argument("--parts", default=",".join(PARTS), help="what to measure")
    arguments.add_argument("--transports", default=",".join(TRANSPORTS), help="how clients come")
    arguments.add_argument("--clients", default="1000,5000", help="numbers of clients, fan-out")
    arguments.add_argument("--many", type=int, default=5000, help="idle clients")
    arguments.add_argument("--rates", default="100,300", help="events a second, delay")
    arguments.add_argument("--seconds", type=float, default=4, help="for each measurement")
    arguments.add_argument("--rounds", type=int, default=1, help="of all servers, in turns")
    arguments.add_argument("--window", type=int, default=256, help="events under way at most")
    add_placing(arguments)
    arguments.add_argument("--only", default="", help="measure this server only")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    return arguments


class Bench:
    """All measurements, each of one server and then of the next."""

    def __init__(self, options: argparse.Namespace, report: Report) -> None:
        self._options = options
        self._report = report
        self._sites = Sites(options)

    def fan_out(self, transport: str, clients: int) -> None:
        """Deliveries a second."""

        def measure(site: Site) -> Figures:
            options = self._options
            with closing(site.server.publisher()) as publisher:
                stretch = site.course.flood(publisher, options.window, 1, options.seconds)
            tell_of(stretch)
            return _flood_figures(f"{transport}, {clients} clients", site, stretch)

        self._measure(transport, clients, measure)

    def idle(self, transport: str) -> None:
        """What clients cost that only listen."""

        def measure(site: Site) -> Figures:
            name = f"{transport}, {self._options.many} clients"
            per_s = self._options.many / site.open_s
            return {
                (f"{name}, memory of an idle one", "bytes"): {site.server.name: site.client_bytes},
                (f"{name}, first connections", "clients/s"): {site.server.name: per_s},
            }

        self._measure(transport, self._options.many, measure)

    def delay(self, transport: str, rate: float) -> None:
        """Delay from publication to the client."""

        def measure(site: Site) -> Figures:
            with closing(site.server.publisher()) as publisher:
                stretch = site.course.pace(publisher, rate, self._options.seconds)
            tell_of(stretch)
            name, server = f"{transport}, {PACED_CLIENTS} clients, {rate:g} events/s", site.server
            figures: Figures = {
                (f"{name}, {shown}", "ms"): {server.name: stretch.tally.delay_ms(share)}
                for shown, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
            }
            figures[f"{name}, server's CPU", "%"] = {server.name: 100 * (stretch.server_cpu or 0)}
            figures[f"{name}, clients' CPU", "%"] = {server.name: 100 * stretch.clients_cpu}
            return figures

        self._measure(transport, PACED_CLIENTS, measure)

    def _measure(self, transport: str, clients: int, measure: Callable[[Site], Figures]) -> None:
        all_found: dict[tuple[str, str], dict[str, list[float]]] = {}
        for _ in range(self._options.rounds):
            for server in self._sites.names(*SERVERS):
                with self._sites.site(server, clients, transport, settle_s=SUBSCRIBED_S) as site:
                    for figure, values in measure(site).items():
                        of_figure = all_found.setdefault(figure, {})
                        for name, value in values.items():
                            if value is not None:
                                of_figure.setdefault(name, []).append(value)
        for (name, unit), found in all_found.items():
            medians: dict[str, float | None] = {
                server: median(values) for server, values in found.items()
            }
            add_beside(self._report, self._sites, name, unit, medians)


def _flood_figures(name: str, site: Site, stretch: Stretch) -> Figures:
    server = site.server.name
    if stretch.tally.lost or stretch.tally.repeated or stretch.tally.ended:
        tell(f"  {server} lost, repeated or ended: its figures are of the rest")
    return {
        (name, "deliveries/s"): {server: stretch.deliveries_per_s},
        (name, "deliveries/CPU s"): {server: stretch.deliveries_per_cpu_s},
        (f"{name}, clients' CPU", "%"): {server: 100 * stretch.clients_cpu},
    }


if __name__ == "__main__":
    main()
