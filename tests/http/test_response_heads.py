"""Promises of the heads of responses."""

from noti.http.config import HttpConfig
from noti.http.response_heads import ResponseHeads


def test_a_head_carries_what_all_responses_carry() -> None:
    heads = ResponseHeads(HttpConfig(cors_origins=("https://a.example",)))
    one = heads.head(200, [("X", "y")], "https://a.example")
    assert one.startswith(b"HTTP/1.1 200 OK\r\nx: y\r\n")
    assert b"access-control-allow-origin: https://a.example" in one
    assert one.endswith(b"\r\n\r\n")
    other = heads.head(200, [("X", "y")], "https://b.example")
    assert b"access-control-allow-origin" not in other
    assert heads.head(201, [("X", "y")], "https://a.example").startswith(b"HTTP/1.1 201 Created")
    assert b"\r\nx: z\r\n" in heads.head(200, [("X", "z")], "https://a.example")


def test_a_head_has_the_date_of_its_second() -> None:
    now = 784111777.0
    heads = ResponseHeads(HttpConfig(), lambda: now)
    assert b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n" in heads.head(200, [], "")
    now += 0.9
    assert b"\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n" in heads.head(200, [], "")
    now += 0.2
    assert b"\r\ndate: Sun, 06 Nov 1994 08:49:38 GMT\r\n" in heads.head(200, [], "")
