"""Promises of the reader of request heads."""

import pytest

from noti.http.heads import (
    BUSY,
    FIELDS_MAX,
    RETRY_AFTER,
    TOO_MANY_FIELDS,
    HeadState,
    RequestHead,
    rejection_response,
    response_head,
    why_head_invalid,
)

HEAD = (
    b"GET /.well-known/mercure?topic=a%20b&topic=c HTTP/1.1\r\nHost: x\r\n"
    b"Last-Event-ID: 7\r\nX: 1\r\nx: 2\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 40, 1000])
def test_head_is_the_same_however_it_is_cut(size: int) -> None:
    head = RequestHead()
    pieces = [HEAD[n : n + size] for n in range(0, len(HEAD), size)]
    for piece in pieces[:-1]:
        assert head.feed(piece) is HeadState.MORE
    assert head.feed(pieces[-1]) is HeadState.COMPLETE
    assert (head.method, head.version) == ("GET", "1.1")
    assert (head.path, head.query) == ("/.well-known/mercure", "topic=a%20b&topic=c")
    assert (head.header("last-event-id"), head.header("x"), head.header("y")) == ("7", "1, 2", "")
    assert head.received == HEAD


@pytest.mark.parametrize("behind", [HEAD, b"\x00garbage\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"])
def test_what_comes_behind_the_head_does_not_change_it(behind: bytes) -> None:
    head = RequestHead()
    assert head.feed(HEAD + behind) is HeadState.COMPLETE
    assert head.path == "/.well-known/mercure"
    assert head.header("x") == "1, 2"
    assert head.received == HEAD + behind


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
)
def test_what_is_no_http_is_reported_at_once(data: bytes) -> None:
    assert RequestHead().feed(data) is HeadState.FOREIGN


def test_a_head_is_too_long_as_soon_as_it_is_and_not_for_what_comes_behind_it() -> None:
    head = RequestHead()
    for count in range(len(HEAD) - 1):
        assert head.excess(count + 1) is None
        head.feed(HEAD[count : count + 1])
        assert head.excess(count) is not None
    head.feed(HEAD[-1:] + HEAD * 3)
    assert head.excess(len(HEAD)) is None
    assert head.excess(len(HEAD) - 1) is not None


def test_headers_are_counted_and_no_longer_kept_beyond_the_limit() -> None:
    head = RequestHead()
    head.feed(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (FIELDS_MAX + 100))
    assert head.excess(1_000_000) == TOO_MANY_FIELDS
    assert len(head.header("a")) == len("b, ") * FIELDS_MAX - 2


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.1", {"host": "x"}, None),
        ("1.0", {}, None),
        ("2", {}, None),
        ("1.1", {}, 400),
        ("1.1", {"host": "x", "content-length": "3"}, None),
        ("1.1", {"host": "x", "transfer-encoding": "chunked"}, None),
        ("1.0", {"host": "x", "transfer-encoding": "chunked"}, 400),
        ("1.1", {"host": "x", "transfer-encoding": "chunked", "content-length": "3"}, 400),
        ("1.1", {"host": "x", "a": "y" * 5000}, 431),
    ],
)
def test_what_a_parser_lets_pass_is_judged(
    version: str, headers: dict[str, str], status: int | None
) -> None:
    fields = [(name.encode(), value.encode()) for name, value in headers.items()]
    rejection = why_head_invalid(version, 4, fields, 4096)
    assert (rejection and rejection.status) == status


def test_a_rejection_gives_its_reason_and_ends_the_connection() -> None:
    response = rejection_response(BUSY, RETRY_AFTER)
    head, _, body = response.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n")
    assert b"connection: close" in head
    assert b"content-length: %d" % len(body) in head


def test_response_head_is_lines_and_an_empty_one() -> None:
    assert response_head(200, (("A-B", "c"),)) == b"HTTP/1.1 200 OK\r\na-b: c\r\n\r\n"
