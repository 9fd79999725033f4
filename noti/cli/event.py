"""`noti event`: tells all members of a user event, as `serf event` does."""

import base64
import os
from pathlib import Path
from typing import Any

import click

from noti.certificates.describing import printable
from noti.cli.data_directory import node_options
from noti.cli.local_node import ANSWER_WITHIN_S, as_text, local_node


@click.command()
@click.argument("name", callback=as_text)
@click.argument("payload", default="")
@click.option(
    "--coalesce/--no-coalesce",
    default=True,
    show_default=True,
    help="Whether a Serf agent may hand on only the last of several events of this name that come "
    "soon after each other.",
)
@node_options
@click.pass_context
def event(
    context: click.Context,
    /,
    config_file: Path | None,
    data_dir: Any,
    name: str,
    payload: str,
    coalesce: bool,
) -> None:
    """Send a user event to all members of the gossip cluster.

    Serf agents hand it to their event handlers; noti's nodes pass it on. It is not what browsers
    are shown: that is noti publish.
    """
    request = {
        "request": "event",
        "name": name,
        "payload": base64.b64encode(os.fsencode(payload)).decode(),
        "coalesce": coalesce,
    }
    with local_node(context, config_file, data_dir) as node:
        for _ in node.ask(request, ANSWER_WITHIN_S):
            pass
    enabled = "true" if coalesce else "false"
    click.echo(f"Event '{printable(name)}' dispatched! Coalescing enabled: {enabled}")
