"""Keys at an address: fetched, cached, kept when the issuer is down."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs

from noti.authorization.grant import Action
from noti.authorization.jwks import (
    ANSWER_BYTES_MAX,
    REFRESH_DEFAULT_S,
    REFRESH_MAX_S,
    REFRESH_MIN_S,
    JwksFeed,
    refresh_after_s,
)
from noti.authorization.keys import TrustedKeys
from noti.trio_clock import TrioClock
from tests.authorization.issuer import Issuer, serving
from tests.authorization.tokens import jwk


class HurriedClock(TrioClock):
    """A clock by which every pause is over at once, but in which time does not pass otherwise."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep_until(self, deadline: float) -> None:
        self.pauses.append(deadline - self.now())
        await trio.lowlevel.checkpoint()


class Running:
    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.clock = HurriedClock()
        self.keys = TrustedKeys()
        self.feed = JwksFeed(issuer.url, self.keys, self.clock)

    def key_ids(self) -> list[str | None]:
        return [key.key_id for key in self.keys.of(Action.SUBSCRIBE)]


@asynccontextmanager
async def running(*keys: dict[str, object]) -> AsyncIterator[Running]:
    async with serving() as issuer, trio.open_nursery() as nursery:
        issuer.publish(*keys)
        one = Running(issuer)
        nursery.start_soon(one.feed.run)
        with trio.fail_after(10):
            await one.feed.refreshed()
            yield one
        nursery.cancel_scope.cancel()


async def test_keys_are_for_publishers_and_subscribers() -> None:
    async with running(jwk("ES256", "a")) as one:
        assert one.key_ids() == ["a"]
        assert one.keys.of(Action.PUBLISH) == one.keys.of(Action.SUBSCRIBE)


async def test_who_asks_for_a_key_gets_the_issuers_newest_but_not_at_once_again() -> None:
    async with running(jwk("ES256", "a")) as one:
        one.issuer.publish(jwk("ES256", "b"))
        await one.feed.refreshed()
        assert one.key_ids() == ["b"]
        assert one.clock.pauses
        assert 4 < one.clock.pauses[-1] <= 5


@pytest.mark.parametrize(
    ("status", "headers", "body", "problem"),
    [
        ("503 Unavailable", "", b"", "status 503"),
        ("302 Found", "Location: http://127.0.0.1:1/\r\n", b"", "status 302"),
        ("200 OK", "", b"x" * (ANSWER_BYTES_MAX + 1), "longer than"),
        ("200 OK", "", b"<html>", "is not JSON"),
        ("200 OK", "", b'{"keys": []}', "has no keys"),
        ("200 OK", "", b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', "anybody can fetch"),
        ("200 OK", "Content-Encoding: gzip\r\n", b"no gzip", "is not JSON"),
    ],
)
async def test_an_answer_that_is_no_key_set_keeps_the_last_keys(
    status: str, headers: str, body: bytes, problem: str
) -> None:
    async with running(jwk("ES256", "a")) as one:
        one.issuer.status, one.issuer.headers, one.issuer.body = status, headers, body
        with capture_logs() as logs:
            await one.feed.refreshed()
        assert problem in logs[0]["problem"]
        assert one.key_ids() == ["a"]


async def test_an_issuer_that_is_down_keeps_the_last_keys() -> None:
    async with running(jwk("ES256", "a")) as one:
        generation = one.keys.generation
        one.feed._url = "http://127.0.0.1:1/"
        with capture_logs() as logs:
            await one.feed.refreshed()
        assert "last ones stay in use" in logs[0]["event"]
        assert one.keys.generation == generation


async def test_the_same_keys_forget_no_token() -> None:
    async with running(jwk("ES256", "a")) as one:
        generation = one.keys.generation
        await one.feed.refreshed()
        assert one.keys.generation == generation


async def test_an_issuer_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noti.authorization.jwks.FETCH_TIMEOUT_S", 0.05)
    async with running(jwk("ES256", "a")) as one:
        one.issuer.answers = False
        await one.feed.refreshed()
        assert one.key_ids() == ["a"]


@pytest.mark.parametrize(
    ("cache_control", "seconds"),
    [
        ("", REFRESH_DEFAULT_S),
        ("no-store", REFRESH_DEFAULT_S),
        ("public, max-age=600", 600),
        ('Max-Age="600"', 600),
        ("s-maxage=9, max-age=0", REFRESH_MIN_S),
        ("max-age=999999999", REFRESH_MAX_S),
    ],
)
def test_keys_are_fetched_again_as_often_as_the_issuer_says_within_bounds(
    cache_control: str, seconds: float
) -> None:
    assert refresh_after_s(cache_control) == seconds
