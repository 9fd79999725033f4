"""Reads one WebSocket of a server: the answer to its upgrade, its frames, the marks of its events.

Enters: the bytes of a connection, cut anywhere. Leaves: which events came.
Never: I/O, clocks, what a message says around the marks.

Frames of a server carry no mask, so thousands of clients receive the same bytes: what begins and
ends between two frames is read once. Pings are not answered: a run is over before it matters.
"""

from typing import Final

from noti.errors import MessageInvalid
from tests.bench.load.mark import marks_of
from tests.bench.load.reading import HEAD_BYTES_MAX, Reader, Reading, in_step_of

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
SWITCHING: Final = 101

_CLOSE: Final = 0x8
_MASKED: Final = 0x80
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_SHORT_HEAD: Final = 2


class WebSocketBody:
    """One WebSocket, as far as it has come; used like `reading.Body`."""

    __slots__ = ("_pending", "_reader", "ended", "status")

    wanted_status = SWITCHING

    def __init__(self, reader: Reader) -> None:
        self.status = 0
        """The answer's status; 0 until its head is here."""
        self.ended = False
        """Whether the server has sent a close."""
        self._reader = reader
        self._pending = b""

    def take(self, data: bytes) -> list[Reading]:
        """Return what `data` completes. Raises `MessageInvalid` for what is no WebSocket."""
        if not self._pending and self.status:
            known = self._reader.received.get(data)
            if known is not None:
                return known
            readings = self._take_frames(data)
            if not self._pending and not self.ended:
                self._reader.recognise(data, readings)
            return readings
        data = self._pending + data
        self._pending = b""
        if not self.status:
            head, blank, data = data.partition(b"\r\n\r\n")
            if not blank:
                if len(head) > HEAD_BYTES_MAX:
                    raise MessageInvalid("the response's head never ends")
                self._pending = head
                return []
            words = head.split(b" ", 2)
            if len(words) < 2 or not words[1].isdigit():
                raise MessageInvalid(f"not an HTTP/1.1 response: {head[:80]!r}")
            self.status = int(words[1])
        return self._take_frames(data)

    def _take_frames(self, data: bytes) -> list[Reading]:
        """Read all whole frames at once: marks cannot be mistaken for what is around them."""
        position, end = 0, len(data)
        while not self.ended and (size := _frame_size(data, position)) and position + size <= end:
            self.ended = data[position] & 0x0F == _CLOSE
            position += size
        self._pending = data[position:]
        whole = data if position == end else data[:position]
        found = marks_of(self._reader.run, whole)
        if not found:
            return []
        seqs = tuple(seq for seq, _ in found)
        return [Reading(seqs, in_step_of(seqs), found[0][1], last_event_id=None, retry_ms=None)]


def _frame_size(data: bytes, position: int) -> int:
    """Return how long the frame at `position` is; 0 when its head is not there as a whole."""
    if len(data) < position + _SHORT_HEAD:
        return 0
    length = data[position + 1]
    if length & _MASKED:
        raise MessageInvalid("a server's frame has a mask")
    more = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(length, 0)
    head = _SHORT_HEAD + more
    if len(data) < position + head:
        return 0
    if more:
        length = int.from_bytes(data[position + _SHORT_HEAD : position + head], "big")
    if length > FRAME_BYTES_MAX:
        raise MessageInvalid(f"a frame of {length} bytes")
    return head + length
