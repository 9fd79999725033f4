"""Decides how a request to speak WebSocket is answered, before anybody asks what it is for.

Enters: a request's headers, the hub's URL as it has it. Leaves: the terms of a connection, with the
headers as those who look for a token read them; or an answer that says what is wrong.
Never: I/O; a token in a text, or in an answer.

A browser lets any page open a WebSocket to any address, sends cookies along, and asks no CORS: who
may read is for the server to check. The rules are those of CORS for an `EventSource`: pages of the
hub's own origin and of those in --cors-origins; with `*`, all others too, but without cookies. A
page cannot set headers either, so that it may name its token as a subprotocol:

    new WebSocket(url, ["noti", "authorization.bearer." + token])

Sources: RFC 6455, 4.2 (opening handshake), 10.2 (origin).
"""

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha1
from typing import Final

from noti.authorization.presented import origin_of
from noti.http.answers import Answer, plain
from noti.http.config import HttpConfig
from noti.http.response_headers import may_send_cookies
from noti.streams.framing import WEBSOCKET_EVENT_STREAM, WEBSOCKET_OBJECTS, Framing

SUBPROTOCOLS: Final = {"noti": WEBSOCKET_OBJECTS, "sse": WEBSOCKET_EVENT_STREAM}
"""How a stream is written; without a subprotocol, as with the first one."""
TOKEN_PREFIX: Final = "authorization.bearer."  # noqa: S105 - a name

VERSION: Final = "13"
KEY_BYTES: Final = 16
_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(r"[A-Za-z0-9+/]{22}==")


@dataclass(frozen=True, slots=True)
class Handshake:
    """A WebSocket may be opened."""

    accept: str
    """What proves that its key was read."""
    subprotocol: str | None
    """The one that was chosen; None when none was offered."""
    header: Callable[[str], str] = field(repr=False)
    """Returns a header's value by its lower-case name: the token where it usually is, and a cookie
    only if it counts."""

    @property
    def framing(self) -> Framing:
        """How the stream is to be written."""
        return SUBPROTOCOLS[self.subprotocol or "noti"]

    def response(self, headers: Sequence[tuple[str, str]]) -> bytes:
        """Return the head of the answer that opens it, with these headers besides."""
        lines = [
            "HTTP/1.1 101 Switching Protocols",
            "upgrade: websocket",
            "connection: Upgrade",
            f"sec-websocket-accept: {self.accept}",
        ]
        if self.subprotocol is not None:
            lines.append(f"sec-websocket-protocol: {self.subprotocol}")
        lines += [f"{name.lower()}: {value}" for name, value in headers]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def wants_websocket(header: Callable[[str], str]) -> bool:
    """Return whether a request names that protocol; `header` as in `Handshake`."""
    upgrade = header("upgrade")
    return bool(upgrade) and "websocket" in _listed(upgrade.lower())


def answer_to_handshake(
    header: Callable[[str], str], hub_url: str, config: HttpConfig
) -> Handshake | Answer:
    """Return the terms of the WebSocket that a GET of HTTP/1.1 wants, or why there is none."""
    if "upgrade" not in _listed(header("connection").lower()):
        return plain(400, "A WebSocket needs the header Connection: Upgrade.")
    if header("sec-websocket-version").strip() != VERSION:
        text = f"Here, WebSockets are of version {VERSION} (RFC 6455)."
        return plain(426, text, ("Upgrade", "websocket"), ("Sec-WebSocket-Version", VERSION))
    key = header("sec-websocket-key").strip()
    if not _is_key(key):
        return plain(400, f"Sec-WebSocket-Key must be {KEY_BYTES} bytes in Base64.")
    origin = header("origin")
    cookies_count = bool(origin) and (_is_own(origin, hub_url) or may_send_cookies(origin, config))
    if origin and not cookies_count and "*" not in config.cors_origins:
        return plain(
            403,
            "Pages of this origin may not read here: the operator can add it to --cors-origins.",
        )
    offered = _listed(header("sec-websocket-protocol"))
    tokens = [one.removeprefix(TOKEN_PREFIX) for one in offered if one.startswith(TOKEN_PREFIX)]
    if len(tokens) + bool(header("authorization")) > 1:
        return plain(400, "There must be one token, in a header or as a subprotocol.")
    chosen = next((one for one in offered if one in SUBPROTOCOLS), None)
    if offered and chosen is None:
        known = " or ".join(f'"{one}"' for one in SUBPROTOCOLS)
        return plain(400, f"None of these subprotocols is spoken here: offer {known}, or none.")

    def seen(name: str) -> str:
        if name == "authorization" and tokens:
            return f"Bearer {tokens[0]}"
        if name == "cookie" and not cookies_count:
            return ""
        return header(name)

    accept = b64encode(sha1(f"{key}{_GUID}".encode()).digest()).decode()  # noqa: S324 - RFC 6455
    return Handshake(accept, chosen, seen)


def _is_key(key: str) -> bool:
    if _KEY.fullmatch(key) is None:
        return False
    try:
        return len(b64decode(key, validate=True)) == KEY_BYTES
    except binascii.Error:
        return False


def _is_own(origin: str, hub_url: str) -> bool:
    """Return whether that is the hub's own origin, whatever its scheme: a proxy may end TLS."""
    theirs, own = origin_of(origin), origin_of(hub_url)
    return theirs is not None and own is not None and theirs[1] == own[1]


def _listed(value: str) -> list[str]:
    """Return the members of a header's list."""
    return [one for part in value.split(",") if (one := part.strip())]
