"""Heads that two servers could read differently: refused on every way in, and the connection ends.

A bad head comes first on a connection (there the acceptor reads it, and Hypercorn what it does not
take), or second (there only Hypercorn reads), or over HTTP/2.
"""

import re

import h2.connection
import h2.events
import h2.settings
import h11
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from noti.address import Address
from noti.http.config import HttpConfig
from noti.http.heads import FIELDS_MAX, HeadState, RequestHead, why_head_invalid
from noti.http.strict_parsers import StrictConnection
from tests import promises
from tests.http.stage import LIMIT_S, client, hub, serving

FIRST = b"GET /page.js HTTP/1.1\r\nHost: x\r\n\r\n"
BAD = {
    "both lengths": b"GET /category HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "both lengths, the other way round": b"POST /status HTTP/1.1\r\nHost: x\r\n"
    b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
    "two lengths": b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n"
    b"Content-Length: 4\r\n\r\n",
    "two lengths in one": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 4\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\n",
    "two hosts": b"GET /category HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "the same host twice": b"GET /category HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "no host": b"GET /category HTTP/1.1\r\n\r\n",
    "a folded header": b"GET /category HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a folded length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\t3\r\n\r\n",
    "a space before the colon": b"GET /category HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
    "a space before the first header": b"GET /category HTTP/1.1\r\n Host: x\r\n\r\n",
    "a bare carriage return": b"GET /category HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
    "a zero in a header": b"GET /category HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /status HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
}
TOO_LONG = {
    "a header": b"GET /category HTTP/1.1\r\nHost: x\r\nA: " + b"y" * 5000 + b"\r\n\r\n",
    "a header without an end": b"GET /category HTTP/1.1\r\nHost: x\r\nA: " + b"y" * 5000,
    "a target": b"GET /category?" + b"y" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
}
TOO_MANY = b"GET /category HTTP/1.1\r\nHost: x\r\n" + b"a:\r\n" * FIELDS_MAX + b"\r\n"


async def answers(address: Address, *requests: bytes) -> list[bytes]:
    """Send requests, each after the last one's answer, and return the answers; the server closes
    after the last one.
    """
    with trio.fail_after(LIMIT_S):
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            received = []
            for request in requests[:-1]:
                await stream.send_all(request)
                received.append(await whole_answer(stream))
            await stream.send_all(requests[-1])
            received.append(b"".join([part async for part in stream]))
    return received


@pytest.mark.parametrize("behind", [b"\r\n", b"junk", FIRST], ids=["empty", "junk", "request"])
async def test_what_stands_behind_the_last_request_does_not_cost_its_answer(behind: bytes) -> None:
    last = b"GET /robots.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with serving(hub()) as address:
        for _ in range(5):  # two tasks race for the connection
            [answer] = await answers(address, last + behind)
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            assert answer.count(b"HTTP/1.1 ") == 1


async def whole_answer(stream: trio.SocketStream) -> bytes:
    received = b""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        if end and length and len(body) >= int(length[1]):
            return received
        more = await stream.receive_some()
        assert more, received
        received += more


@promises.AMBIGUOUS_REQUEST_REJECTED
@pytest.mark.parametrize("before", [(), (FIRST,)], ids=["first", "second"])
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
async def test_a_head_that_could_be_read_differently_is_400_and_the_end(
    bad: bytes, before: tuple[bytes, ...]
) -> None:
    there = hub()
    async with serving(there) as address:
        *good, answer = await answers(address, *before, bad)
        assert all(one.startswith(b"HTTP/1.1 200 ") for one in good)
        assert answer.startswith(b"HTTP/1.1 400 "), answer
        assert answer.count(b"HTTP/1.1 4") == 1
        assert there.clients == 0


@pytest.mark.parametrize("before", [(), (FIRST,)], ids=["first", "second"])
@pytest.mark.parametrize("long", TOO_LONG.values(), ids=TOO_LONG.keys())
async def test_a_head_that_is_too_long_is_431_and_names_the_setting(
    long: bytes, before: tuple[bytes, ...]
) -> None:
    async with serving(hub(), config=HttpConfig(head_bytes_max=4096)) as address:
        *_, answer = await answers(address, *before, long)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b"longer than 4096 bytes (--head-bytes-max)" in answer


@pytest.mark.parametrize("before", [(), (FIRST,)], ids=["first", "second"])
async def test_too_many_headers_are_431(before: tuple[bytes, ...]) -> None:
    async with serving(hub()) as address:
        *_, answer = await answers(address, *before, TOO_MANY)
        assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("keep", [False, True], ids=["first", "second"])
