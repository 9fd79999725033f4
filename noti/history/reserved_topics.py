"""Says which topics of publishers are the hub's own.

Enters: topics. Leaves: whether one is reserved.
Never: I/O, state.

Sources: the Mercure protocol, 1.0, "Publication"; WHATWG URL, 4.4 (basic URL parser), as far as
paths go.
"""

import re
import string
from functools import lru_cache
from typing import Final

from noti.address import HUB_PATH

EVERYTHING: Final = "*"
"""The selector that covers every notification (Mercure 0.x, "Topic Selectors")."""

RESERVED: Final = HUB_PATH
"""Topics at and below this path are the hub's own: it tells of subscriptions there (Mercure)."""

_UNRESERVED: Final = frozenset(string.ascii_letters + string.digits + "-._~")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*):", re.IGNORECASE)
_SPECIAL: Final = frozenset({"http", "https", "ws", "wss", "ftp", "file"})
"""Schemes in whose URLs a backslash is a slash, and an authority begins after any number of them
(WHATWG URL, 3.1)."""
_ENCODED: Final = re.compile(r"%([0-9a-f]{2})", re.IGNORECASE)
_IGNORED: Final = str.maketrans("", "", "\t\n\r")
_SUSPICIOUS: Final = re.compile(r"mercure|[%#?\t\n\r]")
"""One of these is in whatever is reserved."""
_OUTER: Final = "".join(map(chr, range(0x21)))
"""Characters that a parser of URLs strips at both ends."""


def reserved_in_0x(topic: str) -> bool:
    """Return whether Mercure 0.x's hubs keep a topic for themselves: it names their path."""
    return RESERVED in topic


@lru_cache(maxsize=1024)
def reserved_in_1_0(topic: str) -> bool:
    """Return whether a topic is `*`, or resolves to the hub's path or below, on whatever host."""
    if topic == EVERYTHING:
        return True
    if not _SUSPICIOUS.search(topic):
        return False
    path = _path_of(topic)
    return path is not None and (path == RESERVED or path.startswith(f"{RESERVED}/"))


def _path_of(topic: str) -> str | None:
    """Return the path of the URL that a topic stands for at the hub; None if it has none."""
    text = topic.strip(_OUTER).translate(_IGNORED)
    text = text.partition("#")[0].partition("?")[0]
    scheme = _SCHEME.match(text)
    if scheme is None:
        text = _resolved(text)
    elif scheme[1].lower() not in _SPECIAL:
        text = text[scheme.end() :]
        if text.startswith("//"):
            text = _after_authority(text[2:])
        elif not text.startswith("/"):
            return None  # opaque, as in urn:uuid:…
    else:
        text = _resolved(text[scheme.end() :])
    return _ENCODED.sub(_decode_unreserved, _without_dots(text))


def _resolved(reference: str) -> str:
    """Return the path of a reference at the hub, whose scheme is special."""
    text = reference.replace("\\", "/")
    if text.startswith("//"):
        return _after_authority(text.lstrip("/"))
    if not text:
        return RESERVED
    return text if text.startswith("/") else f"{RESERVED.rpartition('/')[0]}/{text}"


def _after_authority(text: str) -> str:
    _, slash, path = text.partition("/")
    return slash + path


def _without_dots(path: str) -> str:
    kept: list[str] = []
    segments = path.split("/")[1:]
    for number, segment in enumerate(segments, start=1):
        plain = segment.lower().replace("%2e", ".")
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(segment)
        if plain in (".", "..") and number == len(segments):
            kept.append("")
    return "/" + "/".join(kept)


def _decode_unreserved(triplet: re.Match[str]) -> str:
    character = chr(int(triplet[1], 16))
    return character if character in _UNRESERVED else triplet[0]
