"""Promises of the ways in which a stream is written."""

import json
from collections.abc import Iterable

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Event, Ping, TextMessage

from noti.errors import MessageInvalid
from noti.streams import sse
from noti.streams.end_reason import EndReason
from noti.streams.framing import (
    EVENT_STREAM,
    WEBSOCKET_EVENT_STREAM,
    WEBSOCKET_OBJECTS,
    Framing,
)
from tests.http.stage import notification

WEBSOCKETS = (WEBSOCKET_EVENT_STREAM, WEBSOCKET_OBJECTS)


def received(data: bytes) -> Iterable[Event]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


def texts(data: bytes) -> list[str]:
    events = received(data)
    assert all(isinstance(event, TextMessage) for event in events)
    return [event.data for event in events if isinstance(event, TextMessage)]


def objects(data: bytes) -> list[object]:
    return [json.loads(text) for text in texts(data)]


def test_an_event_is_an_object_with_all_that_a_page_needs() -> None:
    one = notification(7, data="a\nb")._replace(type="news", topics=("x", "y"))
    plain = notification(8, data="“")._replace(retry_ms=5)
    data = WEBSOCKET_OBJECTS.event(one, one.data) + WEBSOCKET_OBJECTS.event(plain, "“")
    assert objects(WEBSOCKET_OBJECTS.wire(data)) == [
        {"id": "id-7", "type": "news", "topics": ["x", "y"], "data": "a\nb"},
        {"id": "id-8", "type": "", "topics": list(plain.topics), "data": "“", "retry": 5},
    ]


def test_a_websocket_can_carry_the_text_of_an_event_stream() -> None:
    one = notification(7, data="a\nb")
    (text,) = texts(WEBSOCKET_EVENT_STREAM.event(one, one.data))
    assert text.encode() == EVENT_STREAM.event(one, one.data)


def test_text_that_has_no_bytes_never_breaks_a_frame() -> None:
    one = notification(1)
    for framing in (EVENT_STREAM, *WEBSOCKETS):
        assert b"?" in framing.event(one, "\ud800")


def test_what_is_no_event_is_told_in_the_form_of_each() -> None:
    said = [WEBSOCKET_OBJECTS.retry(500), WEBSOCKET_OBJECTS.cursor("c"), WEBSOCKET_OBJECTS.gap("g")]
    retry, cursor, gap = objects(b"".join(said))
    assert (retry, cursor) == ({"retry": 500}, {"cursor": "c"})
    assert isinstance(gap, dict)
    assert (gap["id"], gap["type"]) == (sse.EARLIEST, "noti-gap")
    assert json.loads(gap["data"]) == {"requested": "g", "resumed": "earliest"}
    form = WEBSOCKET_EVENT_STREAM
    said = [form.retry(500), form.cursor("c"), form.gap("g")]
    expected = [sse.retry(500), sse.cursor("c"), sse.gap_frame("g")]
    assert [text.encode() for text in texts(b"".join(said))] == expected


@pytest.mark.parametrize("framing", WEBSOCKETS)
def test_silence_of_a_websocket_is_broken_by_a_ping(framing: Framing) -> None:
    assert list(received(framing.wire(framing.greeting() + framing.heartbeat()))) == [Ping()]


@pytest.mark.parametrize("framing", WEBSOCKETS)
@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (EndReason.DRAINED, 1001),
        (EndReason.AGED, 1001),
        (EndReason.SHED, 1001),
        (EndReason.EXPIRED, 1008),
        (EndReason.REVOKED, 1008),
        (EndReason.OVERRUN, 1013),
    ],
)
def test_a_close_says_why_the_stream_ended(framing: Framing, reason: EndReason, code: int) -> None:
    *told, end = received(framing.ending(500, reason))
    assert end == CloseConnection(code=code, reason=reason.value)
    assert [event.data for event in told if isinstance(event, TextMessage)] != []


def test_an_event_stream_ends_with_the_order_to_come_back_and_the_last_chunk() -> None:
    ending = EVENT_STREAM.ending(500, EndReason.AGED)
    assert ending == sse.chunk(b"retry: 500\n") + b"0\r\n\r\n"


def test_cursor_that_could_forge_a_line_is_rejected() -> None:
    for framing in (EVENT_STREAM, WEBSOCKET_EVENT_STREAM):
        with pytest.raises(MessageInvalid):
            framing.cursor("a\nb")
