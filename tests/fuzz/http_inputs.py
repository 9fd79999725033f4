"""Decoders of HTTP for `targets.py`: heads, forms, publishers' connections.

Enters: bytes. Leaves: nothing, or an `AssertionError`, or what the decoder let out.
Never: sockets.
"""

from collections.abc import Iterator
from urllib.parse import parse_qsl

import h11
from wsproto.connection import Connection, ConnectionType
from wsproto.events import CloseConnection, Pong

from noti.authorization.grant import Dialect, Grant
from noti.history.selectors import ALL_TOPICS
from noti.http.answers import Answer
from noti.http.forms import parse_form
from noti.http.heads import HeadState, RequestHead
from noti.http.publish import PublishRequest, draft_of
from noti.http.publish_requests import PublishRequests, body_bytes
from noti.http.strict_parsers import StrictConnection
from noti.http.subscription_request import MATCHERS_MAX, cursor_parameters, parameters_of
from noti.streams.websocket_frames import CONTROL_BYTES_MAX
from noti.streams.websocket_reader import PONGS_MAX, WebSocketReader
from tests.streams.websocket_clients import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    close_with,
    masked,
)

HEADS = [
    b"GET /.well-known/mercure?topic=a HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    b"GET /category HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nA: b\r\n c\r\n\r\n",
]


def read_head(data: bytes) -> None:
    """Have both readers of heads read it: they read the same, or one of them refuses."""
    head = RequestHead()
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        if piece and head.reading is HeadState.MORE:
            head.feed(piece)
    judge = StrictConnection(65_536)
    judge.receive_data(data)
    try:
        request = judge.next_event()
    except h11.RemoteProtocolError:
        return
    if head.reading is not HeadState.COMPLETE or not isinstance(request, h11.Request):
        return
    assert head.method.encode() == request.method
    assert f"{head.path}?{head.query}".strip("?").encode("latin-1") == request.target.strip(b"?")
    assert head.hosts == sum(name == b"host" for name, _ in request.headers)
    for name, value in request.headers:
        # h11 returns codings of Transfer-Encoding, which ignore case, in lower case.
        ours = head.header(name.decode("latin-1")).encode("latin-1")
        assert value.strip().lower() in ours.lower()


WEBSOCKETS = [
    masked(PING, b"a") + masked(TEXT, b"hello", final=False) + masked(CONTINUATION, b"b"),
    masked(TEXT, "ü".encode()) + masked(BINARY, b"b" * 300) + masked(PONG) + close_with(1000, b"c"),
]


def read_websocket(data: bytes) -> None:
    """Hear a client in two pieces: whatever it says, the answers are frames, and short."""
    reader = WebSocketReader()
    replies = [reader.feed(piece) for piece in (data[: len(data) // 2], data[len(data) // 2 :])]
    judge = Connection(ConnectionType.CLIENT)
    for reply in replies:
        assert len(reply.pongs) <= PONGS_MAX * (2 + CONTROL_BYTES_MAX)
        judge.receive_data(reply.pongs + (reply.close or b""))
    events = list(judge.events())
    closes = [event for event in events if isinstance(event, CloseConnection)]
    assert [event for event in events if not isinstance(event, Pong)] == closes
    assert len(closes) == sum(reply.close is not None for reply in replies) <= 1


HUB_URL = "http://x/.well-known/mercure"

SUBSCRIPTIONS = [
    b"topic=%2Fu%2F{id}&topic=*&lastEventID=7&authorization=x&cursor=1&last=20",
    b"match=a&match_exact=b&match_urlpattern=%2Fu%2F:id&last_event_id=%C3%BC&Match=x",
]


def read_subscription(data: bytes) -> None:
    """Read a query, and a form: what is invalid in them is said in one line, without a token."""
    query = data.decode("latin-1")
    for asked in (
        parameters_of(query, frozenset(Dialect), HUB_URL),
        parameters_of("match=a", frozenset(Dialect), HUB_URL, data),
        cursor_parameters(query),
    ):
        assert len(asked.problem.splitlines()) <= 1
        assert not (asked.problem and asked.selectors)
        assert len(asked.selectors) <= MATCHERS_MAX


FORMS = [
    b"topic=https%3A%2F%2Fexample.com%2F1&topic=b&data=a+b%0Ac&id=1&type=t&retry=5&private=on",
    "topic=ü&data=%C3%BC&=&&x".encode(),
]


def read_form(data: bytes) -> None:
    """Read a form as `urllib` does, and make a draft of it, or say in one line why not."""
    fields = parse_form(data, 4096)
    assert fields == parse_qsl(data.decode(), keep_blank_values=True, errors="strict")
    for dialect in Dialect:
        grant = Grant(dialect, publish=frozenset({ALL_TOPICS}))
        request = PublishRequest("/.well-known/mercure", "", lambda _: "", "192.0.2.1", HUB_URL)
        outcome = draft_of(grant, request, data)
        if isinstance(outcome, Answer):
            assert outcome.status in (400, 403, 413)
            assert len(outcome.body.splitlines()) == 1


PUBLISHERS = [
    b"POST /.well-known/mercure HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\ntopic=a" * 2,
    b"POST /.well-known/mercure HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
]


def read_publisher(data: bytes) -> None:
    """Cut a connection into requests; it makes no difference in which pieces it came."""
    assert len({tuple(_requests_of(data, size)) for size in (1, 7, max(1, len(data)))}) == 1


def _requests_of(data: bytes, size: int) -> Iterator[tuple[str, bytes]]:
    stream, head = PublishRequests(4096), None
    for start in range(0, len(data), size):
        stream.feed(data[start : start + size])
        while True:
            if head is None:
                got = stream.take_head()
                if not isinstance(got, RequestHead):
                    break
                head = got
            body = stream.take_body(body_bytes(head))
            if body is None:
                break
            yield head.query, body
            head = None
