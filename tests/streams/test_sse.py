"""Promises of the event-stream writer."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.streams import sse
from tests.http.stage import events

IDS = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs")), min_size=1, max_size=40).filter(
    lambda text: text[0] != " "
)


def test_an_event_is_written_as_the_standard_shows_it() -> None:
    assert sse.event_frame("7", "a\nb") == b"id: 7\ndata: a\ndata: b\n\n"
    assert sse.event_frame("7", "a", event="gap") == b"event: gap\nid: 7\ndata: a\n\n"
    frame = sse.event_frame("ü 7", "a", "größer", 1500)
    assert frame.decode() == "event: größer\nretry: 1500\nid: ü 7\ndata: a\n\n"


def test_an_event_without_data_still_has_a_data_line() -> None:
    assert sse.event_frame("7", "") == b"id: 7\ndata: \n\n"


@given(IDS, st.text(st.sampled_from("ab\r\n: \x00é🎈"), max_size=30))
def test_no_data_can_forge_a_field_and_all_of_it_arrives(event_id: str, data: str) -> None:
    frame = sse.event_frame(event_id, data).decode()
    assert "\r" not in frame
    (event,) = events(frame)
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    assert event == {"id": event_id, "event": "", "data": lines}


@pytest.mark.parametrize("text", ["a\n", "a\r", "a\x00b", "\x7f", "\x85", "\u200b", "\ufeff"])
def test_an_id_or_type_that_could_forge_a_line_is_refused(text: str) -> None:
    with pytest.raises(MessageInvalid, match="control character"):
        sse.event_frame(text, "x")
    with pytest.raises(MessageInvalid, match="control character"):
        sse.event_frame("7", "x", text)
    with pytest.raises(MessageInvalid, match="control character"):
        sse.cursor(text)


def test_an_empty_id_would_make_browsers_forget_theirs_and_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="empty"):
        sse.event_frame("", "x")


def test_comments_and_cursors_show_no_event() -> None:
    quiet = sse.comment() + sse.comment("a\ndata: x") + sse.retry(5) + sse.cursor("9")
    assert events(quiet.decode()) == []
    assert events((quiet + b"data: x\n\n").decode())[0]["id"] == "9"


def test_a_gap_is_reported_once_and_cannot_be_misused() -> None:
    (event,) = events(sse.gap_frame("é\n" + "x" * 999).decode())
    assert (event["event"], event["id"]) == ("noti-gap", "earliest")
    assert len(event["data"]) < 400


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8))
def test_chunks_are_what_an_http_client_expects(parts: list[bytes]) -> None:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    http.send(h11.EndOfMessage())
    http.receive_data(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    http.receive_data(b"".join(map(sse.chunk, parts)) + sse.LAST_CHUNK)
    received = b""
    assert isinstance(http.next_event(), h11.Response)
    while isinstance(event := http.next_event(), h11.Data):
        received += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert received == b"".join(parts)


def test_an_empty_chunk_is_never_written_by_accident() -> None:
    with pytest.raises(AssertionError):
        sse.chunk(b"")


def test_a_category_message_is_shown_as_promised() -> None:
    data = '{"user_id": 5, "category_from": "x y", "category_to": "", "more": 1}'
    assert sse.category_text(data) == "UserID: 5 Category: x y MatchCategory: "


@pytest.mark.parametrize(
    "data",
    [
        "",
        "hello",
        "[]",
        "7",
        "{}",
        '{"user_id":1,"category_from":"a"}',
        '{"user_id":"1","category_from":"a","category_to":"b"}',
        '{"user_id":true,"category_from":"a","category_to":"b"}',
        '{"user_id":1,"category_from":null,"category_to":"b"}',
        "[" * 100_000,
    ],
)
def test_what_is_no_category_message_is_not_shown_as_one(data: str) -> None:
    assert sse.category_text(data) is None
