"""Asks a node over HTTP what it knows.

Enters: the URL of a node. Leaves: the JSON it answers. Never: waiting for long, unbounded bodies.
"""

import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from noti.errors import LocalError, MessageInvalid, Unavailable

TIMEOUT_S = 5.0
BODY_BYTES_MAX = 4 * 1024 * 1024


def get_json(node_url: str, path: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Return the JSON at `path` of the node. Blocks.

    Raises `LocalError` for an unusable URL, `Unavailable` when nobody answers in `timeout_s`
    seconds, `MessageInvalid` when the answer is not JSON.
    """
    if urlsplit(node_url).scheme not in ("http", "https"):
        raise LocalError(f"{node_url!r} is not the URL of a node; write http://127.0.0.1:8402")
    url = node_url.rstrip("/") + path
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # noqa: S310 - checked above
            body = answer.read(BODY_BYTES_MAX)
    except urllib.error.HTTPError as error:
        raise Unavailable(
            f"{url} answers {error.code} {error.reason}; is this a noti node?"
        ) from None
    except http.client.InvalidURL as error:
        raise LocalError(f"{node_url!r} is not the URL of a node: {error}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(f"no answer from {url}: {reason}; is the node running?") from None
    try:
        return json.loads(body)
    except ValueError:
        raise MessageInvalid(f"{url} does not answer with JSON; is this a noti node?") from None
