"""`noti leave`: decommissions a running node of this machine, and leaves stopping it to others.

In a pod it neither fails nor delays the stop.
"""

import time
from pathlib import Path

import click

from noti.cli.data_directory import data_directory, node_options
from noti.cli.scale_down import PodName, WantedPods, ask_for_wanted_pods
from noti.errors import ConfigInvalid, KubernetesForbidden, NotiError
from noti.membership.control_client import ask_to_leave, live_voters
from noti.membership.control_protocol import WITHIN_S_MAX

WITHIN_S = 25.0
"""A cluster that can commit needs about a second. One that has to remove
a dead voter too needs the time that gossip takes to miss that one, and 15 s."""

ANSWER_WITHIN_S = 5.0
"""A node answers at once what it knows itself."""

LOOK_EVERY_S = 0.2
"""A pod that leaves takes about a second."""

API_WITHIN_S = 5.0
"""An API server that does not answer for so long will not soon; the rest is for the cluster."""


@click.command()
@node_options
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
    help="For a pod's preStop: leave only if a scale-down removes this pod, otherwise wait for "
    "those that it removes. Ask the Kubernetes API whether its StatefulSet has fewer replicas than "
    "the pod's number; exit with status 0 whatever happens, as the pod stops anyway.",
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
    data_dir: str | None,
    within_s: float,
    kubernetes: bool,
    pod: str | None,
    namespace: str | None,
    statefulset: str | None,
) -> None:
    """Decommission the node that runs with --data-dir: it stops voting, permanently.

    For a node that will not come back: the others then decide without it. It hands over what it
    leads, and gives up its vote; this command returns when a majority of those who stay agreed.
    The node goes on as a learner and serves its browsers until it is stopped. When it is started
    again one day, it joins again. The last voter cannot leave.
    """
    if not kubernetes:
        _leave(data_directory(config_file, data_dir), within_s)
        return
    until = time.monotonic() + within_s
    try:
        directory = data_directory(config_file, data_dir)
        wanted = _wanted_pods(pod, namespace, statefulset, min(within_s, API_WITHIN_S))
        if wanted.lacks(pod or ""):
            _leave(directory, max(0.1, until - time.monotonic()))
        else:
            _let_others_leave(directory, wanted, until)
            click.echo("the pod is to come back, so its node keeps its vote")
    except KubernetesForbidden as error:
        click.echo(f"the node keeps its vote, as after the end of its release: {_line(error)}")
    except NotiError as error:
        click.echo(f"noti: error: the node keeps its vote while it stops: {_line(error)}", err=True)


def _leave(directory: Path, within_s: float) -> None:
    ask_to_leave(directory, within_s)
    click.echo("the node does not vote any more; it may be stopped permanently")


def _let_others_leave(directory: Path, wanted: WantedPods, until: float) -> None:
    """Wait until no pod votes that a scale-down removes: without this one they could not leave.

    Those that gossip holds for dead are not waited for. Raises as `live_voters` does.
    """
    told = False
    while time.monotonic() < until:
        leaving = [name for name in live_voters(directory, ANSWER_WITHIN_S) if wanted.lacks(name)]
        if not leaving:
            return
        if not told:
            click.echo(f"waits for {', '.join(leaving)} to leave")
            told = True
        time.sleep(LOOK_EVERY_S)


def _wanted_pods(
    pod: str | None, namespace: str | None, statefulset: str | None, within_s: float
) -> WantedPods:
    if not pod or not namespace or not statefulset:
        raise ConfigInvalid(
            "leave --kubernetes needs --pod, --namespace and --statefulset, or POD_NAME, "
            "POD_NAMESPACE and STATEFULSET_NAME in the environment"
        )
    return ask_for_wanted_pods(PodName(pod, namespace, statefulset), within_s)


def _line(error: NotiError) -> str:
    return " ".join(str(error).split())
