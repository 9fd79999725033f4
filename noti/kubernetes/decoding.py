"""Decodes answers of the Kubernetes API, and raises nothing but `KubernetesFailed`.

Every object that leaves here has a name, a uid and a version.
"""

import json
from typing import Any, Final

from noti.errors import (
    KubernetesFailed,
    KubernetesForbidden,
    ObjectAbsent,
    ObjectConflict,
    VersionGone,
)
from noti.kubernetes.api import Listing, WatchEvent
from noti.kubernetes.objects import Object

MESSAGE_MAX: Final = 500
"""Characters of an answer's explanation that are passed on."""

RETRY_AFTER_S_MAX: Final = 60.0
"""Longest wait that is granted to a server that asks for more."""

_KINDS: Final[dict[int, type[KubernetesFailed]]] = {
    401: KubernetesForbidden,
    403: KubernetesForbidden,
    404: ObjectAbsent,
    409: ObjectConflict,
    410: VersionGone,
}


def decode_object(content: bytes, what: str) -> Object:
    """Return one object; `what` was asked for. Raises `KubernetesFailed`."""
    return _identified(_json(content, what), what)


def decode_listing(content: bytes, what: str) -> Listing:
    """Return a list; raises `KubernetesFailed`."""
    decoded = _json(content, what)
    items = decoded.get("items") or []
    if not isinstance(items, list):
        raise _not_an_object(what)
    version = _text(decoded.get("metadata"), "resourceVersion", what)
    return Listing(tuple(_identified(item, what) for item in items), version)


def decode_change(line: bytes | bytearray, what: str) -> WatchEvent:
    """Return what one line of a watch reports.

    Raises `KubernetesFailed`, also when it reports one: `VersionGone` above all.
    """
    decoded = _json(line, what)
    changed = decoded.get("object")
    if not isinstance(changed, dict):
        raise _not_an_object(what)
    match decoded.get("type"):
        case "ADDED" | "MODIFIED" | "DELETED" as kind:
            return WatchEvent(kind, _identified(changed, what))
        case "BOOKMARK":
            _text(changed.get("metadata"), "resourceVersion", what)
            return WatchEvent("BOOKMARK", changed)
        case "ERROR":
            code, message = changed.get("code"), str(changed.get("message"))[:MESSAGE_MAX]
            raise failure(code if isinstance(code, int) else 0, f"{what}: {code} {message}")
        case _:
            raise _not_an_object(what)


def failure(code: int, problem: str, retry_after: str = "") -> KubernetesFailed:
    """Return the exception for a status code; `retry_after` is the header of that name."""
    plain = retry_after.isascii() and retry_after.isdigit()
    wait_s = min(float(retry_after), RETRY_AFTER_S_MAX) if plain else 0.0
    return _KINDS.get(code, KubernetesFailed)(problem, wait_s)


def explanation(content: bytes, otherwise: str) -> str:
    """Return the explanation in an answer that is an error."""
    try:
        decoded = json.loads(content)
    except (ValueError, RecursionError):
        return otherwise
    message = decoded.get("message") if isinstance(decoded, dict) else None
    return str(message)[:MESSAGE_MAX] if message else otherwise


def _json(content: bytes | bytearray, what: str) -> Object:
    try:
        decoded = json.loads(content)
    except (ValueError, RecursionError):
        raise _not_an_object(what) from None
    if not isinstance(decoded, dict):
        raise _not_an_object(what)
    return decoded


def _identified(decoded: Any, what: str) -> Object:
    metadata = decoded.get("metadata") if isinstance(decoded, dict) else None
    for key in ("name", "uid", "resourceVersion"):
        _text(metadata, key, what)
    identified: Object = decoded
    return identified


def _text(metadata: Any, key: str, what: str) -> str:
    text = metadata.get(key) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise _not_an_object(what)
    return text


def _not_an_object(what: str) -> KubernetesFailed:
    return KubernetesFailed(f"{what}: the answer is no object of Kubernetes")
