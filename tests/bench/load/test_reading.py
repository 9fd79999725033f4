"""What load clients read off a connection, whatever way the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.client.event_stream import EventStreamParser
from noti.errors import MessageInvalid
from tests.bench.load.mark import EVENT_BYTES, Mark, event_text, marks_of
from tests.bench.load.reading import Body, Reader, Reading

RUN = "ab12"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PLAIN = HEAD + b"\r\n"


def frame(seq: int) -> bytes:
    return f"id: id-{seq}\ndata: {event_text(Mark(RUN, seq, 1000 + seq))}\n\n".encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def seqs(readings: list[Reading]) -> list[int]:
    return [seq for reading in readings for seq in reading.seqs]


def test_an_event_has_the_wanted_length_and_gives_its_mark_back() -> None:
    for seq in (1, 99, 123_456):
        text = event_text(Mark(RUN, seq, 123_456_789_012))
        assert len(text) == EVENT_BYTES
        assert marks_of(RUN, text.encode()) == [(seq, 123_456_789_012)]
        assert marks_of("ffff", text.encode()) == []


def test_a_chunk_that_many_receive_is_parsed_once() -> None:
    reader = Reader(RUN)
    stream = CHUNKED + chunk(frame(1) + frame(2)) + chunk(b": \nid: x\n\n")
    first, second = Body(reader).take(stream), Body(reader).take(stream)
    assert seqs(first) == [1, 2]
    assert first[0].in_step
    assert first[0].oldest_ns == 1001
    assert [reading.last_event_id for reading in first] == ["id-2", "x"]
    assert all(one is other for one, other in zip(first, second, strict=True))


@given(
    groups=st.lists(st.integers(1, 4), max_size=6),
    splits=st.lists(st.integers(0, 5000), max_size=30),
    cuts=st.lists(st.integers(0, 5000), max_size=30),
    chunked=st.booleans(),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_every_event_is_read_once_however_it_is_chunked_and_cut(
    groups: list[int], splits: list[int], cuts: list[int], chunked: bool, line_end: bytes
) -> None:
    last = sum(groups)
    body = b"".join(frame(seq) for seq in range(1, last + 1)).replace(b"\n", line_end)
    stream = CHUNKED + b"".join(map(chunk, _cut(body, splits))) if chunked else PLAIN + body
    received = Body(Reader(RUN))
    readings = [reading for piece in _cut(stream, cuts) for reading in received.take(piece)]
    assert seqs(readings) == list(range(1, last + 1))
    ids = [reading.last_event_id for reading in readings if reading.last_event_id is not None]
    assert ids[-1:] == [f"id-{last}"] * bool(last)
    assert received.status == 200


def test_clients_that_lie_apart_parse_their_common_events_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []
    read_with = Reader.read_with

    def counted(self: Reader, parser: EventStreamParser, data: bytes) -> Reading:
        parsed.append(data)
        return read_with(self, parser, data)

    monkeypatch.setattr(Reader, "read_with", counted)
    reader = Reader(RUN)
    frames = [frame(seq) for seq in range(1, 10)]
    for begin in range(5):
        readings = Body(reader).take(PLAIN + b"".join(frames[begin:]))
        assert seqs(readings) == list(range(begin + 1, 10))
        assert readings[-1].last_event_id == "id-9"
        assert readings[0].in_step
    assert parsed == frames


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(edges)]


def test_the_last_chunk_ends_a_body() -> None:
    body = Body(Reader(RUN))
    assert seqs(body.take(CHUNKED + chunk(b"retry: 5\n\n") + b"0\r\n\r\n" + b"rubbish")) == []
    assert body.ended


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"x" * 100_000,
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-5\r\n",
        CHUNKED + b"x" * 100,
        CHUNKED + b"fffffffff\r\n",
    ],
)
def test_what_is_no_response_is_refused(answer: bytes) -> None:
    with pytest.raises(MessageInvalid):
        Body(Reader(RUN)).take(answer)
