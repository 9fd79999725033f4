"""The parser of event streams against the words of WHATWG HTML 9.2.5 and 9.2.6."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.client.event_stream import EventStreamParser, StreamEvent
from noti.errors import MessageInvalid


def parsed(data: bytes, last_event_id: str = "") -> tuple[list[StreamEvent], EventStreamParser]:
    parser = EventStreamParser(last_event_id)
    return parser.feed(data), parser


def message(data: str, last_event_id: str = "") -> StreamEvent:
    return StreamEvent("message", data, last_event_id)


def test_the_standards_stock_example_is_one_event_of_three_lines() -> None:
    events, _ = parsed(b"data: YHOO\ndata: +2\ndata: 10\n\n")
    assert events == [message("YHOO\n+2\n10")]


def test_the_standards_second_example_sets_and_then_resets_the_id() -> None:
    stream = (
        b": test stream\n\ndata: first event\nid: 1\n\n"
        b"data:second event\nid\n\ndata:  third event\n"
    )
    events, parser = parsed(stream)
    assert events == [message("first event", "1"), message("second event", "")]
    assert parser.feed(b"\n") == [message(" third event", "")]


def test_the_standards_third_example_shows_empty_events_but_no_unfinished_one() -> None:
    events, parser = parsed(b"data\n\ndata\ndata\n\ndata:")
    assert events == [message(""), message("\n")]
    assert not parser.between_events


def test_one_space_behind_the_colon_is_not_part_of_the_value() -> None:
    assert parsed(b"data:test\n\ndata: test\n\n")[0] == [message("test"), message("test")]


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_line_ends_with_lf_cr_or_both(end: bytes) -> None:
    events, _ = parsed(end.join([b"event: tick", b"data: 1", b"data: 2", b"", b""]))
    assert events == [StreamEvent("tick", "1\n2", "")]


def test_a_bom_at_the_start_is_stripped_once() -> None:
    bom = b"\xef\xbb\xbf"
    assert parsed(bom + b"data: 1\n\n" + bom + b"data: 2\n\n")[0] == [message("1")]
    assert parsed(bom + b"\ndata: 1\n\n")[0] == [message("1")]
    assert parsed(bom + bom + b"data: 1\n\n")[0] == []


def test_unknown_fields_and_comments_are_ignored() -> None:
    events, parser = parsed(b":comment\nfoo: bar\nDATA: 1\n data: 1\ndata: 2\n: more\n\n")
    assert events == [message("2")]
    assert parser.comments == ["comment", "more"]


def test_a_block_without_data_shows_nothing_and_still_moves_the_id() -> None:
    events, parser = parsed(b"event: tick\nid: 7\n\ndata: 1\n\n")
    assert events == [message("1", "7")]
    assert parser.last_event_id == "7"


def test_an_id_counts_only_once_its_block_is_complete() -> None:
    _, parser = parsed(b"id: 7\ndata: 1\n", last_event_id="6")
    assert parser.last_event_id == "6"
    parser.feed(b"\n")
    assert parser.last_event_id == "7"


def test_an_id_with_nul_is_ignored_and_an_empty_one_resets() -> None:
    _, parser = parsed(b"id: 1\n\nid: 2\0\n\n")
    assert parser.last_event_id == "1"
    parser.feed(b"id:\n\n")
    assert parser.last_event_id == ""


@pytest.mark.parametrize(
    ("value", "retry_ms"),
    [("1000", 1000), ("", None), ("1.5", None), ("-1", None), ("1s", None), ("٣", None)],
)
def test_retry_is_digits_only(value: str, retry_ms: int | None) -> None:
    assert parsed(f"retry: {value}\n".encode())[1].retry_ms == retry_ms


def test_an_absurd_retry_is_capped() -> None:
    assert parsed(b"retry: " + b"9" * 5000 + b"\n")[1].retry_ms == 2**31 - 1


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert parsed(b"data: a\xffb\xc3\n\n")[0] == [message("a\ufffdb\ufffd")]


def test_an_event_longer_than_the_limit_is_rejected() -> None:
    for piece in (b"data: " + b"x" * 100, b"data: " + b"x" * 40 + b"\n"):
        parser = EventStreamParser(event_bytes_max=90)
        parser.feed(piece[:80])
        with pytest.raises(MessageInvalid, match="longer than 90 bytes"):
            parser.feed(piece * 3)


LINES = st.sampled_from(
    [
        b"data: a",
        b"data",
        b"data:\xc3\xa9",
        b"id: 1",
        b"id",
        b"event: tick",
        b"retry: 5",
        b": c",
        b"",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(
    lines=st.lists(st.tuples(LINES, ENDS), max_size=30),
    bom=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=20),
)
def test_it_does_not_matter_how_a_stream_is_cut(
    lines: list[tuple[bytes, bytes]], bom: bool, cuts: list[int]
) -> None:
    stream = b"\xef\xbb\xbf" * bom + b"".join(line + end for line, end in lines)
    whole, reference = parsed(stream)
    parser = EventStreamParser()
    places = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert [event for piece in pieces for event in parser.feed(piece)] == whole
    assert parser.last_event_id == reference.last_event_id
    assert parser.retry_ms == reference.retry_ms
    assert parser.between_events == reference.between_events
