"""Promises of cutting a connection into requests to publish."""

import pytest

from noti.http.heads import RequestHead, RequestRejection
from noti.http.publish_requests import Cut, PublishRequests, body_bytes, wants_to_publish
from tests.http.publishing_stage import PATH, post

NOT_OURS = {
    "another method": post().replace(b"POST", b"PUT", 1),
    "a stream": f"GET {PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "another path": post().replace(b"mercure ", b"mercury ", 1),
    "below the path": post().replace(b"mercure ", b"mercure/x ", 1),
    "HTTP/1.0": post().replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "no host": post().replace(b"Host: x\r\n", b"", 1),
    "two hosts": post(b"", "old", "Host: y"),
    "chunks": post(b"", "old", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b""),
    "two lengths": post(b"", "old", "Content-Length: 3"),
    "a length that is none": post().replace(b"Length: ", b"Length: +", 1),
    "a length beyond measure": post(b"", length=10**18),
    "an upgrade": post(b"", "old", "Connection: upgrade", "Upgrade: h2c"),
    "a folded header": post(b"", "old", "A: b\r\n c"),
    "an empty line before": b"\r\n" + post(),
    "no HTTP": b"nonsense\r\n\r\n",
}


def stream(data: bytes = b"", head_bytes_max: int = 4096) -> PublishRequests:
    one = PublishRequests(head_bytes_max)
    one.feed(data)
    return one


@pytest.mark.parametrize("data", NOT_OURS.values(), ids=NOT_OURS)
def test_what_is_for_others_is_left_whole(data: bytes) -> None:
    one = stream(data)
    assert one.take_head() is Cut.ELSEWHERE
    assert one.take_rest() == data


@pytest.mark.parametrize("data", NOT_OURS.values(), ids=NOT_OURS)
def test_the_acceptor_sends_here_what_is_taken_here_and_nothing_else(data: bytes) -> None:
    head = RequestHead()
    head.feed(data)
    assert not wants_to_publish(head)
    head = RequestHead()
    head.feed(post())
    assert wants_to_publish(head)


def test_requests_are_cut_wherever_the_bytes_are() -> None:
    requests = [post(b"topic=a&data=%d" % number, "old", f"X: {number}") for number in range(3)]
    data = b"".join(requests)
    for size in (1, 2, 3, 7, 64, len(data)):
        one, bodies = stream(), []
        head = None
        for start in range(0, len(data), size):
            one.feed(data[start : start + size])
            while True:
                if head is None:
                    got = one.take_head()
                    if got is Cut.MORE:
                        break
                    assert isinstance(got, RequestHead)
                    head = got
                body = one.take_body(body_bytes(head))
                if body is None:
                    break
                bodies.append((body, head.header("x")))
                head = None
        assert bodies == [(b"topic=a&data=%d" % number, str(number)) for number in range(3)]
        assert not one.waiting


def test_a_head_that_comes_again_is_the_same() -> None:
    one = stream(post() * 2)
    first = one.take_head()
    one.take_body(body_bytes(first)) if isinstance(first, RequestHead) else None
    assert one.take_head() is first


def test_a_head_that_only_begins_like_the_last_one_is_read_anew() -> None:
    one = stream(post(b"") + post(b"", "old", "X: 1"))
    one.take_head()
    second = one.take_head()
    assert isinstance(second, RequestHead)
    assert second.header("x") == "1"


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_that_is_too_long_is_refused(end: bytes) -> None:
    one = stream(post(b"", "old", "X: " + "y" * 5000)[:-4] + end)
    got = one.take_head()
    assert isinstance(got, RequestRejection)
    assert got.status == 431


def test_a_body_can_be_dropped_as_it_comes() -> None:
    one = stream(b"abc")
    assert one.drop(5) == 2
    one.feed(b"defg")
    assert one.drop(2) == 0
    assert one.take_rest() == b"fg"
