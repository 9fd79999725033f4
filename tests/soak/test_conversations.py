"""What a node says is read the same however it is cut, over each transport."""

import base64
import hashlib
import json
import random
from typing import Any

import h2.config
import h2.connection
import h2.settings
import pytest

from noti.errors import MessageInvalid
from noti.history.notification import Notification
from noti.streams.end_reason import EndReason
from noti.streams.framing import EVENT_STREAM, WEBSOCKET_EVENT_STREAM, WEBSOCKET_OBJECTS, Framing
from tests.bench.load.mark import Mark
from tests.soak.conversations import (
    OK,
    STREAM_WINDOW_BYTES,
    UNAVAILABLE,
    Conversation,
    EventStream,
    Http2,
    Request,
    Stream,
    WebSocket,
    conversation,
)
from tests.soak.fleet import SoakReader
from tests.soak.setups import Transport
from tests.soak.websockets import GAP_KEY, GUID, Receiver

RUN = "abc"
REQUEST = Request("id-0", "token", in_subprotocol=True)
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def said(framing: Framing, numbers: range) -> bytes:
    """Return all that a stream can say, and so many events."""
    parts = [framing.greeting(), framing.retry(500), framing.gap("x"), framing.cursor("id-0")]
    parts.append(framing.heartbeat())
    for number in numbers:
        data = json.dumps({"mark": str(Mark(RUN, number, 1)), "pad": "✓" * (number * 40)})
        event = Notification(number, f"id-{number}", ("news",), data, 0)
        parts.append(framing.event(event, data))
    return b"".join(map(framing.wire, filter(None, parts)))


def pieces(data: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(data)) for _ in range(20))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def accepted(there: Conversation, subprotocol: str) -> bytes:
    """Return a node's answer to the handshake of a WebSocket."""
    [key] = [
        line.split(b": ")[1]
        for line in bytes(there.outgoing).split(b"\r\n")
        if line.startswith(b"Sec-WebSocket-Key")
    ]
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    lines = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Accept: " + accept]
    lines += [b"Sec-WebSocket-Protocol: " + subprotocol.encode(), b"", b""]
    return b"\r\n".join(lines)


def read(there: Conversation, data: bytes, rng: random.Random) -> dict[str, Any]:
    seqs: list[int] = []
    last, retry = None, None
    for piece in pieces(data, rng):
        for _, readings in there.take(piece):
            for reading in readings:
                seqs += reading.seqs
                last = reading.last_event_id or last
                retry = reading.retry_ms or retry
    return {"seqs": seqs, "last": last, "retry": retry}


ALL = {"seqs": [GAP_KEY, *range(4, 40)], "last": "id-39", "retry": 500}
NUMBERS = range(4, 40)


@pytest.mark.parametrize("seed", range(5))
def test_every_transport_gives_the_same_events(seed: int) -> None:
    rng = random.Random(seed)
    events = EventStream(SoakReader(RUN))
    stream = events.begin(REQUEST)
    assert read(events, HEAD + said(EVENT_STREAM, NUMBERS), rng) == ALL
    assert (stream.status, stream.ended) == (OK, False)
    for transport, framing in (
        (Transport.OBJECTS, WEBSOCKET_OBJECTS),
        (Transport.MESSAGES, WEBSOCKET_EVENT_STREAM),
    ):
        socket = conversation(transport, SoakReader(RUN))
        stream = socket.begin(REQUEST)
        answer = accepted(socket, transport.subprotocol)
        assert read(socket, answer + said(framing, NUMBERS), rng) == ALL
        assert (stream.status, stream.ended) == (OK, False)
        assert bytes(socket.outgoing).endswith(b"\x8a\x80\0\0\0\0"), "a ping is answered"


def http_2_node(there: Http2) -> h2.connection.H2Connection:
    config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8")
    node = h2.connection.H2Connection(config)
    node.initiate_connection()
    node.receive_data(bytes(there.outgoing))
    return node


