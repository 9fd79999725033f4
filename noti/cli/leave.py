"""`noti leave`: takes a running node of this machine out of the voters for good.

Enters: the node's data directory, a time. Leaves: an exit status when the cluster has agreed, or
one line why not. Never: stops the node.
"""

from pathlib import Path
from typing import Any

import click

from noti.cli.settings import load_given, settings_options
from noti.control import WITHIN_S_MAX, ask_to_leave

WITHIN_S = 20.0
"""A cluster that can commit needs about a second; one that waits for a dead voter's seat to be
given up too needs 15."""


@click.command()
@settings_options("data_dir")
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(0.1, WITHIN_S_MAX),
    default=WITHIN_S,
    show_default=True,
    metavar="SECONDS",
    help="How long this may take.",
)
def leave(config_file: Path | None, within_s: float, **options: Any) -> None:
    """Take the node that runs with --data-dir out of the voters, for good.

    For a node that will not come back: the others then decide without it. It hands over what it
    leads, and gives up its vote; this command returns when a majority of those who stay agreed.
    The node goes on as a learner and serves its browsers until it is stopped. When it is started
    again one day, it joins again. The last voter cannot leave.
    """
    config = load_given(config_file, options)
    ask_to_leave(config.data_dir, within_s)
    click.echo("the node votes no more; it may be stopped for good")
