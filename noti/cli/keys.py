"""`noti keys`: the keys of gossip on all members, as `serf keys` shows and changes them."""

import json
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from noti.cli.data_directory import node_options
from noti.cli.json_output import json_option
from noti.cli.local_node import in_columns, local_node
from noti.cli.query import DEFAULT_WITHIN_S, query_timeout_option
from noti.errors import Unavailable
from noti.swim.core.keyring import KEY_BYTES, format_key, parse_key

NEW_KEY_BYTES: Final = 32
"""AES-256; `serf keygen` makes the same."""

LINE_CHARACTERS_MAX: Final = 100
"""The longest key has 44."""

_SILENT: Final = "not all members told their keys"

assert NEW_KEY_BYTES in KEY_BYTES


@click.group()
def keys() -> None:
    """Show and change the keys of gossip on all members, or make one.

    To rotate, on any one node: install a new key, use it, remove the old one, each when the step
    before has reached all members. Keys that were installed so are kept in the data directories.
    """


@keys.command()
def new() -> None:
    """Print a new key: for --gossip-key-file, or for serf agent -encrypt."""
    click.echo(format_key(secrets.token_bytes(NEW_KEY_BYTES)))


def _as_key(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """Return the key in base64, from the argument or a line on stdin; it must be one."""
    if value == "-":
        value = sys.stdin.readline(LINE_CHARACTERS_MAX)
    return format_key(parse_key(value))


def _options(function: Callable[..., None]) -> Callable[..., None]:
    return query_timeout_option(node_options(click.pass_context(function)))


_key_argument = click.argument("key", callback=_as_key)


@keys.command("list")
@json_option
@_options
def list_keys(
    context: click.Context,
    /,
    config_file: Path | None,
    data_dir: Any,
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Show all keys, on how many members each is installed, and on how many it encrypts."""
    announced = None if as_json else "Asking all members for installed keys"
    answers = _ask(context, config_file, data_dir, "list", None, timeout_s, announced)
    if as_json:
        click.echo(json.dumps(answers, indent=2))
        _explain_failures(answers, _SILENT)
        return
    members = len(answers)
    primaries = [answer["primary"] for answer in answers if answer.get("primary")]
    installed = [key for answer in answers for key in answer.get("keys", ())]
    rows = []
    for key in sorted(set(installed), key=lambda key: (-primaries.count(key), key)):
        encrypts = f"primary [{primaries.count(key)}/{members}]" if key in primaries else ""
        rows.append([key, f"[{installed.count(key)}/{members}]", encrypts])
    if rows:
        click.echo("==> Keys gathered, listing cluster keys...\n")
        for line in in_columns(rows):
            click.echo(line)
    _explain_failures(answers, _SILENT)


def _add_change(operation: str, text: str, doing: str, problem: str, done: str) -> None:
    """Add a command that has all members change their keys."""

    @keys.command(operation, help=text)
    @_key_argument
    @_options
    def change(
        context: click.Context,
        /,
        config_file: Path | None,
        data_dir: Any,
        timeout_s: float | None,
        key: str,
    ) -> None:
        announced = f"{doing} on all members"
        answers = _ask(context, config_file, data_dir, operation, key, timeout_s, announced)
        _explain_failures(answers, problem)
        click.echo(f"==> Successfully {done} key!")


_add_change(
    "install",
    "Have all members decrypt with KEY, too; - reads it from stdin.",
    "Installing key",
    "the key is not installed everywhere",
    "installed",
)
_add_change(
    "use",
    "Have all members encrypt with KEY, which all have installed; - reads it from stdin.",
    "Changing primary key",
    "not all members use the key",
    "changed primary",
)
_add_change(
    "remove",
    "Have all members forget KEY, which must not be the one that encrypts; - reads it.",
    "Removing key",
    "the key is not removed everywhere",
    "removed",
)


def _ask(
    context: click.Context,
    config_file: Path | None,
    data_dir: Any,
    operation: str,
    key: str | None,
    timeout_s: float | None,
    announced: str | None,
) -> Sequence[Mapping[str, Any]]:
    request = {"request": "keys", "operation": operation, "key": key, "timeout_s": timeout_s}
    with local_node(context, config_file, data_dir) as node:
        if announced is not None:
            click.echo(f"==> {announced}...")
        return list(node.ask(request, timeout_s or DEFAULT_WITHIN_S))


def _explain_failures(answers: Sequence[Mapping[str, Any]], problem: str) -> None:
    """Print who did not do it and why; raises `Unavailable` if there is one."""
    silent = [answer["node"] for answer in answers if answer.get("silent")]
    failed = [(one["node"], one["text"]) for one in answers if not one.get("done", True)]
    rows = [("failed:", node, text) for node, text in failed]
    rows += [("failed:", node, "no answer in time") for node in silent]
    if not rows:
        return
    for line in in_columns(rows):
        click.echo(line, err=True)
    raise Unavailable(f"{problem}: {len(rows)}/{len(answers)} nodes reported failure or nothing")