async def test_a_hundred_long_topics_are_allowed(keep: bool) -> None:
    there = hub()
    query = "&".join(f"topic={n:03}{'t' * 597}" for n in range(100))
    async with serving(there) as address, client(address) as one:
        if keep:
            await one.request("/page.js")
            await one.read_all()
        response = await one.request(f"/.well-known/mercure?{query}")
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("value_bytes", "status"), [(3000, b"200"), (5000, b"431"), (300_000, None)]
)
async def test_over_http_2_a_head_that_is_too_long_is_431_or_the_end(
    value_bytes: int, status: bytes | None
) -> None:
    http = caller()
    names = [(":method", "GET"), (":path", "/page.js"), (":scheme", "http"), (":authority", "x")]
    async with serving(hub(), config=HttpConfig(head_bytes_max=4096)) as address:
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            await stream.send_all(http.data_to_send())
            http.send_headers(1, [*names, ("a", "y" * value_bytes)], end_stream=True)
            with trio.fail_after(LIMIT_S):
                seen, ended = await until_answered(stream, http)
    assert seen == status
    assert ended == (status is None)


async def test_over_http_2_a_head_may_be_as_long_as_it_is_allowed_to_be() -> None:
    http = caller()
    names = [(":method", "GET"), (":path", "/page.js"), (":scheme", "http"), (":authority", "x")]
    async with serving(hub(), config=HttpConfig(head_bytes_max=256 * 1024)) as address:
        stream = await trio.open_tcp_stream(*address)
        async with stream:
            http.send_headers(1, [*names, ("a", "y" * 200_000)], end_stream=True)
            with trio.fail_after(LIMIT_S):
                assert await until_answered(stream, http) == (b"200", False)


def caller() -> h2.connection.H2Connection:
    """Return a client's end, which compresses no text: hpack takes 16 s for 300 kB."""
    http = h2.connection.H2Connection()
    encode = http.encoder.encode
    http.encoder.encode = lambda headers, huffman=True: encode(  # type: ignore[method-assign]
        headers, huffman=False
    )
    http.initiate_connection()
    return http


async def until_answered(
    stream: trio.SocketStream, http: h2.connection.H2Connection
) -> tuple[bytes | None, bool]:
    """Return the status, and whether the server ended the connection."""
    while True:
        try:
            await stream.send_all(http.data_to_send())
            received = await stream.receive_some()
        except trio.BrokenResourceError:
            received = b""
        if not received:
            return None, True
        for event in http.receive_data(received):
            if isinstance(event, h2.events.ResponseReceived):
                return dict(event.headers or ())[b":status"], False
            if isinstance(event, h2.events.ConnectionTerminated):
                return None, True


LINES = st.sampled_from(
    [
        b"Host: x\r\n",
        b"host: y\r\n",
        b"Content-Length: 3\r\n",
        b"content-length: 4\r\n",
        b"Content-Length: 3, 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"A: b\r\n",
        b" folded\r\n",
        b"\t\r\n",
        b"A : b\r\n",
        b": b\r\n",
        b"A\r\n",
        b"A:\n",
        b"A: b\rc\r\n",
        b"Accept: text/event-stream\r\n",
        b"Upgrade: h2c\r\n",
        b"\x00: b\r\n",
    ]
)
STARTS = st.sampled_from(
    [
        b"GET /category HTTP/1.1\r\n",
        b"POST /category HTTP/1.1\r\n",
        b"GET /category HTTP/1.0\r\n",
        b"GET  /category HTTP/1.1\r\n",
        b"\r\nGET /category HTTP/1.1\r\n",
        b"GET /category HTTP/1.1 \r\n",
        b"GET http://h/category HTTP/1.1\r\n",
    ]
)


@promises.AMBIGUOUS_REQUEST_REJECTED
@given(STARTS, st.lists(LINES, max_size=6), st.integers(1, 200))
@example(b"GET /category HTTP/1.1\r\n", [b"Host: x\r\n", b"A: b\r\n", b" folded\r\n"], 7)
def test_both_readers_read_the_same_or_one_refuses(
    start: bytes, lines: list[bytes], cut: int
) -> None:
    """What the acceptor takes for a stream, Hypercorn takes too, with the same meaning; and neither
    takes a head whose end others could see elsewhere."""
    data = start + b"".join(lines) + b"\r\n"
    head = RequestHead()
    for piece in (data[:cut], data[cut:]):
        if piece and head.reading is HeadState.MORE:
            head.feed(piece)
    judge = StrictConnection(65_536)
    judge.receive_data(data)
    try:
        request = judge.next_event()
    except h11.RemoteProtocolError:
        request = None
    folded = any(line[:1] in (b" ", b"\t") for line in lines)
    if isinstance(request, h11.Request):
        assert not folded
    if head.reading is HeadState.COMPLETE:
        assert not folded
        assert not (head.header("content-length") and head.header("transfer-encoding"))
        if isinstance(request, h11.Request):
            assert head.method.encode() == request.method
            assert head.path.encode() == request.target
            for name, value in request.headers:
                assert value in head.header(name.decode()).encode()
            version = request.http_version.decode()
            if why_head_invalid(version, 0, list(request.headers), 65_536) is None:
                assert head.hosts == (1 if b"host" in dict(request.headers) else 0)
