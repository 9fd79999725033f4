"""Messages of one subscription come whole however bytes are cut, and the rest is untouched."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.publishing.nats import frames
from noti.publishing.nats.frames import FrameSplitter, MessageFrame, place_of, status_of

SID = b"77"
WORDS = st.text("abcXYZ$.-_0123456789", min_size=1, max_size=12)
BODIES = st.one_of(
    st.binary(max_size=40), st.sampled_from([b"\r\n", b"MSG a 77 2\r\n", b"x\r\nPING"])
)


def message(sid: bytes, subject: str, reply: str, headers: bytes, payload: bytes) -> bytes:
    words = [subject.encode(), sid, *([reply.encode()] if reply else [])]
    total = len(headers) + len(payload)
    if headers:
        line = b" ".join([b"HMSG", *words, b"%d" % len(headers), b"%d" % total])
    else:
        line = b" ".join([b"MSG", *words, b"%d" % total])
    return line + b"\r\n" + headers + payload + b"\r\n"


OURS = st.builds(MessageFrame, WORDS, st.one_of(st.just(""), WORDS), BODIES, BODIES)
THEIRS = st.one_of(
    st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'no'\r\n", b'INFO {"a":1}\r\n']),
    st.builds(message, st.just(b"7"), WORDS, WORDS, BODIES, BODIES),
)


def splitter() -> FrameSplitter:
    one = FrameSplitter()
    one.sid = SID
    return one


@given(st.lists(st.one_of(OURS, THEIRS), max_size=8), st.data())
def test_frames_come_whole_and_the_rest_untouched_wherever_bytes_are_cut(
    sent: list[MessageFrame | bytes], data: st.DataObject
) -> None:
    stream = b"".join(one if isinstance(one, bytes) else message(SID, *one) for one in sent)
    places = data.draw(st.lists(st.integers(0, len(stream)), max_size=8))
    cuts = sorted({0, len(stream), *places})
    others, ours, split = b"", [], splitter()
    for start, end in pairwise(cuts):
        passed, taken = split.feed(stream[start:end])
        others += passed
        ours += taken
    assert ours == [one for one in sent if isinstance(one, MessageFrame)]
    assert others == b"".join(one for one in sent if isinstance(one, bytes))


def test_large_message_in_many_pieces_is_put_together_once() -> None:
    frame = MessageFrame("a", "r", b"", b"x" * 3_000_000)
    stream, split = message(SID, *frame), splitter()
    taken = [split.feed(stream[at : at + 1000]) for at in range(0, len(stream), 1000)]
    assert [one for _, some in taken for one in some] == [frame]


@pytest.mark.parametrize(
    "line",
    [
        b"MSG a 77\r\n",
        b"MSG a 77 x\r\n",
        b"MSG a 77 -1\r\n",
        b"MSG a 77 r s 1\r\n",
        b"MSG a 77 9999999999\r\n",
        b"MSG a 77 999999999\r\n",
        b"HMSG a 77 5\r\n",
        b"HMSG a 77 5 4\r\n",
        b"HELLO\r\n",
        b"MSGX a 77 1\r\n",
    ],
)
def test_line_that_is_none_of_the_protocol_is_invalid(line: bytes) -> None:
    with pytest.raises(MessageInvalid):
        splitter().feed(line)


def test_line_without_an_end_is_invalid() -> None:
    split = splitter()
    split.feed(b"x" * frames.LINE_BYTES_MAX)
    with pytest.raises(MessageInvalid):
        split.feed(b"x")


def test_place_is_read_from_both_forms_of_reply_subjects() -> None:
    short = "$JS.ACK.jobs.noti.1.20.10.1700000000123456789.5"
    long = "$JS.ACK.hub.ACHASH.jobs.noti.1.20.10.1700000000123456789.5.random"
    assert place_of(short) == place_of(long) == (20, 10, 1700000000123, 5)


@pytest.mark.parametrize("reply", ["", "_INBOX.x", "$JS.ACK.a.b.c.d.e.f.g", "$JS.ACK.1.2.3.4.5.6"])
def test_other_reply_subjects_are_invalid(reply: str) -> None:
    with pytest.raises(MessageInvalid):
        place_of(reply)


def test_status_is_what_the_server_says_and_no_message_has_one() -> None:
    assert status_of(b"NATS/1.0 409 Batch Completed\r\nNats-Pending-Messages: 0\r\n\r\n") == (
        "409",
        "Batch Completed",
    )
    assert status_of(b"NATS/1.0 100\r\n\r\n") == ("100", "")
    assert status_of(b"NATS/1.0\r\nA: b\r\n\r\n") is None
    assert status_of(b"") is None


def test_message_that_does_not_end_where_it_said_is_refused() -> None:
    splitter = FrameSplitter()
    splitter.sid = b"9"
    with pytest.raises(MessageInvalid, match="longer than it said"):
        splitter.feed(b"MSG a 9 2\r\nabcdPING\r\n")
