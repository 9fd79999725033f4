"""Asks a node over HTTP for JSON, within bounds of time and bytes."""

import json
import ssl
from pathlib import Path
from typing import Any

import click
import trio

from noti.certificates.credentials import load_authorities
from noti.certificates.files import read_file
from noti.cli.deadline import TIMEOUT_S, no_answer
from noti.client.http import open_response
from noti.connection_errors import CLOSED, NO_TLS, needs_ca, origin_of
from noti.errors import ConfigInvalid, LocalError, MessageInvalid, PeerUnavailable, Unavailable

BODY_BYTES_MAX = 4 * 1024 * 1024

tls_ca_option = click.option(
    "--tls-ca",
    "--ca",
    "tls_ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CAs to trust for an https URL, PEM. [default: those of this machine]",
)
"""For every command that reads from an https URL."""

token_file_option = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with the token to show (noti token makes one).",
)
"""For every command that needs a right."""


def token_in(path: Path | None) -> str | None:
    """Return the token in a file, None without one; raises `ConfigInvalid`.

    The file may be a pipe, and is read once: a shell writes `<(...)` for one.
    """
    if path is None:
        return None
    token = read_file(path, "token file", may_be_pipe=True).decode(errors="replace").strip()
    if not token or not token.isascii() or not token.isprintable():
        raise ConfigInvalid(f"token file {path}: it holds no token; noti token makes one")
    return token


def get_json(
    node_url: str, path: str, timeout_s: float = TIMEOUT_S, *, tls_ca: Path | None = None
) -> Any:
    """Return the JSON at `path` of the node. Blocks, but not for longer than `timeout_s` seconds.

    The certificate of an https URL must come from a CA in `tls_ca`, or else from one that this
    machine trusts, and must name the host of the URL.
    Raises `LocalError` for an unusable URL, `ConfigInvalid` for an unusable CA file, `Unavailable`
    when no node answers in time or a certificate is wrong, `MessageInvalid` when the answer is not
    JSON.
    """
    if not node_url.startswith(("http://", "https://")) or not node_url.isprintable():
        raise LocalError(f"{node_url!r} is not the URL of a node; write http://127.0.0.1:8403")
    url = node_url.rstrip("/") + path
    tls = None if tls_ca is None and url.startswith("http://") else tls_context(tls_ca)
    status, body = _ask(url, tls, timeout_s)
    if status.startswith("404"):
        raise Unavailable(
            f"{url} answers {status}; is this the --ops-addr of a noti node (port 8403 by default)?"
        )
    if not status.startswith("200"):
        raise Unavailable(f"{url} answers {status}; is this a noti node?")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise MessageInvalid(f"{url} does not answer with JSON; is this a noti node?") from None


def _ask(url: str, tls: ssl.SSLContext | None, timeout_s: float) -> tuple[str, bytes]:
    try:
        return trio.run(get, url, tls, timeout_s)
    except LocalError as error:
        raise LocalError(f"that is not the URL of a node: {error}") from None
    except trio.TooSlowError:
        raise Unavailable(no_answer(url, timeout_s)) from None
    except MessageInvalid as error:
        raise MessageInvalid(f"{url} is not a noti node: {error}") from None
    except PeerUnavailable as error:
        raise Unavailable(no_answer_because(url, str(error), error)) from None


def no_answer_because(url: str, reason: str, error: Exception) -> str:
    """Return why a node gave no answer, and what to look at."""
    origin = origin_of(error)
    if needs_ca(error):
        hint = " (see --tls-ca)"
    elif reason == NO_TLS:
        hint = "; write http://"
    elif isinstance(origin, ConnectionRefusedError):
        hint = "; is the node running?"
    elif url.startswith("http://") and (reason == CLOSED or isinstance(origin, ConnectionError)):
        hint = "; does it want https://?"
    else:
        hint = ""
    return f"no answer from {url}: {reason}{hint}"


async def get(url: str, tls: ssl.SSLContext | None, timeout_s: float) -> tuple[str, bytes]:
    """Return status and reason, and the body; raises as `open_response` does."""
    headers = [("Accept", "application/json"), ("Connection", "close")]
    with trio.fail_after(timeout_s):
        async with open_response(url, tls, headers=headers) as response:
            status = f"{response.status} {response.reason}".strip()
            return status, await response.read(BODY_BYTES_MAX)


def tls_context(tls_ca: Path | None) -> ssl.SSLContext:
    """Return the TLS of a client; raises `ConfigInvalid` for an unusable CA file."""
    if tls_ca is None:
        return ssl.create_default_context()
    load_authorities(tls_ca)  # for its words, when the file is wrong
    return ssl.create_default_context(cafile=tls_ca)
