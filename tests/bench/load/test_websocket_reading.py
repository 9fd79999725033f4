"""What load clients read off a WebSocket, whatever way the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.streams.websocket_frames import close, ping, text
from tests.bench.load.mark import Mark, event_text
from tests.bench.load.reading import Reader
from tests.bench.load.websocket_reading import SWITCHING, WebSocketBody

RUN = "ab12"
HEAD = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def message(seq: int, length: int = 150) -> bytes:
    return text(event_text(Mark(RUN, seq, 1000 + seq), length).encode())


@given(
    sizes=st.lists(st.sampled_from([100, 150, 70_000]), max_size=4),
    cuts=st.lists(st.integers(0, 300_000), max_size=6),
)
def test_every_event_comes_once_however_the_bytes_are_cut(
    sizes: list[int], cuts: list[int]
) -> None:
    sent = HEAD + ping() + b"".join(message(n, size) for n, size in enumerate(sizes, 1))
    body = WebSocketBody(Reader(RUN))
    places = sorted({min(cut, len(sent)) for cut in cuts} | {0, len(sent)})
    seqs = [
        seq
        for begin, end in pairwise(places)
        for reading in body.take(sent[begin:end])
        for seq in reading.seqs
    ]
    assert body.status == SWITCHING
    assert seqs == list(range(1, len(sizes) + 1))
    assert not body.ended


def test_frames_that_many_receive_are_read_once() -> None:
    reader = Reader(RUN)
    bodies = [WebSocketBody(reader) for _ in range(2)]
    for body in bodies:
        body.take(HEAD)
    first, second = (body.take(message(1) + message(2)) for body in bodies)
    assert first is second
    assert [reading.seqs for reading in first] == [(1, 2)]


def test_a_close_ends_a_websocket() -> None:
    body = WebSocketBody(Reader(RUN))
    body.take(HEAD + message(1) + close(1001))
    assert body.ended


@pytest.mark.parametrize("data", [b"\x81\x80", b"\x81\x7f" + b"\xff" * 8])
def test_what_no_server_may_send_is_refused(data: bytes) -> None:
    body = WebSocketBody(Reader(RUN))
    with pytest.raises(MessageInvalid):
        body.take(HEAD + data)
