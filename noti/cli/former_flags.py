"""Flags of bb-dist-noti at `noti run`: taken where they mean the same here, refused otherwise.

They are in no help text. A refusal names what noti has instead.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any, Final

import click
import structlog

from noti.config import Config, flag_of

log = structlog.get_logger("noti.cli")

_RPC_PORT: Final = "rpc_port"

_SAME: Final = {
    "node_name": "name",
    "serf_addr": "gossip_addr",
    _RPC_PORT: "rpc_addr",
    "start_join_addrs": "join",
    "nats_addr": "nats_url",
}
"""Theirs -> the setting here that means the same; the RPC port is one at the gossip host."""

_TLS: Final = (
    "give --tls-cert, --tls-key and --tls-ca: one certificate for a node's both directions"
)

_OTHERS: Final = {
    "bootstrap": "give --bootstrap-expect 3 to each of three new nodes; they found it together",
    "cluster_run": "give --bootstrap-expect and --join; the Helm chart in k8s/chart does",
    "env": "give --log-format json or human, and --log-level",
    "http_write_timeout": "give --sse-lifetime-s, after which a stream begins anew without a gap",
    "http_read_timeout": "the time for a request's head is fixed; leave it out",
    "http_idle_timeout": "the time for an idle connection is fixed; leave it out",
    "http_shutdown_timeout": "give --shutdown-deadline-s, and --sse-drain-s to end streams slowly",
    "server_tls_cert_file": _TLS,
    "server_tls_key_file": _TLS,
    "server_tls_ca_file": _TLS,
    "peer_tls_cert_file": _TLS,
    "peer_tls_key_file": _TLS,
    "peer_tls_ca_file": _TLS,
}
"""Theirs -> what to do here."""


def former_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags to a command, as hidden ones; `translated` takes them out again."""
    options = [
        *(
            click.option(_flag(name), name, hidden=True, multiple=setting == "join")
            for name, setting in _SAME.items()
        ),
        # With or without a value, as they were used.
        *(
            click.option(_flag(name), name, is_flag=False, flag_value="true", hidden=True)
            for name in _OTHERS
        ),
    ]
    return reduce(lambda inner, option: option(inner), options, function)


def translated(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that `options` give, former flags under the names here.

    Raises `UsageError` for one that has no equal here, or that is given beside its equal.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name, advice in _OTHERS.items():
        if name in given:
            raise click.UsageError(f"{_flag(name)} is of bb-dist-noti; here, {advice}")
    taken = [name for name in _SAME if name in given]
    for name in taken:
        setting, value = _SAME[name], given.pop(name)
        if setting in given:
            raise click.UsageError(f"{_flag(name)} is {flag_of(setting)} here; give one of them")
        if name == _RPC_PORT:
            # Theirs listens at the host of the gossip address.
            default = Config.model_fields["gossip_addr"].default[0]
            host = given.get("gossip_addr", f"{default}:").rpartition(":")[0]
            value = f"{host}:{value}"
        elif setting == "join":
            value = tuple(one for several in value for one in several.split(","))
        given[setting] = value
    if taken:
        names = {_flag(name): flag_of(_SAME[name]) for name in taken}
        log.info("flags of bb-dist-noti were taken", names=names)
    return given


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
