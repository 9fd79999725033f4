"""Reads CloudEvents 1.0: JSON that holds all (structured), or attributes in headers (binary).

A message is in binary mode when it has a header `ce-specversion` and its `content-type` does not
say `application/cloudevents`. Values of such headers may be percent-encoded, as over HTTP. The
event of a CloudEvent has

- its `id`, if it can be one. `source` is no part of it: pages see the id that the publisher knows,
  and two events are one only if id, topics and data are the same, so that ids which two sources
  share by chance lose nothing that a reader could tell apart;
- its `type`, and its `time`;
- its `subject` for the topic where no template says another; without one, the message's subject;
- its `data` as it stands there: JSON is not written anew. A JSON string is its text, without
  quotes, and no data is empty text. What `data_base64` or the payload of binary mode holds must be
  UTF-8 text, as streams carry nothing else.

Templates of topics find fields of `data`, if it is JSON, and attributes as `{ce-source}`.

Enters: messages. Leaves: their content. Never: I/O, clocks.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import unquote

from noti.errors import MessageInvalid
from noti.publishing.nats.content import MessageContent
from noti.publishing.nats.json_payload import check_depth, text_in, too_deep, value_at, value_in
from noti.publishing.nats.ports import Headers, SourceMessage

VERSION: Final = "1.0"

_PREFIX: Final = "ce-"
_DATA: Final = ("data", "data_base64")
_REQUIRED: Final = ("id", "source", "type")
_TEXTS: Final = (*_REQUIRED, "subject", "time")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_space: Final = re.compile(r"[ \t\n\r]*")


class CloudEventDecoder:
    """Reads messages; with fields only if templates need them."""

    def __init__(self, *, needs_fields: bool) -> None:
        self._needs_fields = needs_fields

    def __call__(self, message: SourceMessage, wall_ms: int) -> MessageContent:
        """Return the content; raises `MessageInvalid`."""
        attributes: dict[str, object]
        headers = message.headers
        if "ce-specversion" in headers and not _is_structured(headers):
            attributes = _attributes_in(headers)
            data = text_in(message.payload)
            value = _json_or_none(data) if self._needs_fields else None
        else:
            attributes, data, value = _structured(text_in(message.payload))
        _check(attributes)
        fields: dict[str, object] = {}
        if self._needs_fields:
            fields = dict(value) if isinstance(value, dict) else {}
            fields |= {_PREFIX + name: one for name, one in attributes.items()}
        return MessageContent(
            data,
            fields,
            str(attributes["id"]),
            str(attributes["type"]),
            str(attributes.get("subject") or ""),
            _milliseconds(attributes.get("time")),
        )


def _is_structured(headers: Headers) -> bool:
    return headers.get("content-type", ("",))[0].lower().startswith("application/cloudevents")


def _attributes_in(headers: Headers) -> dict[str, object]:
    """Return the attributes of binary mode."""
    attributes: dict[str, object] = {}
    for name, values in headers.items():
        if not name.startswith(_PREFIX):
            continue
        if len(set(values)) > 1:
            raise MessageInvalid(f"header {name[:80]!r} stands there {len(values)} times")
        try:
            attributes[name.removeprefix(_PREFIX)] = unquote(values[0], errors="strict")
        except UnicodeDecodeError:
            raise MessageInvalid(f"header {name[:80]!r} is no UTF-8 text") from None
    return attributes


def _structured(text: str) -> tuple[dict[str, object], str, object]:
    """Return attributes, data as text, and data as a JSON value if it is one."""
    attributes: dict[str, object] = {}
    found: dict[str, tuple[str, object]] = {}
    try:
        for name, value, raw in _members(text):
            if name in _DATA:
                found[name] = raw, value
            else:
                attributes[name] = value
    except ValueError as error:
        raise MessageInvalid(f"the payload is no CloudEvent in JSON: {error}") from None
    except RecursionError:
        raise too_deep() from None
    check_depth([attributes, [value for _, value in found.values()]], text)
    if len(found) > 1:
        raise MessageInvalid("a CloudEvent has data and data_base64; it may have one of them")
    if "data_base64" in found:
        data = _text_of_base64(found["data_base64"][1])
        return attributes, data, _json_or_none(data)
    raw, value = found.get("data", ("", None))
    if raw.startswith('"'):
        return attributes, str(value), _json_or_none(str(value))
    return attributes, raw, value


def _members(text: str) -> Iterator[tuple[str, object, str]]:
    """Yield name, value and text of each member of the JSON object in `text`.

    Raises `ValueError` and `RecursionError`.
    """
    place = _after_space(text, 0)
    if text[place : place + 1] != "{":
        raise ValueError("it is no object")
    separator = "{"
    while separator != "}":
        place = _after_space(text, place + 1)
        if separator == "{" and text[place : place + 1] == "}":
            break
        if text[place : place + 1] != '"':
            raise json.JSONDecodeError("Expecting a name in quotes", text, place)
        name, place = value_at(text, place)
        place = _after_space(text, place)
        if text[place : place + 1] != ":":
            raise json.JSONDecodeError("Expecting ':'", text, place)
        start = _after_space(text, place + 1)
        value, end = value_at(text, start)
        yield str(name), value, text[start:end]
        place = _after_space(text, end)
        separator = text[place : place + 1]
        if separator not in (",", "}") or not separator:
            raise json.JSONDecodeError("Expecting ',' or '}'", text, place)
    if _after_space(text, place + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, place + 1)


def _after_space(text: str, place: int) -> int:
    found = _space.match(text, place)
    return place if found is None else found.end()


def _text_of_base64(value: object) -> str:
    try:
        return base64.b64decode(str(value), validate=True).decode()
    except (binascii.Error, ValueError):
        raise MessageInvalid("data_base64 of a CloudEvent holds no UTF-8 text") from None


def _json_or_none(text: str) -> object:
    try:
        return value_in(text)
    except MessageInvalid:
        return None


def _check(attributes: Mapping[str, object]) -> None:
    version = attributes.get("specversion")
    if version != VERSION:
        raise MessageInvalid(f"a CloudEvent has specversion {str(version)[:20]!r}; 1.0 is read")
    for name in _TEXTS:
        value = attributes.get(name)
        if value is None and name not in _REQUIRED:
            continue
        if not isinstance(value, str) or not value:
            raise MessageInvalid(f"a CloudEvent has no text for its {name}")


def _milliseconds(time: object) -> int | None:
    """Return a time of RFC 3339 in milliseconds since 1970."""
    if time is None:
        return None
    try:
        at = datetime.fromisoformat(str(time).upper())
        if at.tzinfo is None:
            raise ValueError
        milliseconds = (at - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        milliseconds = -1
    if milliseconds < 0:
        raise MessageInvalid(f"a CloudEvent has time {str(time)[:80]!r}: not RFC 3339 after 1970")
    return milliseconds
