"""Parses an event stream, piece by piece, as a browser does.

Enters: bytes of a response body, cut anywhere. Leaves: events, the last event id, the delay that
the server wants before a reconnection.
Never: I/O, clocks, an event whose blank line has not arrived.

Source: WHATWG HTML 9.2.5 (parsing an event stream) and 9.2.6 (interpreting an event stream).
"""

import re
from dataclasses import dataclass
from typing import Final

from noti.errors import MessageInvalid

EVENT_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest event that is put together; a server that never ends a line costs no more than this."""

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_DIGITS: Final = re.compile(r"[0-9]+")
_RETRY_MS_MAX: Final = 2**31 - 1
"""As browsers have it; a delay is no place for a number of a thousand digits."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One dispatched event."""

    type: str
    """`message` unless the stream names another."""
    data: str
    """Its lines, joined by LF."""
    last_event_id: str
    """The id from which a reader who has this event resumes; may come from an earlier block."""


class EventStreamParser:
    """One stream, from its first byte; a reconnection takes a new one."""

    def __init__(self, last_event_id: str = "", event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        """Begin with the id that was asked for: a stream need not repeat it."""
        self.last_event_id = last_event_id
        """What a reconnection sends as `Last-Event-ID`."""
        self.retry_ms: int | None = None
        """The newest `retry:` of this stream."""
        self.comments: list[str] = []
        """Comments of the piece that was fed last."""
        self._event_bytes_max = event_bytes_max
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._at_start = True
        self._after_cr = False
        self._id = last_event_id
        self._type = ""
        self._data: list[str] = []
        self._data_bytes = 0

    @property
    def between_events(self) -> bool:
        """Whether every line ended and no field waits for its blank line."""
        return not (self._rest_bytes or self._data or self._type or self._after_cr) and (
            self._id == self.last_event_id
        )

    def feed(self, data: bytes) -> list[StreamEvent]:
        """Return the events that `data` completes.

        Raises `MessageInvalid` when an event is longer than `event_bytes_max`.
        """
        self.comments = []
        if self._after_cr and data:
            self._after_cr = False
            if data[0] == 0x0A:
                data = data[1:]
        if b"\n" not in data and b"\r" not in data:
            self._keep(data)
            return []
        whole = b"".join((*self._rest, data)) if self._rest else data
        self._after_cr = whole.endswith(b"\r")
        *lines, rest = whole.split(b"\n") if b"\r" not in whole else _LINE_END.split(whole)
        self._rest.clear()
        self._rest_bytes = 0
        self._keep(rest)
        events: list[StreamEvent] = []
        for line in lines:
            if line and not (self._at_start and line == _BOM):
                self._field(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
            self._at_start = False
        return events

    def _keep(self, rest: bytes) -> None:
        if rest:
            self._rest.append(rest)
            self._rest_bytes += len(rest)
            self._check_length()

    def _check_length(self) -> None:
        if self._rest_bytes + self._data_bytes > self._event_bytes_max:
            raise MessageInvalid(f"an event is longer than {self._event_bytes_max} bytes")

    def _field(self, line: bytes) -> None:
        if self._at_start:
            line = line.removeprefix(_BOM)
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
                self._data_bytes += len(line)
                self._check_length()
            case "event":
                self._type = value
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if _DIGITS.fullmatch(value):
                self.retry_ms = int(value) if len(value) < 10 else _RETRY_MS_MAX
            case "":
                self.comments.append(value)
            case _:
                pass

    def _dispatch(self) -> StreamEvent | None:
        """End a block: it moves the last event id even when it holds no data."""
        self.last_event_id = self._id
        kind, self._type = self._type or "message", ""
        if not self._data:
            return None
        data = "\n".join(self._data)
        self._data.clear()
        self._data_bytes = 0
        # One line `data:` is one empty line, whose LF is stripped: an event without text. Only no
        # `data` field at all shows nothing; the standard's buffer is "\n" in the first case.
        return StreamEvent(kind, data, self.last_event_id)
