"""`noti force-leave`: has all members take a failed one for one that left, as `serf` does."""

from pathlib import Path
from typing import Any

import click

from noti.cli.data_directory import node_options
from noti.cli.local_node import ANSWER_WITHIN_S, as_text, local_node


@click.command("force-leave")
@click.argument("name", callback=as_text)
@click.option("--prune", is_flag=True, help="Also take it off the lists of members.")
@node_options
@click.pass_context
def force_leave(
    context: click.Context,
    /,
    config_file: Path | None,
    data_dir: Any,
    name: str,
    prune: bool,
) -> None:
    """Have all members take the failed member NAME for one that left.

    A member that is alive refutes that and stays. A voter keeps its vote: noti leave ends that.
    """
    with local_node(context, config_file, data_dir) as node:
        request = {"request": "force-leave", "name": name, "prune": prune}
        for _ in node.ask(request, ANSWER_WITHIN_S):
            pass
