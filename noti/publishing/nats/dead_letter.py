"""What a dead letter is on the wire: a copy of a message that can never be an event, and why.

Enters: headers and payload of a stored copy.
Leaves: what it is a copy of, and how to publish that again.
Never: I/O; an order to the server that was meant for the first publication.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from noti.errors import MessageInvalid

STREAM_NAME: Final = "noti-dead-letter"
"""The stream that is made for dead letters when none takes their subject."""
SUBJECTS: Final = "noti.dead-letter.>"
"""What that stream collects."""

HEADER_REASON: Final = "Noti-Dead-Letter-Reason"
HEADER_STREAM: Final = "Noti-Dead-Letter-Stream"
"""Name of the stream that the message came from."""
HEADER_SEQUENCE: Final = "Noti-Dead-Letter-Sequence"
"""Its number there."""
HEADER_SUBJECT: Final = "Noti-Dead-Letter-Subject"
HEADER_TIME: Final = "Noti-Dead-Letter-Time"
"""When the stream got it, RFC 3339."""
HEADER_ID: Final = "Noti-Dead-Letter-Id"
"""Its Nats-Msg-Id, if it had one; the copy has one of its own, so that repeated copies are one."""
HEADER_TRUNCATED: Final = "Noti-Dead-Letter-Truncated"
"""Bytes of the payload, where it was too large to be copied."""

HEADER_MESSAGE_ID: Final = "Nats-Msg-Id"

_OWN: Final = "noti-dead-letter-"
_SERVERS: Final = "nats-"
"""Orders to the server (an expected sequence, a TTL), which a later publication cannot repeat."""

HeaderLines: TypeAlias = Sequence[tuple[str, str]]
"""Names as written, and values, in their order; a name may be repeated."""


class RepeatedHeaders(dict[str, str]):
    """Headers for nats-py, which writes what `items` says: of a dict, each name once."""

    def __init__(self, lines: HeaderLines) -> None:
        super().__init__(lines)
        self._lines = lines

    def items(self) -> Iterable[tuple[str, str]]:  # type: ignore[override]
        """Return all lines."""
        return self._lines


@dataclass(frozen=True, slots=True)
class StoredLetter:
    """A dead letter as its stream holds it."""

    place: int
    """Its number in the stream of dead letters."""
    stream: str
    sequence: int
    subject: str
    time: str
    reason: str
    payload: bytes
    truncated_bytes: int | None
    """Size of the payload where it was not kept."""
    original_id: str | None
    copy_id: str | None
    headers: HeaderLines
    """Those of the message, without orders to the server."""

    @property
    def size_bytes(self) -> int:
        """Size of the message's payload."""
        return len(self.payload) if self.truncated_bytes is None else self.truncated_bytes

    def headers_again(self, *, new_id: bool = False) -> HeaderLines:
        """Return the headers to publish the message with.

        Its id is the message's own, so that it is the same event, shown once; `new_id` makes it
        another one. Without an id of its own, or with a new one, it gets the id of this copy: so
        that JetStream takes a repeated replay once.
        """
        message_id = self.copy_id if new_id or self.original_id is None else self.original_id
        first = () if message_id is None else ((HEADER_MESSAGE_ID, message_id),)
        return (*first, *self.headers)


def stored_letter(place: int, raw_headers: bytes, payload: bytes) -> StoredLetter:
    """Return the dead letter in a stored message; raises `MessageInvalid` if it is none."""
    lines = parse_headers(raw_headers)
    ours = {name.lower(): value for name, value in lines}

    def needed(name: str) -> str:
        value = ours.get(name.lower())
        if value is None:
            raise MessageInvalid(f"has no header {name}")
        return value

    def number(name: str) -> int:
        digits = needed(name)
        # isdecimal alone takes digits of every script.
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= 20):
            raise MessageInvalid(f"has a header {name} that is no number")
        return int(digits)

    return StoredLetter(
        place=place,
        stream=needed(HEADER_STREAM),
        sequence=number(HEADER_SEQUENCE),
        subject=needed(HEADER_SUBJECT),
        time=needed(HEADER_TIME),
        reason=needed(HEADER_REASON),
        payload=payload,
        truncated_bytes=number(HEADER_TRUNCATED) if HEADER_TRUNCATED.lower() in ours else None,
        original_id=ours.get(HEADER_ID.lower()),
        copy_id=ours.get(HEADER_MESSAGE_ID.lower()),
        headers=tuple(line for line in lines if not belongs_to_one_publication(line[0])),
    )


def belongs_to_one_publication(name: str) -> bool:
    """Whether a header of this name is no part of what is copied, or published again."""
    return name.lower().startswith((_OWN, _SERVERS))


def parse_headers(raw: bytes) -> HeaderLines:
    """Return the headers in a block of them as NATS frames it; what is no header is left out."""
    lines = []
    for line in raw.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        key = name.strip().decode("ascii", "replace")
        if colon and key and key.isascii():
            lines.append((key, value.strip().decode("utf-8", "replace")))
    return tuple(lines)
