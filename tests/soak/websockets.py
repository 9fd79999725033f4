"""A WebSocket as a client that trusts nobody reads it, quickly: thousands of messages at once.

Enters: received bytes, cut anywhere. Leaves: which events came, answers to pings and to the close.
Never: I/O, clocks. A mask, a fragment, a binary message, an unknown member raises `MessageInvalid`:
a node sends none. Foreign libraries have their turn in tests/interop.

Source: RFC 6455, 4.1 (opening handshake), 5.2 (framing), 5.5 (control frames).
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from noti.errors import MessageInvalid
from noti.streams.end_reason import EndReason
from tests.bench.load.mark import marks_of
from tests.bench.load.reading import Reader, Reading, joined

TEXT, CLOSE, PONG = 0x1, 0x8, 0xA
FINAL, MASK = 0x80, 0x80
TWO_BYTES, EIGHT_BYTES = 126, 127
NORMAL: Final = 1000
TRY_AGAIN_LATER: Final = 1013
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
KNOWN_MAX: Final = 200_000
"""Messages that are remembered: many browsers get the same, in a burst (50,000) far apart."""
GAP_KEY: Final = 0
"""Stands for the news of a gap; the keys of events begin at 4."""
ZERO_MASK: Final = bytes(4)
GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
EVENT_MEMBERS: Final = {"id", "type", "topics", "data"}


def handshake(
    target: str, host: str, subprotocols: Sequence[str], headers: Sequence[str]
) -> tuple[bytes, Callable[[bytes], int]]:
    """Return a request, and what reads the head of its answer and returns the status.

    That raises `MessageInvalid` for an answer that agrees to something else: to the first of
    `subprotocols`, and to no extension, it must.
    """
    key = base64.b64encode(os.urandom(16))
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key.decode()}", "Sec-WebSocket-Version: 13"]
    lines += [f"Sec-WebSocket-Protocol: {', '.join(subprotocols)}", *headers, "", ""]
    accepted = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())

    def status_of(head: bytes) -> int:
        line, *fields = head.split(b"\r\n")
        words = line.split(b" ", 2)
        if len(words) < 2 or words[0] != b"HTTP/1.1" or not words[1].isdigit():
            raise MessageInvalid(f"not the answer to a handshake: {line[:80]!r}")
        if int(words[1]) != 101:
            return int(words[1])
        pairs = (field.partition(b":") for field in fields)
        values = {name.lower(): value.strip() for name, _, value in pairs}
        agreed = values.get(b"sec-websocket-accept"), values.get(b"sec-websocket-protocol")
        if agreed != (accepted, subprotocols[0].encode()) or b"sec-websocket-extensions" in values:
            raise MessageInvalid(f"the handshake agreed to something else: {head[:400]!r}")
        return 101

    return "\r\n".join(lines).encode(), status_of


def closing() -> bytes:
    """Return what a client says that leaves."""
    return _masked(CLOSE, NORMAL.to_bytes(2, "big"))


def _masked(opcode: int, payload: bytes) -> bytes:
    return bytes((FINAL | opcode, MASK | len(payload))) + ZERO_MASK + payload


class Receiver:
    """What comes after the handshake."""

    def __init__(self, reader: Reader, subprotocol: str) -> None:
        self.close_code = 0
        """Set once the node closed."""
        self.was_turned_away = False
        """Whether it was closed instead of a stream."""
        self._read = _object_of if subprotocol == "noti" else _event_of
        self._reader = reader
        self._pending = b""
        self._answers = bytearray()

    def answers(self) -> bytes:
        """Return what is to be sent."""
        answers, self._answers = bytes(self._answers), bytearray()
        return answers

    def take(self, data: bytes) -> list[Reading]:
        """Return what `data` completes."""
        data = self._pending + data
        readings: list[Reading] = []
        position, end = 0, len(data)
        while not self.close_code and (header := _header(data, position)) is not None:
            opcode, begin, size = header
            if begin + size > end:
                break
            payload = data[begin : begin + size]
            position = begin + size
            if opcode == TEXT:
                readings.append(self._read(self._reader, payload))
            else:
                self._control(opcode, payload)
        self._pending = data[position:]
        return [joined(readings)] if readings else []

    def _control(self, opcode: int, payload: bytes) -> None:
        match opcode:
            case 0x9:  # ping
                self._answers += _masked(PONG, payload)
            case 0x8:  # close
                if len(payload) < 2:
                    raise MessageInvalid("a close without a code")
                self.close_code = int.from_bytes(payload[:2], "big")
                reason = payload[2:].decode()
                comes_back = self.close_code == TRY_AGAIN_LATER
                self.was_turned_away = comes_back and reason != EndReason.OVERRUN.value
                self._answers += _masked(CLOSE, payload[:2])
            case unknown:
                raise MessageInvalid(f"an unexpected frame: opcode {unknown:#x}")


def _header(data: bytes, at: int) -> tuple[int, int, int] | None:
    """Return the opcode of a frame, where its payload begins, and its size; None when cut."""
    if len(data) < at + 2:
        return None
    first, size = data[at], data[at + 1]
    begin = at + 2
    if size >= TWO_BYTES:
        more = 2 if size == TWO_BYTES else 8
        if size > EIGHT_BYTES:
            raise MessageInvalid("a server's frame has a mask")
        if len(data) < begin + more:
            return None
        size = int.from_bytes(data[begin : begin + more], "big")
        begin += more
    if first & 0xF0 != FINAL or size > MESSAGE_BYTES_MAX:
        raise MessageInvalid(f"a frame that begins with {data[at : at + 10]!r}")
    return first & 0x0F, begin, size


def _event_of(reader: Reader, payload: bytes) -> Reading:
    reading = reader.read(payload)
    if reading is None:
        raise MessageInvalid(f"a message ends inside an event: {payload[:200]!r}")
    return reading


_known: dict[tuple[str, bytes], Reading] = {}


def _object_of(reader: Reader, payload: bytes) -> Reading:
    known = _known.get((reader.run, payload))
    if known is not None:
        return known
    if len(_known) >= KNOWN_MAX:
        _known.clear()
    try:
        shown = json.loads(payload)
    except ValueError as error:
        raise MessageInvalid(f"not JSON: {payload[:200]!r}") from error
    reading = _known[reader.run, payload] = _reading_of(reader.run, shown)
    return reading


def _reading_of(run: str, shown: dict[str, Any]) -> Reading:
    match shown:
        case {"id": str(event_id), "type": str(kind), "topics": list(), "data": data}:
            if shown.keys() - EVENT_MEMBERS > {"retry"}:
                raise MessageInvalid(f"unknown members of an event: {sorted(shown)}")
            if kind == "noti-gap":
                return Reading((GAP_KEY,), False, 0, event_id, None)
            seqs = tuple(seq for seq, _ in marks_of(run, str(data).encode()))
            return Reading(seqs, True, 0, event_id, shown.get("retry"))
        case {"cursor": str(cursor)} if len(shown) == 1:
            return Reading((), True, 0, cursor, None)
        case {"retry": int(delay_ms)} if len(shown) == 1:
            return Reading((), True, 0, None, delay_ms)
        case _:
            raise MessageInvalid(f"not what a node says: {shown}")
