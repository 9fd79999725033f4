"""Tells by its head what another server answers from what a node of noti says.

After another server's answer the next node may be asked; nothing is read or sent here.
"""

from collections.abc import Mapping
from typing import Final

_NOT_THERE: Final = frozenset({404, 405, 410})
"""Whoever answers so has not taken the request: no node listens there, or another service of it."""
_TIMED_OUT: Final = 408
"""A proxy may answer so that has passed the request on."""
_OF_NODES: Final = frozenset({"", "text/plain", "application/problem+json"})
"""Types in which a node says why it refuses; without one, the words are taken for a node's too."""
_OF_OTHERS: Final = frozenset({"text/html", "application/xhtml+xml"})
"""Types in which no node answers a program that has a question or an event."""


def type_of(headers: Mapping[str, str]) -> str:
    """Return the media type in headers, which are by lower-case name; empty without one."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_strangers(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the answer to a hub's request is another server's, so that nothing came of it.

    A node's own refusals (400, 401, 403, 409, 413, ...) are not, and neither are failures (5xx),
    behind which a node may be that has taken the request. `headers` are by lower-case name.
    """
    media_type = type_of(headers)
    if 200 <= status < 300:
        return status == 200 and media_type in _OF_OTHERS  # what is empty has any type
    if 300 <= status < 400:
        return True  # no node redirects
    refuses = 400 <= status < 429 and status != _TIMED_OUT
    return status in _NOT_THERE or (refuses and media_type not in _OF_NODES)
