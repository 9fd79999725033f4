"""Which token of a request counts, and whether its page may have sent it."""

import pytest

from noti.authorization.grant import Dialect
from noti.authorization.presented import (
    Bearer,
    Channel,
    Presented,
    bearer_of,
    check_origin,
    cookies_of,
    origin_of,
)
from noti.authorization.rejection import Reason, TokenRejected

EVERYWHERE = Presented(
    authorization="Bearer of-header",
    query_tokens=("of-query",),
    cookie="mercureAuthorization=of-cookie; __Secure-mercure_access_token=of-v1",
)


def found(presented: Presented, spoken: Dialect = Dialect.V0) -> Bearer | None:
    return bearer_of(presented, "mercureAuthorization", spoken)


def test_header_wins_then_query_then_the_cookie_of_the_dialect() -> None:
    assert found(EVERYWHERE) == Bearer("of-header", Channel.HEADER, None)
    without = Presented(query_tokens=EVERYWHERE.query_tokens, cookie=EVERYWHERE.cookie)
    assert found(without) == Bearer("of-query", Channel.QUERY, Dialect.V0)
    cookies = Presented(cookie=EVERYWHERE.cookie)
    assert found(cookies) == Bearer("of-cookie", Channel.COOKIE, Dialect.V0)
    assert found(cookies, Dialect.V1) == Bearer("of-v1", Channel.COOKIE, Dialect.V1)
    assert found(Presented(cookie="other=1; mercure=2")) is None


def test_the_name_of_the_cookie_of_0x_is_the_operators() -> None:
    presented = Presented(cookie="mercureAuthorization=a; theirs=b")
    bearer = bearer_of(presented, "theirs", Dialect.V0)
    assert bearer is not None
    assert bearer.token == "b"


@pytest.mark.parametrize(
    ("presented", "reason"),
    [
        (Presented(authorization=""), Reason.MALFORMED),
        (Presented(authorization="Basic dTpw"), Reason.MALFORMED),
        (Presented(authorization="Bearer"), Reason.MALFORMED),
        (Presented(authorization="Bearer a, Bearer b"), Reason.MALFORMED),
        (Presented(authorization="Bearer " + "a" * 70_000), Reason.INVALID),
        (Presented(authorization="Bearer ä"), Reason.INVALID),
        (Presented(query_tokens=("",)), Reason.MALFORMED),
        (Presented(query_tokens=("a", "a")), Reason.MALFORMED),
        (Presented(cookie="mercureAuthorization="), Reason.MALFORMED),
    ],
)
def test_what_is_no_token_is_never_taken_for_no_token(presented: Presented, reason: Reason) -> None:
    with pytest.raises(TokenRejected) as caught:
        found(presented)
    assert caught.value.reason is reason


def test_of_cookies_with_one_name_the_first_counts() -> None:
    assert cookies_of(' a=1;a=2 ; b="3"; c; =x; d = 4') == {"a": "1", "b": "3", "": "x", "d": "4"}


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://App.example/x?y", ("https", "app.example")),
        ("https://app.example:443", ("https", "app.example")),
        ("http://[::1]:80/", ("http", "[::1]")),
        ("http://a:8402", ("http", "a:8402")),
        ("null", None),
        ("http://[", None),
        ("http://a:port", None),
    ],
)
def test_origin_of_an_address(url: str, origin: tuple[str, str] | None) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"origin": "https://app.example"}, True),
        ({"origin": "https://hub.example"}, True),
        ({"origin": "http://hub.example"}, True),
        ({"referer": "https://app.example/page?x"}, True),
        ({"origin": "https://evil.example", "referer": "https://app.example/"}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://app.example.evil.example"}, False),
        ({}, False),
    ],
)
def test_a_cookie_publishes_only_from_origins_that_may(
    headers: dict[str, str], accepted: bool
) -> None:
    hub_url = "http://hub.example/.well-known/mercure"
    presented = Presented(method="POST", hub_url=hub_url, **headers)  # type: ignore[arg-type]
    if accepted:
        check_origin(presented, frozenset({"https://app.example"}), Dialect.V0)
    else:
        with pytest.raises(TokenRejected) as caught:
            check_origin(presented, frozenset({"https://app.example"}), Dialect.V0)
        assert caught.value.reason is Reason.FORGED
