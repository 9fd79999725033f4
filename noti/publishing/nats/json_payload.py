"""Payloads of text, and of JSON, which reach readers as they are.

Enters: bytes. Leaves: their text; for templates of topics, the value of JSON in which a number is
the text that stands there. Never: I/O, clocks.

JSON is what RFC 8259 says: no `NaN` or `Infinity`. Of a key that stands there twice, the last value
counts for the topic, as it does for a browser. Arrays and objects are nested up to `DEPTH_MAX`
levels.
"""

import json
from typing import Any, Final, NoReturn

from noti.errors import MessageInvalid
from noti.publishing.nats.content import MessageContent
from noti.publishing.nats.ports import SourceMessage

DEPTH_MAX: Final = 100
"""Nobody nests deeper by intent, and Python's parser gives up at some depth, by what called it."""


def text_in(payload: bytes) -> str:
    """Return the text in a payload; raises `MessageInvalid`."""
    try:
        return payload.decode()
    except UnicodeDecodeError as error:
        raise MessageInvalid(f"the payload is no UTF-8 text, at byte {error.start}") from None


def decode_text(message: SourceMessage, wall_ms: int) -> MessageContent:
    """Return a payload that is UTF-8 text, as it is."""
    return MessageContent(text_in(message.payload))


def decode_json(message: SourceMessage, wall_ms: int) -> MessageContent:
    """Return a payload that is JSON, as it is, and its value."""
    text = text_in(message.payload)
    return MessageContent(text, value_in(text))


def value_in(text: str) -> object:
    """Return the JSON value in a text; raises `MessageInvalid`."""
    try:
        value = _decoder.decode(text)
    except ValueError as error:
        raise MessageInvalid(f"the payload is no JSON: {error}") from None
    except RecursionError:
        raise too_deep() from None
    check_depth(value, text)
    return value


def value_at(text: str, start: int) -> tuple[object, int]:
    """Return the value that begins there, and where it ends.

    Raises `ValueError` or `RecursionError`; `check_depth` is left to the caller.
    """
    return _decoder.raw_decode(text, start)


def check_depth(value: object, text: str) -> None:
    """Raise `MessageInvalid` for a value, in a text, that is nested too deeply."""
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return  # as nearly always
    level = [value]
    for _ in range(DEPTH_MAX):
        inner: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                inner += [item for item in one.values() if isinstance(item, dict | list)]
            elif isinstance(one, list):
                inner += [item for item in one if isinstance(item, dict | list)]
        if not inner:
            return
        level = inner
    raise too_deep()


def too_deep() -> MessageInvalid:
    """Return the error for JSON that is nested too deeply."""
    return MessageInvalid(f"JSON is nested more than {DEPTH_MAX} levels deep")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


_decoder: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse)
"""Numbers stay text: so they are what the publisher wrote, at any size."""
