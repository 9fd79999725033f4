"""`noti query`: asks all members something and shows who answers what, as `serf query` does."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from noti.certificates.describing import printable
from noti.cli.data_directory import node_options
from noti.cli.json_output import format_option
from noti.cli.local_node import (
    as_text,
    as_texts,
    key_value,
    local_node,
)
from noti.membership.control_protocol import RELAY_FACTOR_MAX, WITHIN_S_MAX

DEFAULT_WITHIN_S = 60.0
"""The default timeout grows with the cluster: 3.2 s below ten members, 10 s below a thousand."""

query_timeout_option = click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.01, WITHIN_S_MAX),
    metavar="SECONDS",
    help="How long answers are waited for. [default: by the size of the cluster, 3.2 s at least]",
)


@click.command()
@click.argument("name", callback=as_text)
@click.argument("payload", default="")
@click.option(
    "--node",
    "nodes",
    callback=as_texts,
    multiple=True,
    metavar="NAME",
    help="Only this one; repeatable.",
)
@click.option(
    "--tag",
    "tags",
    callback=key_value,
    multiple=True,
    metavar="KEY=REGEXP",
    help="Only those with such a tag; repeatable. It may match anywhere in the value.",
)
@query_timeout_option
@click.option("--no-ack", is_flag=True, help="Show only who answers, and not who takes the query.")
@click.option(
    "--relay-factor",
    type=click.IntRange(0, RELAY_FACTOR_MAX),
    default=0,
    help="Over how many other members each answer also comes, so that none is lost.",
)
@format_option
@node_options
@click.pass_context
def query(
    context: click.Context,
    /,
    config_file: Path | None,
    data_dir: Any,
    no_ack: bool,
    form: str,
    **question: Any,
) -> None:
    """Send a query to all members of the gossip cluster, and show what they answer.

    Nodes of noti take it and have no answer; Serf agents answer as their event handlers do.
    """
    acks: list[str] = []
    responses: dict[str, str] = {}
    text = form == "text"
    with local_node(context, config_file, data_dir) as node:
        request = query_request(wants_acks=not no_ack, **question)
        announced = f"Query '{printable(question['name'])}' dispatched"
        for answer in node.ask(request, question["timeout_s"] or DEFAULT_WITHIN_S):
            if text and not (acks or responses):  # the node has taken it
                click.echo(announced)
            name = answer["node"]
            if answer["is_ack"]:
                acks.append(name)
            else:
                responses[name] = base64.b64decode(answer["payload"]).decode(errors="replace")
            if text:
                click.echo(_line(name, None if answer["is_ack"] else responses[name]))
    if not text:
        click.echo(json.dumps({"Acks": acks, "Responses": responses}, indent=2))
        return
    if not (acks or responses):
        click.echo(announced)
    if not no_ack:
        click.echo(f"Total Acks: {len(acks)}")
    click.echo(f"Total Responses: {len(responses)}")


def query_request(
    name: str,
    *,
    payload: str = "",
    nodes: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    wants_acks: bool = True,
    relay_factor: int = 0,
) -> dict[str, object]:
    """Return the request for the control socket; None of `timeout_s` is Serf's default."""
    return {
        "request": "query",
        "name": name,
        "payload": base64.b64encode(os.fsencode(payload)).decode(),
        "nodes": list(nodes),
        "tags": dict(tags or {}),
        "timeout_s": timeout_s,
        "wants_acks": wants_acks,
        "relay_factor": relay_factor,
    }


def _line(node: str, response: str | None) -> str:
    """Return what a member said, None for an ack, so that no terminal obeys it."""
    if response is None:
        return f"Ack from '{printable(node)}'"
    lines = [printable(line) for line in response.removesuffix("\n").split("\n")]
    return f"Response from '{printable(node)}': " + "\n".join(lines)
