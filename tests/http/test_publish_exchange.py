"""Promises of the order of requests and answers on one publisher's connection."""

import re
from collections.abc import Iterable

import pytest

from noti.http.config import HttpConfig
from noti.http.publish_endpoint import PublishEndpoint
from noti.http.publish_exchange import CONTINUE, REQUESTS_MAX, Phase, PublishExchange
from noti.http.response_heads import ResponseHeads
from tests import promises
from tests.http.publishing_stage import Log, Publishers, post

GET = b"GET /category HTTP/1.1\r\nHost: x\r\n\r\n"


class Fixture:
    """One connection, without a socket."""

    def __init__(self, log: Log | None = None, **settings: int) -> None:
        config = HttpConfig(**settings)  # type: ignore[arg-type]
        self.log = log or Log()
        self.endpoint = PublishEndpoint(self.log, Publishers(), config)
        self.notes = 0
        self.exchange = PublishExchange(
            "192.0.2.1", self.endpoint, ResponseHeads(config), config, self.note
        )
        self.out = b""

    def note(self) -> None:
        self.notes += 1

    def take(self, *parts: bytes) -> None:
        for data in parts:
            self.exchange.receive(data)
            self.go_on()

    def go_on(self) -> None:
        for one in self.exchange.advance():
            self.endpoint.submit(*one)

    def phase(self) -> Phase:
        return self.exchange.phase

    def statuses(self) -> list[int]:
        self.out += self.exchange.take_output()
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", self.out)]


@pytest.fixture(autouse=True)
async def running() -> None:
    """Answers carry the time, which is Trio's."""


