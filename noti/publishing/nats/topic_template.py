"""Templates of topics: tokens of the subject and fields of the payload, put into a text.

`https://example.com/users/{2}` of the subject `orders.7` is `https://example.com/users/7`; `{1}` is
the first token, `{subject}` the whole subject, `{user.id}` a field of a JSON object in another. A
brace itself is `{{` or `}}`.

A value cannot make another topic than the template means. Within a text it is percent-encoded, all
but the unreserved characters of RFC 3986 (letters, digits and `-._~`), so that it begins no path,
query or fragment of its own; it is refused when it is empty, and when a segment of the path becomes
`.` or `..` by it, which browsers would resolve. Only a template that is nothing but one placeholder
takes the value as it is: there, the publisher is to choose the topic.

Enters: a template; subjects, and JSON values. Leaves: topics, not checked otherwise.
Never: I/O, state.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias
from urllib.parse import quote

from noti.errors import MessageInvalid

_PIECE: Final = re.compile(r"\{\{|\}\}|\{[^{}]*\}|[{}]")
_FIELD: Final = re.compile(r"[\w$@-]+(\.[\w$@-]+)*")
_TOKEN: Final = re.compile(r"[1-9][0-9]{0,2}")
_DOTS: Final = re.compile(r"(?:^|/)\.\.?(?=[/?#]|$)")

PLACEHOLDERS_MAX: Final = 32
"""In one template: each costs a microsecond or two for each message."""


class _Token(NamedTuple):
    number: int
    """1 for the first."""


class _Field(NamedTuple):
    path: tuple[str, ...]


class _Subject(NamedTuple):
    pass


_Part: TypeAlias = str | _Token | _Field | _Subject


class BoundTopic:
    """A template for one subject, whose tokens are put in already."""

    def __init__(self, parts: Sequence[str | _Field], *, is_whole: bool) -> None:
        self._parts = parts
        self._is_whole = is_whole

    def topic(self, fields: object) -> str:
        """Return the topic; raises `MessageInvalid` when a field is missing or cannot be part."""
        texts = [
            part if isinstance(part, str) else _value(part, fields, self._is_whole)
            for part in self._parts
        ]
        topic = "".join(texts)
        if not self._is_whole:
            _check_segments(topic)
        return topic


class TopicTemplate:
    """A template, read once."""

    def __init__(self, text: str) -> None:
        """Raises `ValueError` with a clause that says what is wrong."""
        self._parts = tuple(_parts(text))
        placeholders = [part for part in self._parts if not isinstance(part, str)]
        if len(placeholders) > PLACEHOLDERS_MAX:
            raise ValueError(f"has {len(placeholders)} fields; {PLACEHOLDERS_MAX} are allowed")
        self.needs_fields = any(isinstance(part, _Field) for part in placeholders)
        """Whether it has fields of the payload."""
        self.tokens_min = max(
            (part.number for part in placeholders if isinstance(part, _Token)), default=0
        )
        """How many tokens a subject must have."""
        self._is_whole = len(self._parts) == 1 and bool(placeholders)
        shape = "".join(part if isinstance(part, str) else "x" for part in self._parts)
        self.sample = shape
        """The topic when each placeholder is `x`."""
        if not shape:
            raise ValueError("is empty; leave it out for the subject")
        if _DOTS.search(shape):
            raise ValueError("has a segment . or .., which browsers resolve; write where it leads")

    def bind(self, subject: str) -> BoundTopic:
        """Put a subject in; raises `MessageInvalid` when it has too few tokens."""
        tokens = subject.split(".")
        if self.tokens_min > len(tokens):
            raise MessageInvalid(
                f"subject {subject[:80]!r} has {len(tokens)} tokens;"
                f" the topic needs {self.tokens_min}"
            )
        bound: list[str | _Field] = []
        for part in self._parts:
            match part:
                case _Token(number):
                    bound.append(self._text(tokens[number - 1]))
                case _Subject():
                    bound.append(self._text(subject))
                case _:
                    bound.append(part)
        return BoundTopic(bound, is_whole=self._is_whole)

    def _text(self, value: str) -> str:
        return value if self._is_whole else _encoded(value)


def _parts(text: str) -> list[_Part]:
    parts: list[_Part] = []
    literal, position = "", 0
    for found in _PIECE.finditer(text):
        literal += text[position : found.start()]
        position = found.end()
        piece = found[0]
        if piece in ("{{", "}}"):
            literal += piece[0]
            continue
        if len(piece) == 1:
            raise ValueError(f"has a single {piece}; write {piece * 2} for the character itself")
        parts += [literal] if literal else []
        parts.append(_placeholder(piece[1:-1]))
        literal = ""
    literal += text[position:]
    return [*parts, literal] if literal else parts


def _placeholder(name: str) -> _Part:
    if name == "subject":
        return _Subject()
    if _TOKEN.fullmatch(name):
        return _Token(int(name))
    if name.isdecimal() or not _FIELD.fullmatch(name):
        raise ValueError(f"has {name[:80]!r}, which is no token, as 1, and no field, as user.id")
    return _Field(tuple(name.split(".")))


def _value(field: _Field, fields: object, is_whole: bool) -> str:
    value = fields
    for name in field.path:
        value = value.get(name) if isinstance(value, dict) else None
    if value is True or value is False:
        value = "true" if value else "false"
    elif isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str):
        what = "is missing" if value is None else "is neither text nor a number"
        raise MessageInvalid(f"field {'.'.join(field.path)}, of which the topic is made, {what}")
    if not value:
        raise MessageInvalid(f"field {'.'.join(field.path)}, of which the topic is made, is empty")
    return value if is_whole else _encoded(value)


def _encoded(value: str) -> str:
    if value.isalnum() and value.isascii():
        return value
    try:
        return quote(value, safe="")
    except UnicodeEncodeError:
        raise MessageInvalid("a part of the topic is half a surrogate pair") from None


def _check_segments(topic: str) -> None:
    if ("/." in topic or topic[0] == ".") and _DOTS.search(topic):
        raise MessageInvalid(f"topic {topic[:80]!r} has a segment . or .., which browsers resolve")
