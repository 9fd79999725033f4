"""Promises of the reader of request heads."""

import pytest

from noti.web.heads import Reading, RequestHead, response_head

HEAD = (
    b"GET /.well-known/mercure?topic=a%20b&topic=c HTTP/1.1\r\nHost: x\r\n"
    b"Last-Event-ID: 7\r\nX: 1\r\nx: 2\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 40, 1000])
def test_head_is_the_same_however_it_is_cut(size: int) -> None:
    head = RequestHead()
    pieces = [HEAD[n : n + size] for n in range(0, len(HEAD), size)]
    for piece in pieces[:-1]:
        assert head.feed(piece) is Reading.MORE
    assert head.feed(pieces[-1]) is Reading.COMPLETE
    assert (head.method, head.version) == ("GET", "1.1")
    assert (head.path, head.query) == ("/.well-known/mercure", "topic=a%20b&topic=c")
    assert (head.header("last-event-id"), head.header("x"), head.header("y")) == ("7", "1, 2", "")
    assert head.received == HEAD


@pytest.mark.parametrize("behind", [HEAD, b"\x00garbage\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n"])
def test_what_comes_behind_the_head_does_not_change_it(behind: bytes) -> None:
    head = RequestHead()
    assert head.feed(HEAD + behind) is Reading.COMPLETE
    assert head.path == "/.well-known/mercure"
    assert head.header("x") == "1, 2"
    assert head.received == HEAD + behind


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b"hello\r\n\r\n", b"GET / HTTP/1.1\r\nbad header\r\n\r\n"]
)
def test_what_is_no_http_is_told_at_once(data: bytes) -> None:
    assert RequestHead().feed(data) is Reading.FOREIGN


def test_response_head_is_lines_and_an_empty_one() -> None:
    assert response_head(200, (("A-B", "c"),)) == b"HTTP/1.1 200 OK\r\na-b: c\r\n\r\n"
