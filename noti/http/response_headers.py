"""Says which headers responses carry: safety in browsers, who may read them (CORS), no caching."""

import re
from typing import Final

from noti.http.config import HttpConfig
from noti.http.heads import Headers
from noti.streams import sse

STREAM_HEADERS: Final[Headers] = [
    ("Content-Type", sse.MEDIA_TYPE),
    (
        "Cache-Control",
        "private, no-cache, no-store, no-transform, must-revalidate, max-age=0",
    ),
    ("Pragma", "no-cache"),
    ("Expires", "0"),
    ("X-Accel-Buffering", "no"),
]
"""No charset (the format is always UTF-8), nothing cached or compressed, no buffering in nginx."""

NOT_STORED: Final = ("Cache-Control", "private, no-store")
"""Of whole answers that depend on a token."""

SAFETY: Final[Headers] = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("X-XSS-Protection", "1; mode=block"),
    ("Content-Security-Policy", "default-src 'self'; img-src 'self' data:"),
]

ALLOWED: Final = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID"
"""Headers that pages of other origins may send."""
EXPOSED: Final = "Link, Last-Event-ID, Mercure-Last-Event-ID"
"""Headers that they may read."""
PREFLIGHT_AGE_S: Final = 7200
"""How long a browser may remember what it may send; Chromium's limit."""

_LABELS: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)*")


def common_headers(origin: str, config: HttpConfig) -> Headers:
    """Return what every response carries: safety in browsers, and who may read it (CORS).

    `origin` is the request's Origin header. A named origin may send cookies; `*` never allows that.
    """
    allowed = config.cors_origins
    if not allowed:
        return SAFETY
    headers = [*SAFETY, ("Vary", "Origin")]
    if may_send_cookies(origin, config):
        headers.append(("Access-Control-Allow-Origin", origin))
        headers.append(("Access-Control-Allow-Credentials", "true"))
    elif "*" in allowed:
        headers.append(("Access-Control-Allow-Origin", "*"))
    else:
        return headers
    headers.append(("Access-Control-Expose-Headers", EXPOSED))
    return headers


def may_send_cookies(origin: str, config: HttpConfig) -> bool:
    """Return whether pages of this other origin are named as such that read with cookies."""
    return bool(origin) and any(_names(pattern, origin) for pattern in config.cors_origins)


def preflight_headers(methods: str) -> Headers:
    """Return what the answer to OPTIONS carries besides, for an origin that is allowed.

    `methods` are those of the address.
    """
    return [
        ("Access-Control-Allow-Methods", methods),
        ("Access-Control-Allow-Headers", ALLOWED),
        ("Access-Control-Max-Age", str(PREFLIGHT_AGE_S)),
    ]


def _names(pattern: str, origin: str) -> bool:
    """Return whether an origin is the one that a setting names, or one of them.

    `https://*.example.com` names all hosts below example.com, not example.com itself.
    """
    before, wildcard, after = pattern.partition("*")
    if not wildcard:
        return pattern == origin
    if not before:
        return False
    label = origin.removeprefix(before).removesuffix(after)
    return origin == before + label + after and _LABELS.fullmatch(label) is not None


def header_text(value: str) -> str:
    """Return a header's value as the UTF-8 that its bytes are, where they are UTF-8.

    Headers are read byte by byte into characters, and an `EventSource` sends an id in UTF-8.
    """
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
