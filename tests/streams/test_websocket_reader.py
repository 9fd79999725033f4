"""What clients of WebSockets may say, and what they are answered: what Autobahn's cases ask.

Cases about echoed messages ask here that the message is taken in silence and the connection goes
on; the numbers are those of Autobahn's test suite.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.streams import websocket_frames
from noti.streams.websocket_reader import (
    MESSAGE_BYTES_MAX,
    NO_REPLY,
    PONGS_MAX,
    Reply,
    WebSocketReader,
    is_pong,
)
from tests.streams.websocket_cases import CASES, Case
from tests.streams.websocket_clients import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_with,
    masked,
)


def hear(data: bytes, piece_bytes: int = 512) -> tuple[list[Reply], WebSocketReader]:
    """Let a reader hear something in pieces; return what is answered."""
    reader = WebSocketReader()
    replies = []
    for at in range(0, len(data), piece_bytes):
        replies.append(reader.feed(data[at : at + piece_bytes]))
        if replies[-1].close is not None:
            break
    return replies, reader


@pytest.mark.parametrize("piece_bytes", [1, 512, 1 << 20])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_client_is_answered_as_the_protocol_has_it(case: Case, piece_bytes: int) -> None:
    replies, reader = hear(case.said, piece_bytes)
    pongs = b"".join(reply.pongs for reply in replies)
    closes = [reply.close for reply in replies if reply.close is not None]
    assert pongs == b"".join(map(websocket_frames.pong, case.pongs))
    if case.close is None:
        assert not closes
        assert reader.idle == case.whole
    else:
        assert [close[2:4] for close in closes] == [case.close.to_bytes(2, "big")]
        assert replies[-1].invalid == case.invalid


def test_close_without_a_code_is_answered_without_one() -> None:
    [reply] = hear(masked(CLOSE))[0]
    assert reply == Reply(b"", websocket_frames.close())


def test_pings_before_a_close_are_answered_before_it() -> None:
    [reply] = hear(masked(PING, b"a") + close_with(1000) + masked(PING, b"b"))[0]
    assert reply == Reply(websocket_frames.pong(b"a"), websocket_frames.close(1000))


def test_nothing_is_answered_after_a_close() -> None:
    _, reader = hear(close_with(1000))
    assert reader.feed(masked(PING)) is NO_REPLY


def test_of_many_pings_the_newest_are_answered() -> None:
    """So that a flood of them costs no memory."""
    [reply] = hear(b"".join(masked(PING, b"%d" % n) for n in range(60)))[0]
    newest = range(60 - PONGS_MAX, 60)
    assert reply.pongs == b"".join(websocket_frames.pong(b"%d" % n) for n in newest)


@pytest.mark.parametrize("fragment_bytes", [100, 1000])
def test_message_without_end_is_too_long(fragment_bytes: int) -> None:
    reader = WebSocketReader()
    replies = [reader.feed(masked(TEXT, b"a", final=False))]
    more = masked(CONTINUATION, b"a" * fragment_bytes, final=False)
    while replies[-1].close is None:
        replies.append(reader.feed(more))
        assert len(replies) * fragment_bytes <= MESSAGE_BYTES_MAX + 2 * fragment_bytes
    assert replies[-1].close[2:4] == (1009).to_bytes(2, "big")
    assert replies[-1].invalid


def test_frame_that_announces_too_much_is_refused_at_its_first_byte() -> None:
    head = b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"mask"
    [reply] = hear(head + b"a")[0]
    assert reply.close is not None
    assert reply.close[2:4] == (1009).to_bytes(2, "big")


def test_reader_is_idle_between_messages_only() -> None:
    reader = WebSocketReader()
    for data in (masked(TEXT, b"a", final=False), masked(PING), masked(CONTINUATION)[:3]):
        reader.feed(data)
        assert not reader.idle
    assert WebSocketReader().idle


@given(st.binary(max_size=125))
def test_whole_pong_is_known_without_a_reader(payload: bytes) -> None:
    pong = masked(PONG, payload)
    assert is_pong(pong)
    assert hear(pong)[0] == [NO_REPLY]
    assert not is_pong(pong[:-1])
    assert not is_pong(pong + b"a")
    assert not is_pong(masked(PING, payload))
    assert not is_pong(masked(PONG, payload, mask=False))
    assert not is_pong(masked(PONG, payload, reserved=1))


@given(st.binary(max_size=300), st.integers(1, 50))
def test_pieces_of_what_is_said_do_not_change_the_answer(said: bytes, piece_bytes: int) -> None:
    """Whatever it is: nothing else comes out than an answer."""
    at_once, reader = hear(said, 1 << 20)
    in_pieces, other = hear(said, piece_bytes)

    def told(replies: list[Reply]) -> tuple[bytes | None, bool]:
        return (replies[-1].close, replies[-1].invalid) if replies else (None, False)

    assert told(at_once) == told(in_pieces)
    assert reader.idle == other.idle
