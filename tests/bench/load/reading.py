"""Reads one response of a server: its head, its chunks, its events; what many share is read once.

Enters: the bytes of a connection, cut anywhere. Leaves: which events came.
Never: I/O, clocks, a byte that the parser has not seen.

Thousands of clients receive the same bytes. So what begins and ends between two events (all that
was received at once, a chunk, an event) is parsed once, by the same parser that parses everything
else, and recognised from then on. What is cut inside an event is parsed for each client.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from noti.client.event_stream import EventStreamParser
from noti.errors import MessageInvalid
from tests.bench.load.mark import marks_of

HEAD_BYTES_MAX: Final = 64 * 1024
CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024
KNOWN_BYTES_MAX: Final = 64 * 1024 * 1024
"""Chunks that are remembered; the clients of one event are served within moments."""
EVENT_BYTES_MAX: Final = 128 * 1024 * 1024
"""Events that are remembered: clients that lie far apart in a burst have no chunk in common."""
_BLANK_LINE: Final = b"\n\n"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one piece of a stream holds."""

    seqs: tuple[int, ...]
    """The numbers of this run's events, in their order."""
    in_step: bool
    """Whether each number follows the one before it."""
    oldest_ns: int
    """When the first of them was published; 0 when there is none."""
    last_event_id: str | None
    """The last event id at its end; None when it does not say."""
    retry_ms: int | None


