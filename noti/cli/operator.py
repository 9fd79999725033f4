"""`noti operator`: keeps labels of clusters in Kubernetes right, until a signal."""

import socket
from functools import partial
from pathlib import Path
from typing import Literal

import click
import structlog
import trio

from noti import telemetry
from noti.address import Address
from noti.cli.settings import as_address
from noti.cli.signals import until_signalled

log = structlog.get_logger("noti.cli")

STOP_S_MAX = 8.0
"""The lease is given back within 2 s; the rest is for a busy machine."""


_file = partial(click.option, type=click.Path(path_type=Path), metavar="FILE")


@click.command(epilog="The API is reached by the pod's service account, or by KUBECONFIG.")
@click.option("--namespace", required=True, help="Where LeaderStatusCheckers and the Lease are.")
@click.option(
    "--identity",
    default=socket.gethostname,
    show_default="the host name",
    help="Who holds the Lease; the name of the pod.",
)
@click.option("--lease", default="noti-operator", show_default=True, help="Name of the Lease.")
@click.option(
    "--checker",
    "checkers",
    multiple=True,
    metavar="NAME",
    help="Work only for the LeaderStatusChecker of this name; repeat it for several. Without it, "
    "for all of the namespace.",
)
@click.option(
    "--ops-addr",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    callback=as_address,
    help="For /liveness, /readiness and /metrics.",
)
@_file("--tls-cert", help="Client certificate to show to nodes (noti certs issue --client).")
@_file("--tls-key", help="Its key.")
@_file("--tls-ca", help="CAs of the nodes' certificates. All three or none; none is plain text.")
@click.option(
    "--tls-mode",
    type=click.Choice(["required", "permissive"]),
    default="required",
    show_default=True,
    help="`permissive` asks nodes without TLS too, while it is switched on or off.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option(
    "--log-format", type=click.Choice(["auto", "human", "json"]), default="auto", show_default=True
)
def operator(
    namespace: str,
    identity: str,
    lease: str,
    checkers: tuple[str, ...],
    ops_addr: Address,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    tls_mode: Literal["required", "permissive"],
    log_level: Literal["debug", "info", "warning", "error"],
    log_format: Literal["auto", "human", "json"],
) -> None:
    """Label the pods of clusters in Kubernetes by their role, until SIGTERM or Ctrl-C.

    Works for the LeaderStatusCheckers of a namespace. Of several operators the one that holds the
    Lease works.
    """
    telemetry.set_up(level=log_level, form=log_format)
    tls = None
    if tls_cert and tls_key and tls_ca:
        tls = (tls_cert, tls_key, tls_ca)
    elif tls_cert or tls_key or tls_ca:
        raise click.UsageError("--tls-cert, --tls-key and --tls-ca go together; give all or none")
    if tls_mode == "permissive" and tls is None:
        raise click.UsageError("--tls-mode is of no use without --tls-cert")
    from noti.kubernetes import world  # here, so that the other commands start without it
    from noti.kubernetes.operator import OperatorConfig

    config = OperatorConfig(namespace, identity, lease, frozenset(checkers))
    log.info("starting", build=telemetry.build(), namespace=namespace, identity=identity)
    operate = partial(world.run, config, ops_addr, tls, plain_too=tls_mode == "permissive")
    trio.run(until_signalled, operate, STOP_S_MAX)
    log.info("stopped")
