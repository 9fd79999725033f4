"""Reads one response of a server: its head, its chunks, its events; what many share is read once.

Enters: the bytes of a connection, cut anywhere. Leaves: which events came.
Never: I/O, clocks, a byte that the parser has not seen.

Thousands of clients receive the same bytes. So what begins and ends between two events, a chunk or
all that was received at once, is parsed once, by the same parser that parses everything else, and
recognised from then on. What is cut inside an event is parsed for each client.
"""

from dataclasses import dataclass
from typing import Final

from noti.client.event_stream import EventStreamParser
from noti.errors import MessageInvalid
from tests.bench.load.mark import marks_of

HEAD_BYTES_MAX: Final = 64 * 1024
CHUNK_BYTES_MAX: Final = 64 * 1024 * 1024
KNOWN_BYTES_MAX: Final = 64 * 1024 * 1024
"""Chunks that are remembered; the clients of one event are served within moments."""


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

    def read(self, data: bytes) -> Reading | None:
        """Return what `data` holds; None when it ends inside an event."""
        known = self._known.get(data)
        if known is not None:
            return known
        parser = EventStreamParser(_NO_ID)
        reading = self.read_with(parser, data)
        if not parser.between_events:
            return None
        self._known[data] = reading
        self._remember(data)
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
            in_step=all(later == seqs[0] + place for place, later in enumerate(seqs)),
            oldest_ns=found[0][1] if found else 0,
            last_event_id=None if parser.last_event_id == _NO_ID else parser.last_event_id,
            retry_ms=parser.retry_ms,
        )


_NO_ID: Final = "\0"
"""No stream can set this id."""


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
            return [self._read(data)] if data else []
        readings = []
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
                readings.append(self._read(data[line_end + 2 : chunk_end]))
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

    def _read(self, data: bytes) -> Reading:
        if self._parser is None:
            reading = self._reader.read(data)
            if reading is not None:
                return reading
            self._parser = EventStreamParser(_NO_ID)
        reading = self._reader.read_with(self._parser, data)
        if self._parser.between_events:
            self._parser = None
        return reading


def _size(line: bytes) -> int:
    try:
        size = int(line.split(b";", 1)[0], 16)
    except ValueError:
        raise MessageInvalid(f"not the head of a chunk: {line[:40]!r}") from None
    if not 0 <= size <= CHUNK_BYTES_MAX:
        raise MessageInvalid(f"a chunk of {size} bytes")
    return size