@pytest.mark.parametrize("seed", range(5))
def test_streams_of_one_connection_are_kept_apart(seed: int) -> None:
    rng, there = random.Random(seed), Http2(SoakReader(RUN))
    streams = [there.begin(REQUEST), there.begin(REQUEST)]
    node = http_2_node(there)
    data = b"".join(
        EVENT_STREAM.event(
            Notification(n, f"id-{n}", (), str(Mark(RUN, n, 1)), 0), str(Mark(RUN, n, 1))
        )
        for n in range(4, 14)
    )
    for number in (1, 3):
        node.send_headers(number, [(":status", "200")])
    for piece in pieces(data, rng):
        for number in (1, 3):
            node.send_data(number, piece)
    seqs: dict[Stream, list[int]] = {stream: [] for stream in streams}
    for piece in pieces(node.data_to_send(), rng):
        for stream, readings in there.take(piece):
            seqs[stream] += [seq for reading in readings for seq in reading.seqs]
    assert list(seqs.values()) == [list(range(4, 14))] * 2
    assert [stream.status for stream in streams] == [OK, OK]
    there.leave(streams[0])
    node.reset_stream(3)
    assert [stream.ended for stream, _ in there.take(node.data_to_send())] == [True]


@pytest.mark.parametrize(
    ("reason", "code"),
    [(EndReason.DRAINED, 1001), (EndReason.EXPIRED, 1008), (EndReason.OVERRUN, 1013)],
)
def test_code_of_a_close_is_read_and_answered(reason: EndReason, code: int) -> None:
    receiver = Receiver(SoakReader(RUN), "noti")
    receiver.take(WEBSOCKET_OBJECTS.ending(500, reason))
    assert receiver.close_code == code
    assert receiver.answers() == b"\x88\x82\0\0\0\0" + code.to_bytes(2, "big")


@pytest.mark.parametrize(
    "wrong",
    [
        b"\x81\x80\0\0\0\0",  # a mask
        b"\x01\x02{}",  # a fragment
        b"\x82\x02{}",  # binary
        b"\xc1\x02{}",  # compressed
        b"\x81\x02{}",  # no event
        b"\x81\x01{",  # no JSON
        b"\x88\x00",  # a close without a code
    ],
)
def test_what_no_node_may_say_is_not_read(wrong: bytes) -> None:
    with pytest.raises(MessageInvalid):
        Receiver(SoakReader(RUN), "noti").take(wrong)


def test_answer_that_agrees_to_something_else_is_not_read() -> None:
    for subprotocol in ("sse", "other"):
        there = WebSocket(SoakReader(RUN), "noti")
        there.begin(REQUEST)
        answer = accepted(there, subprotocol)
        with pytest.raises(MessageInvalid):
            there.take(answer)


def test_refusal_ends_the_stream_with_its_status() -> None:
    there = WebSocket(SoakReader(RUN), "noti")
    stream = there.begin(REQUEST)
    there.take(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
    assert (stream.status, stream.ended) == (503, True)


def test_websocket_that_is_turned_away_is_no_stream_that_ends() -> None:
    for told, status in (
        (WEBSOCKET_OBJECTS.turning_away(500, "this node has not caught up"), UNAVAILABLE),
        (WEBSOCKET_OBJECTS.ending(500, EndReason.OVERRUN), OK),
        (WEBSOCKET_OBJECTS.ending(500, EndReason.BEHIND), OK),
    ):
        there = WebSocket(SoakReader(RUN), "noti")
        stream = there.begin(REQUEST)
        there.take(accepted(there, "noti") + told)
        assert (stream.status, stream.ended) == (status, True)


def test_connection_may_have_the_windows_of_a_browser() -> None:
    for has_wide_windows, window_bytes in ((False, 65_535), (True, STREAM_WINDOW_BYTES)):
        there = Http2(SoakReader(RUN), has_wide_windows=has_wide_windows)
        there.begin(REQUEST)
        node = http_2_node(there)
        node.send_headers(1, [(":status", "200")])
        assert node.local_flow_control_window(1) == window_bytes


def test_nothing_more_is_asked_for_where_a_node_allows_no_stream_any_more() -> None:
    there = Http2(SoakReader(RUN))
    there.begin(REQUEST)
    node = http_2_node(there)
    there.take(node.data_to_send())
    assert there.takes_more
    node.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 0})
    there.take(node.data_to_send())
    assert not there.takes_more
