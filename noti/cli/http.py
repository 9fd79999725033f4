"""Asks a node over HTTP what it knows.

Enters: the URL of a node. Leaves: the JSON it answers. Never: waiting for long, unbounded bodies.
"""

import http.client
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from noti.certificates.credentials import load_authorities
from noti.certificates.refusals import handshake_refusal
from noti.errors import LocalError, MessageInvalid, Unavailable

TIMEOUT_S = 5.0
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
    """Return the JSON at `path` of the node. Blocks.

    The certificate of an https URL must come from a CA in `tls_ca`, or else from one that this
    machine trusts, and must name the host of the URL.
    Raises `LocalError` for an unusable URL, `ConfigInvalid` for an unusable CA file, `Unavailable`
    when nobody answers in `timeout_s` seconds or a certificate is wrong, `MessageInvalid` when the
    answer is not JSON.
    """
    if urlsplit(node_url).scheme not in ("http", "https"):
        raise LocalError(f"{node_url!r} is not the URL of a node; write http://127.0.0.1:8402")
    url = node_url.rstrip("/") + path
    context = tls_context(tls_ca)
    try:
        with urllib.request.urlopen(  # noqa: S310 - checked above
            url, timeout=timeout_s, context=context
        ) as answer:
            body = answer.read(BODY_BYTES_MAX)
    except urllib.error.HTTPError as error:
        raise Unavailable(
            f"{url} answers {error.code} {error.reason}; is this a noti node?"
        ) from None
    except http.client.InvalidURL as error:
        raise LocalError(f"{node_url!r} is not the URL of a node: {error}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            raise Unavailable(f"{url} {handshake_refusal(reason)} (see --tls-ca)") from None
        raise Unavailable(f"no answer from {url}: {reason}; is the node running?") from None
    try:
        return json.loads(body)
    except ValueError:
        raise MessageInvalid(f"{url} does not answer with JSON; is this a noti node?") from None


def tls_context(tls_ca: Path | None) -> ssl.SSLContext:
    """Return the TLS of a client; raises `ConfigInvalid` for an unusable CA file."""
    if tls_ca is None:
        return ssl.create_default_context()
    load_authorities(tls_ca)  # for its words, when the file is wrong
    return ssl.create_default_context(cafile=tls_ca)
