"""`noti leave`: decommissions a running node of this machine, and leaves stopping it to others.

In a pod it neither fails nor delays the stop.
"""

import time
from pathlib import Path
from typing import Any

import click
import trio

from noti.cli.settings import load_config, settings_options
from noti.errors import ConfigInvalid, NotiError
from noti.membership.control import WITHIN_S_MAX
from noti.membership.control_client import ask_to_leave

WITHIN_S = 25.0
"""A cluster that can commit needs about a second. One that has to remove
a dead voter too needs the time that gossip takes to miss that one, and 15 s."""

API_WITHIN_S = 5.0
"""An API server that does not answer for so long will not soon; the rest is for the cluster."""


@click.command()
@settings_options("data_dir")
@click.option(
    "--within",
    "--timeout",
    "within_s",
    type=click.FloatRange(0.1, WITHIN_S_MAX),
    default=WITHIN_S,
    show_default=True,
    metavar="SECONDS",
    help="How long all of this may take.",
)
@click.option(
    "--kubernetes",
    is_flag=True,
    help="For a pod's preStop: leave only if a scale-down removes this pod. Ask the Kubernetes API "
    "whether its StatefulSet has fewer replicas than the pod's number; exit with status 0 whatever "
    "happens, as the pod stops anyway.",
)
@click.option("--pod", envvar="POD_NAME", metavar="NAME", help="This pod; also POD_NAME.")
@click.option(
    "--namespace", envvar="POD_NAMESPACE", metavar="NAME", help="Its namespace; also POD_NAMESPACE."
)
@click.option(
    "--statefulset",
    envvar="STATEFULSET_NAME",
    metavar="NAME",
    help="Its StatefulSet; also STATEFULSET_NAME.",
)
def leave(
    config_file: Path | None,
    within_s: float,
    kubernetes: bool,
    pod: str | None,
    namespace: str | None,
    statefulset: str | None,
    **options: Any,
) -> None:
    """Decommission the node that runs with --data-dir: it stops voting, permanently.

    For a node that will not come back: the others then decide without it. It hands over what it
    leads, and gives up its vote; this command returns when a majority of those who stay agreed.
    The node goes on as a learner and serves its browsers until it is stopped. When it is started
    again one day, it joins again. The last voter cannot leave.
    """
    if not kubernetes:
        _leave(config_file, options, within_s)
        return
    until = time.monotonic() + within_s
    try:
        if _is_removed_permanently(pod, namespace, statefulset, min(within_s, API_WITHIN_S)):
            _leave(config_file, options, max(0.1, until - time.monotonic()))
        else:
            click.echo("the pod is to come back, so its node keeps its vote")
    except NotiError as error:
        problem = " ".join(str(error).split())
        click.echo(f"noti: error: the node keeps its vote while it stops: {problem}", err=True)


def _leave(config_file: Path | None, options: dict[str, Any], within_s: float) -> None:
    ask_to_leave(load_config(config_file, options).data_dir, within_s)
    click.echo("the node does not vote any more; it may be stopped permanently")


def _is_removed_permanently(
    pod: str | None, namespace: str | None, statefulset: str | None, within_s: float
) -> bool:
    if not pod or not namespace or not statefulset:
        raise ConfigInvalid(
            "leave --kubernetes needs --pod, --namespace and --statefulset, or POD_NAME, "
            "POD_NAMESPACE and STATEFULSET_NAME in the environment"
        )
    from noti.cli import scale_down  # here, as nothing else of the command line needs the client

    named = scale_down.PodName(pod, namespace, statefulset)
    return trio.run(scale_down.is_removed_permanently, named, within_s)
