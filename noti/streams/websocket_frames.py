"""Writes the frames that a server sends over WebSocket.

They carry no mask (RFC 6455, 5.1), so that one frame serves all clients who are to get it.

Source: RFC 6455, 5.2 (framing), 5.5 (control frames), 7.4 (status codes).
"""

from typing import Final

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FINAL: Final = 0x80
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127
_TWO_BYTES_MAX: Final = 0xFFFF

CONTROL_BYTES_MAX: Final = 125
"""The payload of a control frame (RFC 6455, 5.5)."""

GOING_AWAY: Final = 1001
POLICY_VIOLATION: Final = 1008
TRY_AGAIN_LATER: Final = 1013
"""Status codes of a close (RFC 6455, 7.4.1, and IANA's registry)."""


def text(payload: bytes) -> bytes:
    """Return a whole text message; `payload` is UTF-8."""
    return frame(TEXT, payload)


def ping(payload: bytes = b"") -> bytes:
    """Return a ping; the client sends its payload back."""
    return _control(PING, payload)


def pong(payload: bytes) -> bytes:
    """Return the answer to a ping with this payload."""
    return _control(PONG, payload)


def close(code: int | None = None, reason: str = "") -> bytes:
    """Return a close, with a status code if there is one; `reason` is short, and for people."""
    if code is None:
        return _control(CLOSE, b"")
    return _control(CLOSE, code.to_bytes(2, "big") + reason.encode())


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one frame that is a whole message."""
    size_bytes = len(payload)
    first = (_FINAL | opcode).to_bytes(1, "big")
    if size_bytes < _TWO_BYTES:
        return first + size_bytes.to_bytes(1, "big") + payload
    if size_bytes <= _TWO_BYTES_MAX:
        return first + bytes((_TWO_BYTES,)) + size_bytes.to_bytes(2, "big") + payload
    return first + bytes((_EIGHT_BYTES,)) + size_bytes.to_bytes(8, "big") + payload


def _control(opcode: int, payload: bytes) -> bytes:
    assert len(payload) <= CONTROL_BYTES_MAX, "a control frame is short"
    return frame(opcode, payload)
