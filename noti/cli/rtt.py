"""`noti rtt`: the round trip between two members, as `serf rtt` estimates it from coordinates."""

import json
from pathlib import Path
from typing import Any

import click

from noti.certificates.describing import printable
from noti.cli.data_directory import node_options
from noti.cli.json_output import json_option
from noti.cli.local_node import ANSWER_WITHIN_S, as_text, local_node
from noti.errors import Unavailable


@click.command()
@click.argument("node", callback=as_text)
@click.argument("other", default="", callback=as_text)
@json_option
@node_options
@click.pass_context
def rtt(
    context: click.Context,
    /,
    config_file: Path | None,
    data_dir: Any,
    node: str,
    other: str,
    as_json: bool,
) -> None:
    """Estimate the round trip between the members NODE and OTHER, or this node.

    Every member finds its place in a space of round trips from those of its own pings, so the
    estimate is there without a packet between the two. It needs some minutes to become good.
    """
    with local_node(context, config_file, data_dir) as here:
        request = {"request": "rtt", "nodes": [node, other] if other else [node]}
        answers = list(here.ask(request, ANSWER_WITHIN_S))
    if as_json:
        click.echo(json.dumps(answers, indent=2))
        return
    for answer in answers:
        one, another = map(printable, answer["nodes"])
        if answer["rtt_s"] is None:
            raise Unavailable(f"no coordinate of {one} or {another} is known yet")
        click.echo(f"Estimated {one} <-> {another} rtt: {1000 * answer['rtt_s']:.3f} ms")
