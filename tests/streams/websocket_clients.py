"""Frames as clients of WebSockets send them, right and wrong."""

import os

from noti.streams import websocket_frames


def masked(
    opcode: int, payload: bytes = b"", *, final: bool = True, reserved: int = 0, mask: bool = True
) -> bytes:
    """Return a frame of a client."""
    whole = bytearray(websocket_frames.frame(opcode, payload))
    head, key = whole[: len(whole) - len(payload)], os.urandom(4)
    head[0] = (0x80 if final else 0) | reserved << 4 | opcode
    if not mask:
        return bytes(head) + payload
    head[1] |= 0x80
    return bytes(head) + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def close_with(code: int, reason: bytes = b"") -> bytes:
    """Return a client's close."""
    return masked(CLOSE, code.to_bytes(2, "big") + reason)
