"""Promises of the heads of responses."""

import trio.testing

from noti.http.config import HttpConfig
from noti.http.response_heads import ResponseHeads


async def test_a_head_carries_what_all_responses_carry(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heads = ResponseHeads(HttpConfig(cors_origins=("https://a.example",)))
    one = heads.head(200, [("X", "y")], "https://a.example")
    assert one.startswith(b"HTTP/1.1 200 OK\r\nx: y\r\n")
    assert b"access-control-allow-origin: https://a.example" in one
    assert b"\r\ndate: " in one
    assert one.endswith(b"\r\n\r\n")
    other = heads.head(200, [("X", "y")], "https://b.example")
    assert b"access-control-allow-origin" not in other
    await trio.sleep(2)
    assert heads.head(200, [("X", "y")], "https://a.example").startswith(b"HTTP/1.1 200 OK")