class Reader:
    """Parses for all clients of one run."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.received: dict[bytes, list[Reading]] = {}
        """What clients received at once, chunks and all, when it began and ended between two."""
        self._known: dict[bytes, Reading] = {}
        self._known_bytes = 0
        self._events: dict[bytes, Reading] = {}
        """By event, without the blank line behind it."""
        self._event_bytes = 0

    def read(self, data: bytes) -> Reading | None:
        """Return what `data` holds; None when it ends inside an event."""
        known = self._known.get(data)
        if known is not None:
            return known
        *events, rest = data.split(_BLANK_LINE)
        found = self._events
        readings = [found.get(event) or self._read_event(event) for event in events]
        if rest:
            parser = EventStreamParser(_NO_ID)
            readings.append(self.read_with(parser, rest))
            if not parser.between_events:
                return None
        reading = joined(readings)
        self._known[data] = reading
        self._remember(data)
        return reading

    def _read_event(self, event: bytes) -> Reading:
        reading = self.read_with(EventStreamParser(_NO_ID), event + _BLANK_LINE)
        self._event_bytes += len(event)
        if self._event_bytes > EVENT_BYTES_MAX:
            self._events.clear()
            self._event_bytes = len(event)
        self._events[event] = reading
        return reading

    def recognise(self, received: bytes, readings: list[Reading]) -> None:
        """Note what all of `received` holds, for clients who receive the same between two chunks
        and two events."""
        self.received[received] = readings
        self._remember(received)

    def _remember(self, data: bytes) -> None:
        self._known_bytes += len(data)
        if self._known_bytes > KNOWN_BYTES_MAX:
            self._known.clear()
            self.received.clear()
            self._known_bytes = 0

    def read_with(self, parser: EventStreamParser, data: bytes) -> Reading:
        """Return what `data` holds for a client that is inside an event."""
        found = [
            mark
            for event in parser.feed(data)
            for mark in marks_of(self.run, event.data.encode("utf-8"))
        ]
        seqs = tuple(seq for seq, _ in found)
        return Reading(
            seqs=seqs,
            in_step=in_step_of(seqs),
            oldest_ns=found[0][1] if found else 0,
            last_event_id=None if parser.last_event_id == _NO_ID else parser.last_event_id,
            retry_ms=parser.retry_ms,
        )


_NO_ID: Final = "\0"
"""No stream can set this id."""


def joined(readings: Sequence[Reading]) -> Reading:
    """Return what pieces of a stream hold together that follow each other."""
    if len(readings) == 1:
        return readings[0]
    seqs: list[int] = []
    oldest_ns = 0
    last_event_id = retry_ms = None
    for reading in readings:
        seqs += reading.seqs
        oldest_ns = oldest_ns or reading.oldest_ns
        if reading.last_event_id is not None:
            last_event_id = reading.last_event_id
        if reading.retry_ms is not None:
            retry_ms = reading.retry_ms
    return Reading(tuple(seqs), in_step_of(seqs), oldest_ns, last_event_id, retry_ms)


def in_step_of(seqs: Sequence[int]) -> bool:
    """Whether each number follows the one before it."""
    return not seqs or tuple(seqs) == tuple(range(seqs[0], seqs[0] + len(seqs)))


class Body:
    """One response, as far as it has come."""

    __slots__ = ("_chunked", "_parser", "_pending", "_reader", "ended", "status")

    wanted_status = 200

    def __init__(self, reader: Reader) -> None:
        self.status = 0
        """The response's status; 0 until its head is here."""
        self.ended = False
        """Whether the body ended in order; bytes behind its end are not read."""
        self._reader = reader
        self._pending = b""
        self._chunked = False
        self._parser: EventStreamParser | None = None

    def take(self, data: bytes) -> list[Reading]:
        """Return what `data` completes. Raises `MessageInvalid` for what is no HTTP response."""
        if not self._pending and self._parser is None and self.status:
            known = self._reader.received.get(data)
            if known is not None:
                return known
            readings = self._take_body(data)
            if not self._pending and self._parser is None and not self.ended:
                self._reader.recognise(data, readings)
            return readings
        if self._pending:
            data = self._pending + data
            self._pending = b""
        if not self.status:
            data = self._take_head(data)
            if not self.status:
                return []
        return self._take_body(data)

    def _take_body(self, data: bytes) -> list[Reading]:
        if not self._chunked:
            return self._read(data) if data else []
        readings: list[Reading] = []
        position, end = 0, len(data)
        while position < end and not self.ended:
            line_end = data.find(b"\r\n", position, position + 64)
            if line_end < 0:
                if end - position >= 64:
                    raise MessageInvalid("the response's chunked coding is broken")
                break
            size = _size(data[position:line_end])
            chunk_end = line_end + 2 + size
            if not size:
                self.ended = True
            elif chunk_end + 2 > end:
                break
            else:
                readings += self._read(data[line_end + 2 : chunk_end])
            position = chunk_end + 2
        self._pending = data[position:] if position < end else b""
        return readings

    def _take_head(self, data: bytes) -> bytes:
        """Return the bytes behind the head."""
        head, blank, rest = data.partition(b"\r\n\r\n")
        if not blank:
            if len(data) > HEAD_BYTES_MAX:
                raise MessageInvalid("the response's head never ends")
            self._pending = data
            return b""
        status_line, *fields = head.split(b"\r\n")
        words = status_line.split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
            raise MessageInvalid(f"not an HTTP/1.1 response: {status_line[:80]!r}")
        self.status = int(words[1])
        self._chunked = any(
            name.lower() == b"transfer-encoding" and b"chunked" in value.lower()
            for name, _, value in (one.partition(b":") for one in fields)
        )
        return rest

    def _read(self, data: bytes) -> list[Reading]:
        readings: list[Reading] = []
        if self._parser is not None:
            begun = data.find(_BLANK_LINE)
            begun = len(data) if begun < 0 else begun + len(_BLANK_LINE)
            readings.append(self._reader.read_with(self._parser, data[:begun]))
            data = data[begun:]
            if not self._parser.between_events:  # lines end in another way
                readings.append(self._reader.read_with(self._parser, data))
                data = b""
            if self._parser.between_events:
                self._parser = None
        end = data.rfind(_BLANK_LINE)
        end = 0 if end < 0 else end + len(_BLANK_LINE)
        if end:
            reading = self._reader.read(data[:end])
            assert reading is not None
            readings.append(reading)
        if end < len(data):
            parser = EventStreamParser(_NO_ID)
            readings.append(self._reader.read_with(parser, data[end:]))
            self._parser = None if parser.between_events else parser
        return readings


def _size(line: bytes) -> int:
    try:
        size = int(line.split(b";", 1)[0], 16)
    except ValueError:
        raise MessageInvalid(f"not the head of a chunk: {line[:40]!r}") from None
    if not 0 <= size <= CHUNK_BYTES_MAX:
        raise MessageInvalid(f"a chunk of {size} bytes")
    return size
