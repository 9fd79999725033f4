"""Promises of the frames that a server sends, read by another implementation (wsproto)."""

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from noti.streams import websocket_frames


def received(data: bytes) -> list[object]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


@pytest.mark.parametrize("size_bytes", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_text_of_every_length_arrives_whole(size_bytes: int) -> None:
    (message,) = received(websocket_frames.text(b"x" * size_bytes))
    assert message == TextMessage(data="x" * size_bytes)


def test_joined_frames_are_messages_of_their_own() -> None:
    data = websocket_frames.text("é".encode()) + websocket_frames.ping(b"7")
    data += websocket_frames.pong(b"8") + websocket_frames.text(b"b")
    assert received(data) == [
        TextMessage(data="é"),
        Ping(payload=b"7"),
        Pong(payload=b"8"),
        TextMessage(data="b"),
    ]


def test_close_carries_its_code_and_reason() -> None:
    data = websocket_frames.close(websocket_frames.GOING_AWAY, "drained")
    assert received(data) == [CloseConnection(code=1001, reason="drained")]


def test_control_frames_are_short() -> None:
    with pytest.raises(AssertionError):
        websocket_frames.pong(b"x" * 126)
