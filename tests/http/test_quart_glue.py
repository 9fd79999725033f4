"""Headers that come in several pieces mean the same, whichever way they came."""

from quart import Request
from werkzeug.datastructures import Headers

from noti.http.heads import RequestHead
from noti.http.quart_glue import header_of

PIECES = [("Cookie", "a=1"), ("Cookie", "b=2"), ("Authorization", "x"), ("Authorization", "y")]


async def _nothing(*_: object) -> None:
    pass


def test_pieces_are_joined_alike_on_both_ways() -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in PIECES)
    head = RequestHead()
    head.feed(f"GET / HTTP/1.1\r\n{lines}\r\n".encode())
    request = Request(
        "GET",
        "http",
        "/",
        b"",
        Headers(PIECES),
        "",
        "1.1",
        {},  # type: ignore[typeddict-item]
        send_push_promise=_nothing,
    )
    for header in (head.header, header_of(request)):
        assert header("cookie") == "a=1; b=2"
        assert header("authorization") == "x, y"
        assert header("accept") == ""
