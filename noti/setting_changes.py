"""Says which settings may change while a node runs, and what newer ones mean for one that runs."""

from dataclasses import dataclass
from typing import Final

from noti.config import Config
from noti.errors import ConfigInvalid
from noti.setting_rules import problems_of

RELOADED: Final = frozenset(
    {
        # which events are kept, by the leader
        "history_size",
        "history_bytes",
        "history_max_age_s",
        "history_per_topic",
        "topics_max",
        # who votes, and what all may write, by the leader
        "level_max",
        "voters_max",
        "voter_hold_down_s",
        # limits
        "sse_backlog_bytes",
        "sse_stall_s",
        "sse_heartbeat_s",
        "sse_lifetime_s",
        "sse_drain_s",
        "sse_clients_max",
        "sse_clients_per_address_max",
        "sse_leader_sheds",
        "pacing_s",
        "http_connections_max",
        "http_connections_per_address_max",
        "head_bytes_max",
        "publish_body_bytes_max",
        "rpc_connections_max",
        "rpc_connections_per_address_max",
        # who may do what
        "trusted_proxies",
        "cors_origins",
        "public_url",
        "publisher_jwt_key_file",
        "publisher_jwt_alg",
        "subscriber_jwt_key_file",
        "subscriber_jwt_alg",
        "jwt_issuer",
        "jwt_audience",
        "publish_origins",
        "revoked_file",
        "anonymous",
        "mercure_protocol",
        "cookie_name",
        # the process
        "log_events",
        "shutdown_deadline_s",
        "log_level",
        "log_format",
    }
)
"""What a node takes while it runs. Addresses, identity, timing of consensus and gossip, NATS, TLS
and the number of processes need a restart; what files hold that settings name, certificates and
keys, is read again by itself."""

KEPT: Final = frozenset(
    {"anonymous", "publisher_jwt_key_file", "subscriber_jwt_key_file", "revoked_file"}
)
"""Settings of `RELOADED` that only a restart does without: who may read must never depend on how
much of a file is written yet."""


@dataclass(frozen=True, slots=True)
class SettingChange:
    """What newer settings mean for a node that runs."""

    config: Config
    """To be used from now on."""
    taken: tuple[str, ...]
    """Settings that are others now."""
    waiting: tuple[str, ...]
    """Settings that would be others after a restart."""


def change_of(current: Config, newer: Config) -> SettingChange:
    """Compare settings in use with newer ones.

    Raises `ConfigInvalid` when those that can be taken contradict others that wait for a restart,
    and when settings are gone without which no node goes on: a file that is half written lacks its
    end, and is valid all the same.
    """
    different = [
        name for name in Config.model_fields if getattr(current, name) != getattr(newer, name)
    ]
    taken = tuple(name for name in different if name in RELOADED)
    waiting = tuple(name for name in different if name not in RELOADED)
    config = current.model_copy(update={name: getattr(newer, name) for name in taken})
    for setting, problem in problems_of(config):
        raise ConfigInvalid(
            f"setting {setting} {problem}, as long as the node is not restarted: "
            f"{', '.join(waiting)} cannot change while it runs"
        )
    gone = sorted(
        name
        for name in current.model_fields_set - newer.model_fields_set
        if name not in RELOADED or name in KEPT
    )
    if gone:
        raise ConfigInvalid(
            f"settings that the node runs with are gone: {', '.join(gone)}; if the file is not "
            "half written, restart the node"
        )
    return SettingChange(config, taken, waiting)
