"""Finds out what a node would refuse of its settings, and of what they name, before it runs.

Nothing is started or written. What a node that runs with the same data directory has is no trouble.
"""

import errno
import fcntl
import os
import pwd
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from noti.address import Address, format_address
from noti.authorization.keys import read_keys
from noti.authorization.revoked_file import names_of
from noti.certificates import pem, uses
from noti.certificates.credentials import CertificateUse, load_authorities, load_credentials
from noti.certificates.files import can_be_read_by_others, read_file
from noti.certificates.renewal import Renewed
from noti.cli.wal_files import IDENTITY_NAME, decode_identity
from noti.config import Config
from noti.connection_errors import reason_of
from noti.errors import ConfigInvalid, NotiError
from noti.publishing.nats.mapping import mapping_of
from noti.raft.storage.disk import LOCK_NAME
from noti.setting_values import is_loopback
from noti.swim.key_file import keys_of
from noti.tracing.switching import tracer_of

SECRET_FILES: Final = (
    "tls_key",
    "http_tls_key",
    "nats_tls_key",
    "gossip_key_file",
    "nats_creds_file",
    "nats_nkey_file",
    "nats_token_file",
    "nats_password_file",
)
"""Settings that name a secret; keys for tokens may be public."""

_TLS_USES: Final = (
    ("tls", CertificateUse.NODE),
    ("http_tls", CertificateUse.HTTPS),
    ("nats_tls", CertificateUse.NATS),
)
"""How settings of certificate, key and CA begin, and what the certificate is for."""


@dataclass(frozen=True, slots=True)
class ConfigFinding:
    """What is wrong, or deserves a look."""

    setting: str
    """Empty for none in particular."""
    text: str
    """One line."""
    is_problem: bool = True
    """Whether a node would not start, or not work."""


def findings_of(config: Config) -> Iterator[ConfigFinding]:
    """Look at the files, the directory and the addresses that settings name."""
    yield from _files(config)
    yield from exposures_of(config)
    yield from _data_directory(config)
    runs = is_in_use(config.data_dir)
    for setting in ("http_addr", "ops_addr", "rpc_addr", "gossip_addr"):
        yield from _address(setting, getattr(config, setting), runs=runs)


