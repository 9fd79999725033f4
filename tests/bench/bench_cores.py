"""A node with no web worker, one and two, in the same call: deliveries, and commits beside them.

Nothing is bound to a processor (`bound=yes` binds servers to one, and the load to the other), as
workers are there to use all of them.

- deliveries a second to `clients` clients, published as fast as they are delivered; also per CPU
  second of the node with its workers: that figure falls by what workers cost, and says what more
  processors would give.
- commit: how long one event takes to be committed while clients idle, and while events fan out.
"""

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.bench.bench_hub import _probe
from tests.bench.hub_servers import Noti
from tests.bench.report import Arguments, Report, quantile, tell
from tests.bench.sites import Sites, add_placing, tell_of


def main(argv: Sequence[str] | None = None) -> None:
    """Run and report."""
    arguments = Arguments(__doc__)
    arguments.add_argument("--numbers", default="0,1,2", help="numbers of web workers")
    arguments.add_argument("--clients", type=int, default=5000, help="of each run")
    arguments.add_argument("--seconds", type=float, default=5, help="for each measurement")
    arguments.add_argument("--window", type=int, default=256, help="events under way at most")
    arguments.add_argument("--directory", type=Path, help="where the data goes (default: /tmp)")
    add_placing(arguments)
    options = arguments.options(argv)
    bound = "no" if options.bound == "auto" else options.bound
    report = Report("a node and its web workers", options.json)
    for number in map(int, options.numbers.split(",")):
        placed = {"workers": number, "bound": bound, "only": "noti"}
        _measure(argparse.Namespace(**{**vars(options), **placed}), report)
    report.finish()


def _measure(options: argparse.Namespace, report: Report) -> None:
    name = f"{options.workers} workers, {options.clients} clients"
    with Sites(options).site("noti", options.clients, settle_s=1.0) as site:
        assert isinstance(site.server, Noti)
        idle = _probe(site.server, options.seconds)()
        with closing(site.server.publisher()) as publisher:
            alone = site.course.flood(publisher, options.window, 1, options.seconds)
            tell_of(alone)
            finish = _probe(site.server, options.seconds)
            tell_of(site.course.flood(publisher, options.window, 1, options.seconds + 1))
            busy = finish()
        tell(f"  {len(idle)} commits idle, {len(busy)} during fan-out")
    report.add(name, alone.deliveries_per_s, "deliveries/s")
    report.add(name, alone.deliveries_per_cpu_s or 0, "deliveries/CPU s")
    report.add(f"{name}, server's CPU", 100 * (alone.server_cpu or 0), "%")
    report.add(f"{name}, clients' CPU", 100 * alone.clients_cpu, "%")
    for share in (0.5, 0.99):
        shown = f"{name}, commit beside fan-out, p{share * 100:.0f}"
        report.add(shown, quantile(busy, share), "ms", "idle", quantile(idle, share))


if __name__ == "__main__":
    main()
