"""Takes the messages of one subscription out of what a NATS server sends.

Enters: bytes as they come, cut anywhere. Leaves: those messages, whole; all other bytes, in order,
for nats-py.
Never: I/O; an exception but `MessageInvalid` for what is not NATS's client protocol.

nats-py hands each message over by itself, in several turns of its loop; this hands over all that
one read brought, at some 4 us each.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from noti.errors import MessageInvalid

LINE_BYTES_MAX: Final = 1024 * 1024
"""Longest line that is waited for: a greeting that names a large cluster takes some kilobytes."""

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024 + 64 * 1024
"""Longest headers and payload: as large as a server lets one set its own limit."""

PLAIN_DIGITS_MAX: Final = 7
"""Of a size that needs no other check than that it is one: ten megabytes less one byte."""

SUBJECTS_KNOWN: Final = 1024
"""Subjects whose text is kept, so that all messages of one share it; 300 kB."""

_END: Final = b"\r\n"
_STARTS: Final = frozenset(b"MmHh")
"""Of `MSG` and `HMSG`; no other command of a server begins so."""

_SIZE: Final = re.compile(rb"[0-9]{1,9}")


class MessageFrame(NamedTuple):
    """One message, as the server sent it."""

    subject: str
    reply: str
    """Where an answer goes; empty for nowhere."""
    headers: bytes
    """From their version to the empty line; empty for none."""
    payload: bytes


class StreamPlace(NamedTuple):
    """Where a message stands, as the reply subject of JetStream says."""

    stream_seq: int
    consumer_seq: int
    """One higher with each delivery."""
    published_ms: int
    """When the server took it, in milliseconds of its wall clock."""
    pending: int
    """How many more there are for the consumer."""


class FrameSplitter:
    """Of one connection."""

    def __init__(self) -> None:
        self.sid = b""
        """The id of the subscription whose messages are taken; it may change at any time."""
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._needed_bytes = 0

    def feed(self, data: bytes) -> tuple[bytes, list[MessageFrame]]:
        """Return what is not for us, and our messages; the rest waits for what follows it.

        Raises `MessageInvalid`; then nothing that follows has a meaning.
        """
        if self._rest:
            self._rest.append(data)
            self._rest_bytes += len(data)
            if self._rest_bytes < self._needed_bytes:
                return b"", []
            data = b"".join(self._rest)
            self._rest.clear()
        frames: list[MessageFrame] = []
        others: list[bytes] = []
        start = position = 0
        """Where what is not for us begins, and how far we are."""
        self._needed_bytes = 0
        while (line_end := data.find(_END, position)) >= 0:
            if data[position] not in _STARTS:
                position = line_end + 2
                continue
            words = data[position:line_end].split()
            is_plain = (
                len(words) == 5
                and words[0] == b"MSG"
                and len(words[4]) <= PLAIN_DIGITS_MAX
                and words[4].isdigit()
            )
            total, headers_bytes = (int(words[4]), 0) if is_plain else _sizes_of(words)
            after = line_end + total + 4
            if after > len(data):
                self._needed_bytes = after - position
                break
            if not data.startswith(_END, after - 2):
                raise MessageInvalid("NATS sent a message that is longer than it said")
            if words[2] == self.sid:
                if start < position:
                    others.append(data[start:position])
                body = data[line_end + 2 : after - 2]
                if is_plain:
                    # Made as a tuple is: the call that names fields takes three times as long.
                    plain = (_subject(words[1]), words[3].decode("utf-8", "replace"), b"", body)
                    frames.append(tuple.__new__(MessageFrame, plain))
                else:
                    frames.append(_frame(words, body, headers_bytes))
                start = after
            position = after
        others.append(data[start:position])
        if position < len(data):
            self._rest.append(data[position:])
            self._rest_bytes = len(data) - position
            if not self._needed_bytes and self._rest_bytes > LINE_BYTES_MAX:
                raise MessageInvalid(f"NATS sent a line of more than {LINE_BYTES_MAX} bytes")
        return b"".join(others), frames


def _sizes_of(words: Sequence[bytes]) -> tuple[int, int]:
    """Return how long headers and payload are, and how long the headers."""
    has_headers = words[0][:1] in b"Hh"
    sizes = words[-2:] if has_headers else words[-1:]
    expected = (5, 6) if has_headers else (4, 5)
    if (
        words[0].upper() != (b"HMSG" if has_headers else b"MSG")
        or len(words) not in expected
        or not all(map(_SIZE.fullmatch, sizes))
    ):
        raise MessageInvalid(f"NATS sent a line that is none of its protocol: {words[0][:16]!r}")
    total, headers_bytes = int(sizes[-1]), int(sizes[0]) if has_headers else 0
    if total > MESSAGE_BYTES_MAX or headers_bytes > total:
        raise MessageInvalid(
            f"NATS sent a message of {total} bytes, of them {headers_bytes} headers"
        )
    return total, headers_bytes


@lru_cache(maxsize=SUBJECTS_KNOWN)
def _subject(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _frame(words: Sequence[bytes], body: bytes, headers_bytes: int) -> MessageFrame:
    sizes = 2 if headers_bytes or words[0][:1] in b"Hh" else 1
    reply = words[3] if len(words) == 4 + sizes else b""
    return MessageFrame(
        words[1].decode("utf-8", "replace"),
        reply.decode("utf-8", "replace"),
        body[:headers_bytes],
        body[headers_bytes:] if headers_bytes else body,
    )


def place_of(reply: str) -> StreamPlace:
    """Return what a reply subject of JetStream says; raises `MessageInvalid` for another.

    `$JS.ACK.STREAM.CONSUMER.DELIVERED.STREAM_SEQ.CONSUMER_SEQ.TIME.PENDING`, or with the domain and
    the account before the stream, and something of the server's at the end (ADR-15).
    """
    tokens = reply.split(".")
    try:
        if len(tokens) == 9:
            start, ack, _, _, _, stream_seq, consumer_seq, published_ns, pending = tokens
        else:
            start, ack, _, _, _, _, _, stream_seq, consumer_seq, published_ns, pending, *_ = tokens
        if start != "$JS" or ack != "ACK":
            raise ValueError(reply)
        # Made as a tuple is, see above.
        return tuple.__new__(
            StreamPlace,
            (int(stream_seq), int(consumer_seq), int(published_ns) // 1_000_000, int(pending)),
        )
    except ValueError:
        raise MessageInvalid(f"{reply[:80]!r} is no reply subject of JetStream") from None


def status_of(headers: bytes) -> tuple[str, str] | None:
    """Return status and description, if the server speaks of our request; None for a message."""
    if not headers.startswith(b"NATS/1.0 "):
        return None
    line = headers[9 : headers.find(_END)].decode("utf-8", "replace")
    status, _, description = line.strip().partition(" ")
    return (status, description.strip()) if status else None