def is_in_use(directory: Path) -> bool:
    """Whether a process has locked a data directory."""
    try:
        lock = os.open(directory / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _files(config: Config) -> Iterator[ConfigFinding]:
    told = set[str]()
    for setting, read in (*_tls_readers(config), *_readers(config)):
        try:
            made = read()
        except NotiError as error:
            if str(error) not in told:  # of a file that was read by itself before
                told.add(str(error))
                yield ConfigFinding(setting, f"setting {setting}: {error}")
            continue
        if isinstance(made, Renewed):
            for file, notice in made.notices():
                yield ConfigFinding(setting, f"certificate {file} {notice}", is_problem=False)


def _tls_readers(config: Config) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what reads each file of TLS by itself: a node stops at the first that is wrong."""
    for prefix, use in _TLS_USES:
        cert, key = getattr(config, f"{prefix}_cert"), getattr(config, f"{prefix}_key")
        ca = getattr(config, f"{prefix}_ca", None)
        if cert and key:
            yield f"{prefix}_cert", partial(load_credentials, cert, key, use=use)
            yield f"{prefix}_key", partial(_private_key, key)
        if ca:
            yield f"{prefix}_ca", partial(load_authorities, ca)


def _private_key(file: Path) -> object:
    return pem.private_key(read_file(file), file)


def _readers(config: Config) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what reads the files of each setting, as a node does."""
    one = config
    if one.tls_cert and one.tls_key and one.tls_ca:
        cert, key, ca = one.tls_cert, one.tls_key, one.tls_ca
        yield "tls_cert", lambda: uses.for_nodes(cert, key, ca, one.name)
    if one.http_tls_cert and one.http_tls_key:
        web, web_key = one.http_tls_cert, one.http_tls_key
        yield "http_tls_cert", lambda: uses.for_browsers(web, web_key)
    if one.nats_tls_ca or one.nats_tls_cert:
        yield (
            "nats_tls_cert" if one.nats_tls_cert else "nats_tls_ca",
            lambda: uses.for_nats(one.nats_tls_ca, one.nats_tls_cert, one.nats_tls_key),
        )
    if one.gossip_key_file:
        gossip = one.gossip_key_file
        yield "gossip_key_file", lambda: keys_of(read_file(gossip, "file of keys"), str(gossip))
    for setting, file, algorithm in _token_keys(one):
        yield setting, partial(_keys, file, algorithm)
    if one.revoked_file:
        revoked = one.revoked_file
        yield (
            "revoked_file",
            lambda: names_of(read_file(revoked, "list of tokens", may_be_empty=True), str(revoked)),
        )
    if one.nats_url:
        yield "nats_url", lambda: _login(one)
    if one.tracing:
        yield "tracing", lambda: tracer_of(one.name)
    for stream in one.streams:
        yield "nats_streams", partial(mapping_of, stream)


def _token_keys(config: Config) -> Iterator[tuple[str, Path, str | None]]:
    """Yield settings that name keys for tokens, their files, and the algorithm of each."""
    if config.publisher_jwt_key_file:
        yield "publisher_jwt_key_file", config.publisher_jwt_key_file, config.publisher_jwt_alg
    if config.subscriber_jwt_key_file:
        yield "subscriber_jwt_key_file", config.subscriber_jwt_key_file, config.subscriber_jwt_alg
    if config.jwks_url and "://" not in config.jwks_url:
        yield "jwks_url", Path(config.jwks_url), None


def _keys(file: Path, algorithm: str | None) -> Any:
    return read_keys(read_file(file, "key file"), str(file), algorithm)


def _login(config: Config) -> None:
    # Here, so that settings without NATS are checked without its library.
    from noti.publishing.nats.login import NatsLogin

    NatsLogin.of(config).options()


def exposures_of(config: Config) -> Iterator[ConfigFinding]:
    """Tell of what others can read who perhaps should not; none is a problem."""
    yield from _exposed_secrets(config)
    if not is_loopback(config.ops_addr[0]):
        text = (
            f"setting ops_addr: {format_address(config.ops_addr)} shows status, metrics and traces "
            "without a token to all who reach it; let only operators and Prometheus do so"
        )
        yield ConfigFinding("ops_addr", text, is_problem=False)


def _exposed_secrets(config: Config) -> Iterator[ConfigFinding]:
    """Tell of secrets that everybody on this machine can read."""
    named = [(setting, getattr(config, setting)) for setting in SECRET_FILES]
    for setting, file, algorithm in _token_keys(config):
        with suppress(ConfigInvalid):
            if _keys(file, algorithm).has_secret:
                named.append((setting, file))
    for setting, file in named:
        if file is not None and can_be_read_by_others(file):
            text = f"setting {setting}: everybody on this machine can read {file}: chmod 600 {file}"
            yield ConfigFinding(setting, text, is_problem=False)


def _data_directory(config: Config) -> Iterator[ConfigFinding]:
    directory, told = config.data_dir, "setting data_dir: "
    above = (directory, *directory.absolute().parents)
    # `Path.exists` fails where it may not look.
    existing = next(path for path in above if os.path.exists(path))  # noqa: PTH110
    if (reason := _why_no_path(directory)) is not None:
        yield ConfigFinding("data_dir", f"{told}{directory} {reason}; name another")
    elif not existing.is_dir():
        yield ConfigFinding("data_dir", f"{told}{existing} is no directory; name another")
    elif not os.access(existing, os.R_OK | os.W_OK | os.X_OK):
        owner, we = _user(existing.stat().st_uid), _user(os.geteuid())
        text = f"{existing} belongs to user {owner}, and {we} cannot write there; change its owner"
        yield ConfigFinding("data_dir", told + text)
    elif existing == directory and not os.geteuid() and (uid := existing.stat().st_uid):
        text = f"{existing} belongs to user {_user(uid)}: check as that user, as root may read all"
        yield ConfigFinding("data_dir", told + text, is_problem=False)
    if existing != directory:
        return
    try:
        name, _ = decode_identity((directory / IDENTITY_NAME).read_bytes())
    except FileNotFoundError:
        return
    except (OSError, NotiError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        yield ConfigFinding("data_dir", f"{told}{directory / IDENTITY_NAME}: {reason}")
        return
    if name != config.name:
        yield ConfigFinding(
            "data_dir",
            f"{told}{directory} belongs to node {name!r}, but this node is named {config.name!r}; "
            "use another --data-dir or the old --name",
        )


def _why_no_path(path: Path) -> str | None:
    """Return why nobody could make a directory there, whatever may be done above it."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return "has a name that is too long"
        if error.errno != errno.EACCES and path.is_symlink():
            return "is a link to nothing"
    return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _address(setting: str, address: Address, *, runs: bool) -> Iterator[ConfigFinding]:
    kinds = [socket.SOCK_STREAM] + [socket.SOCK_DGRAM] * (setting == "gossip_addr")
    for kind in kinds:
        problem = _why_unusable(address, kind, runs=runs)
        if problem:
            what = "UDP" if kind is socket.SOCK_DGRAM else "TCP"
            yield ConfigFinding(
                setting, f"setting {setting}: {format_address(address)} ({what}) {problem}"
            )


def _why_unusable(address: Address, kind: socket.SocketKind, *, runs: bool) -> str:
    """Return why nobody could listen there; empty if one could, or the node that runs does."""
    host, port = address
    try:
        found = socket.getaddrinfo(host or None, port, type=kind, flags=socket.AI_PASSIVE)
        for family, _, _, _, where in found:
            with socket.socket(family, kind) as probe:
                if kind is socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family is socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(where)
    except OSError as error:
        if runs and error.errno == errno.EADDRINUSE:
            return ""
        return f"cannot be used: {reason_of(error)}; choose another address"
    return ""


def findings_of_nats(config: Config, timeout_s: float) -> list[ConfigFinding]:
    """Log in to NATS and look for the streams; each answer may take `timeout_s` seconds."""
    if config.nats_url is None:
        return []
    # Here, so that settings are checked without NATS, and without its library.
    from noti.cli.asyncio_commands import run_until_signalled
    from noti.cli.jetstream import FOREIGN_ERRORS, open_nats, problem

    found: list[ConfigFinding] = []

    async def look() -> None:
        try:
            async with open_nats(config, timeout_s) as client:
                jetstream = client.jetstream(timeout=timeout_s)
                there = {one.config.name for one in await jetstream.streams_info()}
        except FOREIGN_ERRORS as error:
            text = f"setting nats_url: {problem(config, error, timeout_s)}"
            found.append(ConfigFinding("nats_url", text))
            return
        for stream in config.streams:
            if stream.name not in there:
                text = f"NATS has no stream {stream.name}; the leader makes it if it knows subjects"
                found.append(ConfigFinding("nats_streams", text, is_problem=False))

    run_until_signalled(look())
    return found
