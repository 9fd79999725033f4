"""Asks a node over HTTP what it knows.

Enters: the URL of a node. Leaves: the JSON it answers. Never: waiting for long, unbounded bodies.
"""

import http
import json
import ssl
from functools import partial
from pathlib import Path
from typing import Any

import click
import trio

from noti.certificates.credentials import load_authorities
from noti.certificates.rejections import handshake_refusal
from noti.cli.deadline import TIMEOUT_S, no_answer
from noti.client.http import HttpResponse, ask
from noti.errors import LocalError, MessageInvalid, Unavailable

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


def get_json(
    node_url: str, path: str, timeout_s: float = TIMEOUT_S, *, tls_ca: Path | None = None
) -> Any:
    """Return the JSON at `path` of the node. Blocks, but not for longer than `timeout_s` seconds.

    The certificate of an https URL must come from a CA in `tls_ca`, or else from one that this
    machine trusts, and must name the host of the URL.
    Raises `LocalError` for an unusable URL, `ConfigInvalid` for an unusable CA file, `Unavailable`
    when nobody answers in time or a certificate is wrong, `MessageInvalid` when the answer is not
    JSON.
    """
    if not node_url.startswith(("http://", "https://")) or not node_url.isprintable():
        raise LocalError(f"{node_url!r} is not the URL of a node; write http://127.0.0.1:8402")
    url = node_url.rstrip("/") + path
    answer = _ask(url, tls_context(tls_ca), timeout_s)
    if answer.status != http.HTTPStatus.OK:
        said = f"{answer.status} {answer.reason}".strip()
        raise Unavailable(f"{url} answers {said}; is this a noti node?")
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError):
        raise MessageInvalid(f"{url} does not answer with JSON; is this a noti node?") from None


def _ask(url: str, tls: ssl.SSLContext, timeout_s: float) -> HttpResponse:
    asking = partial(ask, url, tls, within_s=timeout_s, body_bytes_max=BODY_BYTES_MAX)
    try:
        return trio.run(asking)
    except LocalError as error:
        raise LocalError(f"{url!r} is not the URL of a node: {error}") from None
    except trio.TooSlowError:
        raise Unavailable(no_answer(url, timeout_s)) from None
    except MessageInvalid as error:
        raise MessageInvalid(f"{url} is not a noti node: {error}") from None
    except (OSError, trio.BrokenResourceError) as error:
        cause = error.__cause__ if isinstance(error, trio.BrokenResourceError) else error
        if isinstance(cause, ssl.SSLError):
            raise Unavailable(f"{url} {handshake_refusal(cause)} (see --tls-ca)") from None
        reason = _reason(cause) if isinstance(cause, OSError) else "the connection was lost"
        raise Unavailable(f"no answer from {url}: {reason}; is the node running?") from None


def _reason(error: OSError) -> str:
    """Return why a connection failed; Trio tells that of each address in the cause."""
    cause = error.__cause__
    if isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    inner = cause if isinstance(cause, OSError) else error
    return inner.strerror or str(inner)


def tls_context(tls_ca: Path | None) -> ssl.SSLContext:
    """Return the TLS of a client; raises `ConfigInvalid` for an unusable CA file."""
    if tls_ca is None:
        return ssl.create_default_context()
    load_authorities(tls_ca)  # for its words, when the file is wrong
    return ssl.create_default_context(cafile=tls_ca)
