"""`just bench sse`: load for any server of event streams, and what it makes of it.

Enters: the URL of a stream, where to publish. Leaves: a table on stdout, figures as JSON.
Never: a server of its own; what is measured runs already.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from noti.cli.http import tls_ca_option, tls_context
from noti.errors import LocalError
from tests.bench.load.mark import EVENT_BYTES
from tests.bench.load.plan import Figure, Plan, measure

DEFAULT_URL = "http://127.0.0.1:8402/.well-known/mercure?topic=*"


@click.command(
    epilog="Example, beside just nats and just run node=1, 2 and 3: just bench sse clients=2000"
    " rate=100 publish=nats://127.0.0.1:4222/jobs.noti.bench"
)
@click.argument("url", default=DEFAULT_URL)
@click.option(
    "--clients", type=click.IntRange(1, 200_000), default=1000, show_default=True, help="How many."
)
@click.option(
    "--publish",
    metavar="WHERE",
    help="nats://HOST:PORT/SUBJECT, grpc://HOST:PORT/TOPIC, or an http URL to post each event to."
    " [default: publish nothing, watch idle clients]",
)
@click.option(
    "--rate", type=click.FloatRange(0.01), help="Events a second. [default: as fast as delivered]"
)
@click.option(
    "--seconds", type=click.FloatRange(0.1), default=10.0, show_default=True, help="How long."
)
@click.option(
    "--window",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Without --rate: events published and not yet delivered, at most.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Without --rate: events published at once.",
)
@click.option(
    "--event-bytes", type=click.IntRange(1), default=EVENT_BYTES, show_default=True, help="Length."
)
@click.option("--storm", is_flag=True, help="Then let all clients drop and come back at once.")
@click.option(
    "--pid",
    "pids",
    type=click.IntRange(1),
    multiple=True,
    help="A process of the server, for its memory and CPU; repeat for several.",
)
@click.option("--processes", type=click.IntRange(1), help="Of clients. [default: few]")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="For the stream.")
@tls_ca_option
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Figures to FILE."
)
def sse(
    url: str,
    clients: int,
    publish: str | None,
    rate: float | None,
    seconds: float,
    window: int,
    batch: int,
    event_bytes: int,
    storm: bool,
    pids: tuple[int, ...],
    processes: int | None,
    headers: tuple[str, ...],
    tls_ca: Path | None,
    json_file: Path | None,
) -> None:
    """Open many event streams at URL, publish events, and check that everyone gets everything.

    Delays are from before the publication to the client's read, on this machine's clock. Every
    client must get every event once; "lost" and "repeated" say when not.
    """
    for header in headers:
        if ":" not in header or not header.isprintable():
            raise LocalError(f"{header!r} is no header; write 'Name: value'")
    tls_context(tls_ca)  # for its words, when the file is wrong
    plan = Plan(
        url=url,
        clients=clients,
        publish=publish,
        rate=rate,
        seconds=seconds,
        window=window,
        batch=batch,
        event_bytes=event_bytes,
        storm=storm,
        pids=pids,
        processes=processes,
        headers=headers,
        tls_ca=tls_ca,
    )
    figures = measure(plan, _tell)
    _print(figures)
    if json_file is not None:
        rows = [asdict(figure) for figure in figures]
        json_file.write_text(json.dumps(rows, indent=2) + "\n")


def _tell(line: str) -> None:
    click.echo(line, file=sys.stderr)


def _print(figures: list[Figure]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for figure in figures:
        value = f"{figure.value:,.0f}" if figure.value >= 100 else f"{figure.value:.2f}"
        table.add_row(figure.name, value, figure.unit)
    Console(highlight=False, markup=False).print(table)
