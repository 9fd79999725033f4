"""`noti status`: what a node reports about itself and its cluster, as tables.

The tables are made from the JSON of `/status` as it comes: a new field needs no change here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeGuard

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from noti.certificates.describing import printable
from noti.cli.deadline import timeout_option
from noti.cli.http import get_json, tls_ca_option
from noti.cli.json_output import json_option
from noti.cli.nodes import OPS_URLS_VARIABLE, first_answer, urls_option
from noti.errors import MessageInvalid

STYLES = {
    "leader": "bold green",
    "alive": "green",
    "suspect": "yellow",
    "dead": "red",
    "left": "dim",
}
"""How roles and states are drawn in a terminal, wherever they stand."""

DEFAULT_URL: Final = "http://127.0.0.1:8403"
"""Where a node on this machine has its --ops-addr by default."""


@click.command()
@urls_option(DEFAULT_URL, "--http", variable=OPS_URLS_VARIABLE)
@json_option
@tls_ca_option
@timeout_option
def status(urls: Sequence[str], as_json: bool, tls_ca: Path | None, timeout_s: float) -> None:
    """Show what a node knows: its role, its log, its source, its clients."""
    url, report = report_of(urls, tls_ca, timeout_s)
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    console = _console()
    facts = Table.grid(padding=(0, 3))
    try:
        plain = _flat(report)
    except RecursionError:
        raise MessageInvalid(f"{url}/status is nested without end; is this a noti node?") from None
    for name, value in plain:
        facts.add_row(f"[dim]{_text(name)}[/dim]", _cell(value))
    console.print(facts)
    for name, value in _tables(report):
        console.print()
        console.print(_rows(name, value))


def show_members(
    urls: Sequence[str], tls_ca: Path | None, timeout_s: float, *, as_json: bool
) -> None:
    """Draw the members of the cluster as the first node that answers reports them."""
    url, report = report_of(urls, tls_ca, timeout_s)
    rows = report.get("members")
    if not _is_rows(rows):
        raise MessageInvalid(f"{url} reports no members; is it a node of another version?")
    if as_json:
        click.echo(json.dumps({"members": rows}, indent=2))
    else:
        _console().print(_rows("members", rows))


def report_of(
    urls: Sequence[str], tls_ca: Path | None, timeout_s: float
) -> tuple[str, dict[str, Any]]:
    """Return which node answered, and what it says at `/status`; raises as `get_json` does."""

    def ask(url: str) -> tuple[str, dict[str, Any]]:
        report = get_json(url, "/status", timeout_s, tls_ca=tls_ca)
        if not isinstance(report, dict):
            raise MessageInvalid(f"{url}/status is not a report; is this a noti node?")
        return url, report

    return first_answer(urls, ask)


def _console() -> Console:
    """Return a console that never folds a table that goes to a program."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000
    return console


def _flat(report: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the plain facts of a report, those of inner mappings named `outer inner`."""
    facts: list[tuple[str, Any]] = []
    for key, value in report.items():
        name = key.replace("_", " ")
        if not name.startswith(prefix):
            name = prefix + name
        if isinstance(value, Mapping):
            facts += _flat(value, f"{name} ")
        elif not _is_rows(value):
            facts.append((name, value))
    return facts


def _tables(report: Mapping[str, Any], prefix: str = "") -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the tables of a report; inner ones only of several rows, as one is among the facts."""
    tables = []
    for key, value in report.items():
        if isinstance(value, Mapping):
            tables += _tables(value, f"{prefix}{key} ")
        elif _is_rows(value) and (not prefix or len(value) > 1):
            tables.append((prefix + key, value))
    return tables


def _is_rows(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _rows(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(title=_text(title), title_justify="left", box=None, padding=(0, 3, 0, 0))
    for column in columns:
        table.add_column(_text(column.replace("_", " ")))
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    return table


def _cell(value: object) -> str:
    """Return a value for a person; it came over the network, so markup in it stays text."""
    match value:
        case None:
            return "[dim]-[/dim]"
        case True:
            return "yes"
        case False:
            return "no"
        case list():
            return _text(", ".join(str(item) for item in value)) or "[dim]-[/dim]"
        case dict():
            return _text(", ".join(f"{key}={item}" for key, item in value.items()))
        case str() if value in STYLES:
            return f"[{STYLES[value]}]{value}[/]"
        case _:
            return _text(str(value))


def _text(text: str) -> str:
    return escape(printable(text))
