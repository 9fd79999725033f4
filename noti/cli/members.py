"""`noti members`: who belongs to the cluster as a node sees it, in the form of `serf members`.

A status is alive, leaving, left or failed; a member that is suspected is still alive.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from noti.address import format_address
from noti.cli.data_directory import node_options
from noti.cli.deadline import timeout_option
from noti.cli.http import tls_ca_option
from noti.cli.json_output import format_option
from noti.cli.local_node import (
    ANSWER_WITHIN_S,
    as_text,
    in_columns,
    key_value,
    local_node,
)
from noti.cli.nodes import OPS_URLS_VARIABLE, given_urls, urls_in
from noti.cli.status import show_members

_FOR_URL = {"urls", "form", "tls_ca", "timeout_s"}


def _as_pattern(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> re.Pattern[str] | None:
    try:
        return None if value is None else re.compile(value)
    except re.error as error:
        raise click.BadParameter(f"{value!r} is no regular expression: {error}", context) from None


def _as_tag_patterns(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, re.Pattern[str]]:
    found = key_value(context, parameter, values)
    patterns = {key: _as_pattern(context, parameter, value) for key, value in found.items()}
    return {key: pattern for key, pattern in patterns.items() if pattern is not None}


@click.group(invoke_without_command=True)
@node_options
@click.option("--detailed", is_flag=True, help="Also the versions of Serf's protocol, and doubts.")
@format_option
@click.option(
    "--status",
    callback=_as_pattern,
    metavar="REGEXP",
    help="Only those whose status this is: alive, leaving, left or failed.",
)
@click.option("--name", callback=_as_pattern, metavar="REGEXP", help="Only those of this name.")
@click.option(
    "--tag",
    "tags",
    callback=_as_tag_patterns,
    multiple=True,
    metavar="KEY=REGEXP",
    help="Only those with this tag; repeatable.",
)
@click.option(
    "--url",
    "--http",
    "urls",
    multiple=True,
    callback=given_urls,
    metavar="URL",
    help="Ask this node instead, at its --ops-addr; repeat for several, of which the next is "
    f"asked when one does not answer. [default, without --data-dir: {OPS_URLS_VARIABLE}]",
)
@tls_ca_option
@timeout_option
@click.pass_context
def members(
    context: click.Context,
    /,
    config_file: Path | None,
    data_dir: Any,
    detailed: bool,
    form: str,
    urls: tuple[str, ...],
    tls_ca: Path | None,
    timeout_s: float,
    **patterns: Any,
) -> None:
    """Show the members of the cluster as a node sees them.

    That is the node that runs with --data-dir, or the one at --url, which also knows their roles,
    but neither all tags nor the filters. A REGEXP must match the whole.
    """
    if context.invoked_subcommand is not None:
        return
    given = {name for name in context.params if context.get_parameter_source(name) is not _DEFAULT}
    if not given - _FOR_URL:
        urls = urls or urls_in(OPS_URLS_VARIABLE)
    if urls:
        if given - _FOR_URL:
            raise click.UsageError("with --url, only --json, --tls-ca and --timeout may be given")
        show_members(urls, tls_ca, timeout_s, as_json=form == "json")
        return
    with local_node(context, config_file, data_dir) as node:
        everyone = list(node.ask({"request": "members"}, timeout_s))
    chosen = [member for member in everyone if _matches(member, **patterns)]
    if form == "json":
        click.echo(json.dumps({"members": [_as_serf(member) for member in chosen]}, indent=2))
    else:
        for line in in_columns([_row(member, detailed=detailed) for member in chosen]):
            click.echo(line)


_DEFAULT = ParameterSource.DEFAULT


@members.command()
@click.argument("name", callback=as_text)
@node_options
@click.pass_context
def forget(context: click.Context, /, config_file: Path | None, data_dir: Any, name: str) -> None:
    """Take the member NAME, which has failed or left, off the lists of all members.

    By itself that happens an hour after a member left, and a day after it failed.
    """
    with local_node(context, config_file, data_dir) as node:
        for _ in node.ask({"request": "forget", "name": name}, ANSWER_WITHIN_S):
            pass


def _matches(
    member: Mapping[str, Any],
    *,
    status: re.Pattern[str] | None,
    name: re.Pattern[str] | None,
    tags: Mapping[str, re.Pattern[str]],
) -> bool:
    wanted = [(member["status"], status), (member["name"], name)]
    wanted += [(member["tags"].get(key, ""), pattern) for key, pattern in tags.items()]
    return all(pattern is None or pattern.fullmatch(text) for text, pattern in wanted)


def _as_serf(member: Mapping[str, Any]) -> dict[str, Any]:
    """Return a member as Serf's JSON has it, and what only we know of it."""
    return {
        "name": member["name"],
        "addr": format_address((member["host"], member["port"])),
        "port": member["port"],
        "tags": member["tags"],
        "status": member["status"],
        "protocol": member["protocol"],
        "state": member["state"],
        "incarnation": member["incarnation"],
    }


def _row(member: Mapping[str, Any], *, detailed: bool) -> list[str]:
    address = format_address((member["host"], member["port"]))
    tags = ",".join(f"{key}={value}" for key, value in member["tags"].items())
    row = [member["name"], address, member["status"], tags]
    if detailed:
        protocol = member["protocol"]
        row += [
            f"Protocol Version: {protocol['version']}",
            f"Available Protocol Range: [{protocol['min']}, {protocol['max']}]",
            "Suspected" if member["state"] == "suspect" else "",
        ]
    return row
