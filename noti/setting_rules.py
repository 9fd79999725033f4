"""What must hold between several settings of a node; what must hold for one alone is at its type.

A problem is the setting that it is told of, and a clause about it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypeAlias

from noti.redaction import has_login
from noti.setting_values import WILDCARDS, is_loopback
from noti.stream_settings import problems_of_streams

if TYPE_CHECKING:
    from noti.config import Config

STOP_S = 7.0
"""What stopping takes besides draining: hand-over, leaving gossip 2.5, last answers 2, the log."""

STREAM_FLAGS = (
    "nats_stream",
    "nats_subject",
    "nats_decoder",
    "nats_topic",
    "nats_dead_letter",
)
"""Settings that describe one stream, where no tables do."""

SECRETS: Final = (
    ("publisher_jwt_key", "publisher_jwt_key_file"),
    ("subscriber_jwt_key", "subscriber_jwt_key_file"),
    ("gossip_key", "gossip_key_file"),
)
"""Settings that are secrets, and those that name a file with the same."""

_TOGETHER = (
    ("tls_cert", "tls_key", "tls_ca"),
    ("http_tls_cert", "http_tls_key"),
    ("nats_tls_cert", "nats_tls_key"),
    ("nats_user", "nats_password_file"),
)
_MODES = (("tls_mode", "tls_cert"), ("http_tls_mode", "http_tls_cert"))
_NATS_PROOFS = ("nats_creds_file", "nats_nkey_file", "nats_token_file", "nats_user")
_NATS_FILES = (*_NATS_PROOFS, "nats_tls_ca", "nats_tls_cert")

Problem: TypeAlias = tuple[str, str]


def problems_of(config: "Config") -> Iterator[Problem]:
    """Yield what is wrong with settings that are right each by itself."""
    yield from _timing(config)
    yield from _addresses(config)
    yield from _files_come_together(config)
    yield from _one_key_each(config)
    yield from _streams_are_told_once(config)


def _timing(config: "Config") -> Iterator[Problem]:
    # Two lost heartbeats must not start an election (Raft 5.6: broadcast << election timeout).
    least_ms = 3 * config.heartbeat_interval_ms
    if config.election_timeout_ms < least_ms:
        yield (
            "election_timeout_ms",
            f"is less than 3 x heartbeat_interval_ms; make it at least {least_ms}",
        )
    least_s = config.sse_drain_s + STOP_S
    if config.sse_drain_s and config.shutdown_deadline_s < least_s:
        yield (
            "shutdown_deadline_s",
            f"is too short for sse_drain_s; make it {least_s:g} or more",
        )


def _addresses(config: "Config") -> Iterator[Problem]:
    if config.advertise_host is None:
        for setting in ("gossip_addr", "rpc_addr"):
            if getattr(config, setting)[0] in WILDCARDS:
                yield setting, "is a wildcard that others cannot dial; set advertise_host too"
        hosts = {config.gossip_addr[0], config.rpc_addr[0]}
        if len(hosts) > 1 and not any(map(is_loopback, hosts)):
            yield "rpc_addr", "is not on the host of gossip_addr, where others look for it"
    elif config.advertise_host in WILDCARDS:
        yield "advertise_host", "cannot be dialled; name a host or an IP address"
    bound = (config.http_addr, config.gossip_addr, config.rpc_addr, config.ops_addr)
    fixed = [address for address in bound if address[1] != 0]
    if len(set(fixed)) < len(fixed):
        yield "http_addr", "and gossip_addr, rpc_addr and ops_addr must differ"


def _files_come_together(config: "Config") -> Iterator[Problem]:
    for group in _TOGETHER:
        given = [name for name in group if getattr(config, name) is not None]
        for name in group:
            if given and name not in given:
                yield name, f"is not given beside {given[0]}: {', '.join(group)} go together"
    for mode, certificate in _MODES:
        if getattr(config, mode) != "required" and getattr(config, certificate) is None:
            yield mode, f"is of no use without {certificate}"
    proofs = [name for name in _NATS_PROOFS if getattr(config, name) is not None]
    for proof in proofs[1:]:
        yield proof, f"is given beside {proofs[0]}; choose one way to log in"
    if config.nats_url is None:
        for name in _NATS_FILES:
            if getattr(config, name) is not None:
                yield name, "is of no use without nats_url; set both or neither"
    if proofs and has_login(config.nats_url or ""):
        yield proofs[0], "is given beside a login in nats_url; remove it there"


def _one_key_each(config: "Config") -> Iterator[Problem]:
    for secret, file in SECRETS:
        if getattr(config, secret) is not None and getattr(config, file) is not None:
            yield file, f"is given beside {secret}; choose one"
    has_gossip_key = config.gossip_key_file is not None or config.gossip_key is not None
    if not (has_gossip_key or config.gossip_insecure or is_loopback(config.gossip_addr[0])):
        yield (
            "gossip_addr",
            "is reached by other machines, and gossip has no key: give --gossip-key-file "
            "(`noti keys new` prints a key), or --gossip-insecure if all of them are trusted",
        )
    if config.gossip_encryption != "required" and not has_gossip_key:
        yield "gossip_encryption", "is of no use without gossip_key_file"
    if config.publisher_jwt_alg is not None and not (
        config.publisher_jwt_key_file or config.publisher_jwt_key
    ):
        yield "publisher_jwt_alg", "is of no use without publisher_jwt_key_file"


def _streams_are_told_once(config: "Config") -> Iterator[Problem]:
    beside = [name for name in STREAM_FLAGS if name in config.model_fields_set]
    for name in beside if config.nats_streams else ():
        yield (
            name,
            "is given beside [[nats_streams]] tables; write it into a table, or leave it out",
        )
    if config.nats_streams and config.nats_url is None:
        yield "nats_streams", "is of no use without nats_url; set both or neither"
    for problem in problems_of_streams(config.streams):
        yield ("nats_streams" if config.nats_streams else "nats_subject"), problem