def pieces(data: bytes, size: int) -> Iterable[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


async def test_requests_may_come_in_pieces_of_any_size() -> None:
    data = post(b"topic=a&id=1") + post(b"topic=a&id=22") + post(b"x=y") + post(b"topic=a&id=4")
    for size in range(1, len(data) + 1):
        one = Fixture()
        one.take(*pieces(data, size))
        assert one.statuses() == [200, 200, 400, 200]
        assert [draft.id for draft in one.log.drafts] == ["1", "22", "4"]
        assert one.phase() is Phase.IDLE


@promises.PUBLISHER_GETS_ONE_ANSWER
async def test_several_requests_commit_at_once_and_are_answered_in_their_order() -> None:
    one = Fixture(Log(held=True))
    one.take(b"".join(post(b"topic=a&id=%d" % number) for number in range(5)))
    assert len(one.log.waiting) == 5
    assert one.phase() is Phase.COMMIT
    one.log.commit(4, last_first=True)
    assert re.findall(rb"\r\n\r\n(\d)", one.exchange.take_output() + b" ") == [
        b"0",
        b"1",
        b"2",
        b"3",
    ]
    one.log.commit()
    assert one.statuses() == [200]


async def test_an_answer_waits_for_those_before_it() -> None:
    one = Fixture(Log(held=True))
    one.take(post(b"topic=a"), post(b"bad"))
    assert one.statuses() == []
    one.log.commit()
    assert one.statuses() == [200, 400]


async def test_no_more_is_read_when_many_are_unanswered_and_the_rest_is_read_later() -> None:
    one = Fixture(Log(held=True))
    one.take(post() * (REQUESTS_MAX + 2))
    assert len(one.log.waiting) == REQUESTS_MAX
    assert not one.exchange.wants_input
    assert one.exchange.paused
    one.log.commit(1)
    assert one.statuses() == [200]
    assert one.exchange.wants_input
    one.go_on()
    one.log.commit()
    one.exchange.take_output()
    one.go_on()
    assert len(one.log.drafts) == REQUESTS_MAX + 2


async def test_a_client_that_asks_is_told_to_go_on_before_its_body() -> None:
    one = Fixture()
    head, _, body = post(b"topic=a", "old", "Expect: 100-continue").partition(b"\r\n\r\n")
    one.take(head + b"\r\n\r\n")
    assert one.exchange.take_output() == CONTINUE
    assert one.phase() is Phase.BODY
    one.take(body)
    assert one.statuses() == [200]


async def test_a_client_whose_body_is_here_already_is_not_told_to_go_on() -> None:
    one = Fixture()
    one.take(post(b"topic=a", "old", "Expect: 100-continue"))
    assert one.statuses() == [200]


@pytest.mark.parametrize(
    ("token", "length", "content_type", "status"),
    [
        ("bad", 7, "application/x-www-form-urlencoded", 401),
        ("old", 7, "text/plain", 415),
        ("old", 5000, "application/x-www-form-urlencoded", 413),
    ],
)
async def test_a_client_that_asks_is_refused_before_its_body(
    token: str, length: int, content_type: str, status: int
) -> None:
    one = Fixture(publish_body_bytes_max=4096)
    one.take(post(b"", token, "Expect: 100-continue", content_type=content_type, length=length))
    assert one.statuses() == [status]
    assert b"connection: close" in one.out
    assert one.phase() is Phase.OVER


@promises.BODIES_BOUNDED
async def test_a_body_that_is_too_long_is_refused_by_its_length() -> None:
    one = Fixture(publish_body_bytes_max=4096)
    one.take(post(b"t", length=4097))
    assert one.statuses() == [413]
    assert b"connection: close" in one.out
    assert (one.phase(), one.exchange.lingers) == (Phase.OVER, True)


async def test_behind_a_refused_body_the_connection_goes_on() -> None:
    data = post(b"topic=a&x=POST / HTTP/1.1", "bad") + post(b"topic=a")
    for size in (1, 10, len(data)):
        one = Fixture()
        one.take(*pieces(data, size))
        assert one.statuses() == [401, 200]
        assert len(one.log.drafts) == 1


@promises.BODIES_BOUNDED
async def test_all_bodies_together_are_bounded_and_their_room_comes_back() -> None:
    one = Fixture(publish_bodies_bytes_max=10)
    other = PublishExchange(
        "192.0.2.2", one.endpoint, ResponseHeads(HttpConfig()), HttpConfig(), one.note
    )
    other.receive(post(b"", length=8))
    other.advance()
    one.take(post(b"topic=a")[:-1], post(b"topic=a")[-1:])
    assert one.statuses() == [503]
    assert b"retry-after" in one.out
    one.take(post(b"topic=a"))  # which is here already, and takes no more
    assert one.statuses() == [503, 200]
    other.end_input()
    one.take(post(b"topic=a")[:-1], post(b"topic=a")[-1:])
    assert one.statuses() == [503, 200, 200]


async def test_a_request_may_be_the_last_one() -> None:
    one = Fixture(Log(held=True))
    one.take(post(b"topic=a", "old", "Connection: close") + post())
    one.log.commit()
    assert one.statuses() == [200]
    assert b"connection: close" in one.out
    assert one.phase() is Phase.OVER
    assert len(one.log.drafts) == 1


async def test_a_request_for_somebody_else_waits_for_the_answers_before_it() -> None:
    one = Fixture(Log(held=True))
    one.take(post() + GET)
    assert one.phase() is Phase.COMMIT
    assert not one.exchange.wants_input
    one.log.commit()
    assert one.statuses() == [200]
    assert one.phase() is Phase.PASSES_ON
    assert one.exchange.take_rest() == GET


@pytest.mark.parametrize("data", [post()[:30], post()[:-3]])
async def test_what_comes_too_slowly_is_told_so(data: bytes) -> None:
    one = Fixture()
    one.take(post() + data)
    one.exchange.time_out()
    assert one.statuses() == [200, 408]
    assert one.phase() is Phase.OVER


async def test_a_head_that_is_too_long_ends_the_connection() -> None:
    one = Fixture(head_bytes_max=4096)
    one.take(post(b"", "old", "X: " + "y" * 5000))
    assert one.statuses() == [431]
    assert one.phase() is Phase.OVER


async def test_at_the_end_what_was_asked_is_answered_and_nothing_more_is_read() -> None:
    one = Fixture(Log(held=True))
    one.take(post())
    one.exchange.drain()
    one.take(post())
    one.log.commit()
    assert one.statuses() == [200]
    assert b"connection: close" in one.out
    assert one.phase() is Phase.OVER


async def test_at_the_end_a_body_that_has_begun_is_read() -> None:
    one = Fixture()
    one.take(post()[:-3])
    one.exchange.drain()
    assert one.phase() is Phase.BODY
    one.take(post()[-3:])
    assert one.statuses() == [200]
    assert one.phase() is Phase.OVER


async def test_who_sends_no_more_is_answered() -> None:
    one = Fixture(Log(held=True))
    one.take(post())
    one.exchange.end_input()
    one.log.commit()
    assert one.statuses() == [200]
    assert one.phase() is Phase.OVER
