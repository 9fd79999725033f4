"""`noti reachability`: whether all live members answer a query, as `serf reachability` asks it."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import click

from noti.certificates.describing import printable
from noti.cli.data_directory import node_options
from noti.cli.json_output import json_option
from noti.cli.local_node import ANSWER_WITHIN_S, local_node
from noti.cli.query import DEFAULT_WITHIN_S, query_request, query_timeout_option

QUERY = "_serf_ping"
"""Every member acks it, and no application hears of it."""

ADVICE = """\
Gossip packets are lost, or members do not know that others are there. Look whether
* every member's gossip address can be reached by all others, over UDP and TCP
* an advertised address leads to the one that is listened on
* no member is behind a NAT, and no firewall stops gossip
* all members have the same gossip keys (noti keys list)"""


class AckProblems(NamedTuple):
    """What is wrong with the acks that came: names of members."""

    twice: list[str]
    not_live: list[str]
    missing: list[str]


@click.command()
@click.option("--verbose", is_flag=True, help="Also show every ack, and how long it took.")
@json_option
@query_timeout_option
@node_options
@click.pass_context
def reachability(
    context: click.Context,
    /,
    config_file: Path | None,
    data_dir: Any,
    verbose: bool,
    as_json: bool,
    timeout_s: float | None,
) -> int:
    """Test whether gossip of this node reaches all live members, and theirs this node.

    Exit status 1 if an ack is missing, comes twice, or comes from a member that is not alive.
    """
    acks: list[str] = []
    with local_node(context, config_file, data_dir) as node:
        members = list(node.ask({"request": "members"}, ANSWER_WITHIN_S))
        live = {member["name"] for member in members if member["status"] == "alive"}
        if not as_json:
            click.echo(f"Total members: {len(members)}, live members: {len(live)}")
            click.echo("Starting reachability test...")
        began = last = time.monotonic()
        request = query_request(QUERY, timeout_s=timeout_s)
        for answer in node.ask(request, timeout_s or DEFAULT_WITHIN_S):
            if answer["is_ack"]:
                acks.append(answer["node"])
                last = time.monotonic()
                if verbose and not as_json:
                    click.echo(f"\tAck from '{printable(acks[-1])}'")
    problems = AckProblems(
        twice=sorted({name for name in acks if acks.count(name) > 1}),
        not_live=sorted(set(acks) - live),
        missing=sorted(live - set(acks)),
    )
    if as_json:
        found = {"members": len(members), "live": sorted(live), **problems._asdict()}
        click.echo(json.dumps(found, indent=2))
        return int(any(problems))
    if verbose:
        total_s = time.monotonic() - began
        click.echo(f"Query time: {total_s:.2f} sec, time to last response: {last - began:.2f} sec")
    return _judge(problems)


def _judge(found: AckProblems) -> int:
    """Print what the acks mean; return the exit status."""
    findings = (
        ("Several acks from one name, which more than one member must have:", found.twice),
        ("Acks from non-live nodes:", found.not_live),
        ("Received less acks than live nodes! Missing acks from:", found.missing),
    )
    for finding, names in findings:
        if names:
            click.echo(finding)
            for name in names:
                click.echo(f"\t{printable(name)}")
    if any(found):
        click.echo(ADVICE)
        return 1
    click.echo("Successfully contacted all live nodes")
    return 0
