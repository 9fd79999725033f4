"""Reads what the client of a WebSocket stream says, which is little: pongs, pings, a close.

Enters: bytes, as they come. Leaves: what is to be answered, as frames.
Never: I/O; what a message says: messages are checked, counted and forgotten.

Nearly all that comes is an answer to a heartbeat, whole and by itself: `is_pong` knows it, and no
reader is made for it. One that is made can be forgotten again as soon as it is `idle`.

Sources: RFC 6455, 5.2 to 5.5 (frames), 7.4 (status codes), 8.1 (UTF-8).
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import (
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason

from noti.streams import websocket_frames

MESSAGE_BYTES_MAX: Final = 64 * 1024
"""Nothing that a client says is of use; so much is borne from libraries that greet."""
PONGS_MAX: Final = 16
"""Of pings that came at once, the newest are answered (RFC 6455, 5.5.3)."""

_PONG: Final = websocket_frames.PONG | 0x80
_MASKED: Final = 0x80
_MASK_BYTES: Final = 4
_LENGTH_BYTES: Final = {126: 2, 127: 8}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client is to be sent."""

    pongs: bytes
    """Whole frames; empty for none."""
    close: bytes | None = None
    """The last frame of the connection; None while it goes on."""
    invalid: bool = False
    """Whether that is because of what the client sent."""


NO_REPLY: Final = Reply(b"")


def is_pong(data: bytes) -> bool:
    """Return whether this is one valid pong and nothing else."""
    return (
        len(data) >= 2 + _MASK_BYTES
        and data[0] == _PONG
        and data[1] == (len(data) - 2 - _MASK_BYTES) | _MASKED
        and data[1] <= websocket_frames.CONTROL_BYTES_MAX | _MASKED
    )


class WebSocketReader:
    """What one client says."""

    __slots__ = ("_bounds", "_closed", "_connection", "_message_bytes", "_message_open")

    def __init__(self) -> None:
        self._connection = Connection(ConnectionType.SERVER)
        self._bounds = _FrameBounds()
        self._message_bytes = 0
        self._message_open = False
        self._closed = False

    @property
    def idle(self) -> bool:
        """Whether nothing is unfinished: another reader can go on as well."""
        return not self._message_open and not self._closed and self._bounds.between_frames

    def feed(self, data: bytes) -> Reply:
        """Take bytes in. After a reply with a close, nothing is read any more."""
        if self._closed:
            return NO_REPLY
        pongs: deque[bytes] = deque(maxlen=PONGS_MAX)
        reply: Reply | None = None
        self._bounds.feed(data)
        self._connection.receive_data(data)
        for event in self._connection.events():
            if (reply := self._hear(event, pongs)) is not None:
                break
        if reply is None:
            return Reply(b"".join(pongs)) if pongs else NO_REPLY
        self._closed = True
        return Reply(b"".join(pongs), reply.close, reply.invalid)

    def _hear(self, event: Event, pongs: deque[bytes]) -> Reply | None:
        """Note what was said; return what ends the connection."""
        match event:
            case Ping(payload=payload):
                pongs.append(websocket_frames.pong(bytes(payload)))
            case Pong():
                pass
            case CloseConnection(code=code) if self._connection.state is ConnectionState.OPEN:
                # It is wsproto that closes.
                return _refusal(code, _REASONS.get(code, "this is no WebSocket frame"))
            case CloseConnection(code=code):
                if code == CloseReason.NO_STATUS_RCVD:
                    return Reply(b"", websocket_frames.close())
                return Reply(b"", websocket_frames.close(int(code)))
            case TextMessage() | BytesMessage():
                return self._hear_message(event)
            case _:
                raise AssertionError(f"no frame is a {type(event).__name__}")
        return None

    def _hear_message(self, message: TextMessage | BytesMessage) -> Reply | None:
        self._message_bytes += len(message.data)
        if self._message_bytes > MESSAGE_BYTES_MAX or self._bounds.frame_bytes > MESSAGE_BYTES_MAX:
            return _refusal(CloseReason.MESSAGE_TOO_BIG, _REASONS[CloseReason.MESSAGE_TOO_BIG])
        self._message_open = not (message.frame_finished and message.message_finished)
        if not self._message_open:
            self._message_bytes = 0
        return None


class _FrameBounds:
    """Follows where frames end."""

    __slots__ = ("_head", "_rest", "frame_bytes")

    def __init__(self) -> None:
        self._head = bytearray()
        self._rest = 0
        self.frame_bytes = 0
        """The payload of the frame that came last, as announced."""

    @property
    def between_frames(self) -> bool:
        return not self._head and not self._rest

    def feed(self, data: bytes) -> None:
        position, end = 0, len(data)
        while position < end:
            if self._rest:
                step = min(self._rest, end - position)
                self._rest -= step
                position += step
                continue
            self._head.append(data[position])
            position += 1
            self._begin_payload()

    def _begin_payload(self) -> None:
        """Do so if the head is complete."""
        head = self._head
        if len(head) < 2:
            return
        length = head[1] & ~_MASKED
        length_bytes = _LENGTH_BYTES.get(length, 0)
        mask_bytes = _MASK_BYTES if head[1] & _MASKED else 0
        if len(head) < 2 + length_bytes + mask_bytes:
            return
        self._rest = int.from_bytes(head[2 : 2 + length_bytes], "big") if length_bytes else length
        self.frame_bytes = self._rest
        head.clear()


_REASONS: Final[Mapping[int, str]] = {
    CloseReason.INVALID_FRAME_PAYLOAD_DATA: "this is not UTF-8",
    CloseReason.MESSAGE_TOO_BIG: f"a message may have {MESSAGE_BYTES_MAX} bytes",
}


def _refusal(code: int, reason: str) -> Reply:
    return Reply(b"", websocket_frames.close(int(code), reason), invalid=True)
