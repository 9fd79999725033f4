"""Mercure, authorization of readers, cookies and other origins: one test for each rule."""

import time
from typing import Any

import pytest
import trio

from noti.authorization.grant import Dialect
from noti.http.config import HttpConfig
from tests import promises
from tests.authorization.tokens import detail, signed, token_v0, token_v1
from tests.http.mercure_stage import (
    DIALECTS,
    HUB,
    HUB_URL,
    LAST_EVENT_ID,
    V0,
    V1,
    Answered,
    bearer,
    mercure_hub,
    over_every_transport,
    target,
    token,
)
from tests.http.stage import LIMIT_S

ORIGIN = ("Origin", "https://a.example")
COOKIE = {V0: "mercureAuthorization", V1: "__Secure-mercure_access_token"}

both_dialects = pytest.mark.parametrize("dialect", DIALECTS)


def cookie(dialect: Dialect, text: str) -> tuple[str, str]:
    return "Cookie", f"other=1; {COOKIE[dialect]}={text}"


def challenge(answer: Answered) -> str:
    return answer.headers[b"www-authenticate"].decode()


@both_dialects
@over_every_transport
async def test_1_7_a_token_is_taken_from_header_and_cookie(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = await there.publish("a", private="on")
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "earliest"})
        right = token(dialect, subscribe=["a"])
        assert await there.shown(where, bearer(right)) == [sent]
        assert await there.shown(where, cookie(dialect, right)) == [sent]


@both_dialects
@over_every_transport
async def test_1_7_the_header_is_used_alone(dialect: Dialect, subprotocol: str | None) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        await there.publish("a", private="on")
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "earliest"})
        right, none = token(dialect, subscribe=["a"]), token(dialect)
        assert await there.shown(where, bearer(none), cookie(dialect, right)) == []
        bad = await there.ask(where, ("Authorization", "Bearer x"), cookie(dialect, right))
        assert bad.status == 401


@over_every_transport
async def test_1_7_a_token_of_0_x_may_be_in_the_query_and_wins_over_the_cookie(
    subprotocol: str | None,
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = await there.publish("a", private="on")
        right, none = token(V0, subscribe=["a"]), token(V0)
        where = target(V0, "a", lastEventID="earliest", authorization=right)
        assert await there.shown(where) == [sent]
        assert await there.shown(where, cookie(V0, none)) == [sent]
        async with there.open(where) as (response, _):
            assert b"private" in dict(response.headers)[b"cache-control"]
        bad = await there.ask(target(V0, "a", authorization="bad"))
        assert bad.status == 401
        assert b"private" in bad.headers[b"cache-control"]


async def test_1_7_a_token_of_1_0_must_not_be_in_the_query() -> None:
    async with mercure_hub() as there:
        right = token(V1, subscribe=["a"])
        answer = await there.ask(target(V1, "a", authorization=right))
        assert answer.status == 400
        assert 'error="invalid_request"' in challenge(answer)


async def test_1_7_no_token_must_be_in_the_query_of_a_request_of_1_0() -> None:
    async with mercure_hub() as there:
        for text in (token(V0, subscribe=["a"]), "garbage"):
            answer = await there.ask(target(V1, "a", authorization=text))
            assert answer.status == 400
            assert 'error="invalid_request"' in challenge(answer)


@promises.BAD_TOKEN_NEVER_ANONYMOUS
@both_dialects
async def test_1_7_a_bad_token_is_401_even_where_none_is_needed(dialect: Dialect) -> None:
    expired = token(dialect, subscribe=["a"], lasts_s=-1)
    forged = token(dialect, subscribe=["a"])[:-6] + "AAAAAA"
    async with mercure_hub() as there:
        for bad in (expired, forged, "garbage", "a.b.c"):
            for shown in (bearer(bad), cookie(dialect, bad)):
                answer = await there.ask(target(dialect, "a"), shown)
                assert answer.status == 401, shown
                assert bad not in answer.body
        for shown in (bearer(expired), cookie(dialect, expired)):
            assert (
                await there.ask("/category", shown if dialect is V0 else bearer("x"))
            ).status == 401


async def test_1_7_a_missing_token_is_challenged_without_an_error() -> None:
    async with mercure_hub(authorization={"anonymous": False}) as there:
        answer = await there.ask(target(V1, "a"))
        assert answer.status == 401
        assert challenge(answer).startswith("Bearer")
        assert "error" not in challenge(answer)
        assert "resource_metadata=" in challenge(answer)
        old = await there.ask(target(V0, "a"))
        assert old.status == 401
        assert old.body.startswith("Unauthorized")
        assert (await there.ask("/category")).status == 401


async def test_1_7_a_bad_token_is_challenged_with_invalid_token() -> None:
    async with mercure_hub() as there:
        answer = await there.ask(target(V1, "a"), bearer("x"))
        assert 'error="invalid_token"' in challenge(answer)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"aud": "https://other.example/"},
        {"iss": "https://other.example"},
        {"nbf": 4_000_000_000},
    ],
)
async def test_1_7_exp_aud_iss_and_nbf_are_enforced_in_1_0(claims: dict[str, Any]) -> None:
    given = {"aud": HUB_URL, "exp": time.time() + 60, **claims}
    if given["exp"] is None:
        # PyJWT refuses to write it so; a text is no time either.
        given["exp"] = "never"
    async with mercure_hub() as there:
        answer = await there.ask(target(V1, "a"), bearer(token_v1(detail("a"), **given)))
        assert answer.status == 401


async def test_1_7_typ_must_be_at_jwt_in_1_0() -> None:
    valid: dict[str, Any] = {"aud": HUB_URL, "exp": time.time() + 60}
    async with mercure_hub() as there:
        for typ, status in [("at+jwt", 200), ("application/AT+JWT", 200), ("JWT", 401)]:
            right = bearer(token_v1(detail("a"), typ=typ, **valid))
            async with there.open(target(V1, "a"), right) as (response, _):
                assert response.status_code == status, typ


@pytest.mark.parametrize(
    "bad",
    [
        {"actions": []},
        {"topics": []},
        {"topics": [{"match": "a", "match_type": "regexp"}]},
        {"topics": [{"match": str(number)} for number in range(101)]},
    ],
)
async def test_1_7_one_invalid_detail_refuses_the_whole_token(bad: dict[str, Any]) -> None:
    valid: dict[str, Any] = {"aud": HUB_URL, "exp": time.time() + 60}
    async with mercure_hub() as there:
        mixed = token_v1(detail("a"), {**detail("b"), **bad}, **valid)
        answer = await there.ask(target(V1, "a"), bearer(mixed))
        assert answer.status == 401
        assert 'error="invalid_token"' in challenge(answer)


@over_every_transport
async def test_1_7_details_of_other_types_give_no_right_and_do_no_harm(
    subprotocol: str | None,
) -> None:
    other = {**detail("a"), "type": "https://other.example"}
    claims = {"aud": HUB_URL, "exp": time.time() + 60, "iss": "https://issuer.example"}
    foreign = signed({**claims, "authorization_details": [other]}, header={"typ": "at+jwt"})
    async with mercure_hub(subprotocol=subprotocol) as there:
        await there.publish("a", private="on")
        where = target(V1, "a", last_event_id="earliest")
        assert await there.shown(where, bearer(foreign)) == []


async def test_1_7_an_unsigned_token_and_a_key_of_its_own_are_refused() -> None:
    claims = {"mercure": {"subscribe": ["*"]}}
    async with mercure_hub() as there:
        for bad in [
            signed(claims, key="", algorithm="none"),
            signed(claims, key="x" * 32, header={"jwk": {"kty": "oct", "k": "eHh4"}}),
        ]:
            assert (await there.ask(target(V0, "a"), bearer(bad))).status == 401


@promises.PRIVATE_ONLY_FOR_ALLOWED
@over_every_transport
async def test_1_7_one_topic_of_an_event_must_be_asked_for_and_one_be_allowed(
    subprotocol: str | None,
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = await there.publish("a", "b", private="on")
        await there.publish("a", private="on")
        for dialect in DIALECTS:
            where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "earliest"})
            assert await there.shown(where, bearer(token(dialect, subscribe=["b"]))) == [sent]


@over_every_transport
async def test_1_7_a_right_may_be_a_template_or_a_star_and_the_claim_be_namespaced(
    subprotocol: str | None,
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = await there.publish("/u/7", private="on")
        where = target(V0, "/u/7", lastEventID="earliest")
        for selector in ("/u/{id}", "*", "/u/7"):
            assert await there.shown(where, bearer(token(V0, subscribe=[selector]))) == [sent]
        namespaced = signed({"https://mercure.rocks/": {"subscribe": ["*"]}})
        assert await there.shown(where, bearer(namespaced)) == [sent]


@promises.STREAM_ENDS_WITH_TOKEN
@both_dialects
async def test_1_7_the_stream_ends_when_the_token_does(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        short = bearer(token(dialect, subscribe=["a"], lasts_s=2))
        with trio.fail_after(LIMIT_S):
            async with there.open(target(dialect, "a"), short) as (response, one):
                assert response.status_code == 200
                await one.read_all()
            # It ended a tenth of a second early, at most.
            while (await there.ask(target(dialect, "a"), short)).status != 401:
                pass


@both_dialects
@over_every_transport
async def test_1_7_reading_without_a_right_is_no_mistake(
    dialect: Dialect, subprotocol: str | None
) -> None:
    async with mercure_hub(subprotocol=subprotocol) as there:
        sent = await there.publish("a")
        where = target(dialect, "a", **{LAST_EVENT_ID[dialect]: "earliest"})
        assert await there.shown(where, bearer(token(dialect, publish=["*"]))) == [sent]


@both_dialects
async def test_1_8_named_origins_may_send_credentials_and_no_other(dialect: Dialect) -> None:
    config = HttpConfig(cors_origins=("https://a.example", "https://*.b.example"))
    async with mercure_hub(config) as there:
        for origin, allowed in [
            ("https://a.example", True),
            ("https://x.b.example", True),
            ("https://evil.example", False),
            ("null", False),
        ]:
            async with there.open(target(dialect, "a"), ("Origin", origin)) as (response, _):
                headers = dict(response.headers)
                named = headers.get(b"access-control-allow-origin") == origin.encode()
                assert named == allowed
                assert (b"access-control-allow-credentials" in headers) == allowed


async def test_1_8_a_star_never_goes_with_credentials() -> None:
    config = HttpConfig(cors_origins=("*",))
    async with mercure_hub(config) as there, there.open(target(V0, "a"), ORIGIN) as (response, _):
        headers = dict(response.headers)
        assert headers[b"access-control-allow-origin"] == b"*"
        assert b"access-control-allow-credentials" not in headers


@pytest.mark.parametrize("method", ["GET", "POST", "QUERY"])
async def test_1_8_a_preflight_says_what_other_origins_may_send(method: str) -> None:
    config = HttpConfig(cors_origins=("https://a.example",))
    asks = ("Access-Control-Request-Method", method)
    async with mercure_hub(config) as there:
        answer = await there.ask(HUB, ORIGIN, asks, method="OPTIONS")
        assert answer.status == 200
        assert method.encode() in answer.headers[b"access-control-allow-methods"].split(b", ")
        allowed = answer.headers[b"access-control-allow-headers"].lower().split(b", ")
        for header in (
            b"authorization",
            b"cache-control",
            b"last-event-id",
            b"content-type",
            b"idempotency-key",
        ):
            assert header in allowed
        assert int(answer.headers[b"access-control-max-age"]) > 0
        other = ("Origin", "https://evil.example")
        refused = await there.ask(HUB, other, asks, method="OPTIONS")
        assert b"access-control-allow-methods" not in refused.headers


async def test_1_8_a_cookie_publishes_from_known_origins_alone() -> None:
    allowed = {"publish_origins": frozenset({"https://a.example"})}
    async with mercure_hub(authorization=allowed) as there:
        for dialect in DIALECTS:
            with_cookie = cookie(dialect, token(dialect, publish=["*"]))
            for headers, status in [
                ([ORIGIN], 200),
                ([("Referer", "https://a.example/page")], 200),
                ([("Origin", "http://localhost")], 200),
                ([("Origin", "https://evil.example")], None),
                ([("Origin", "https://evil.example"), ("Referer", "https://a.example/")], None),
                ([], None),
            ]:
                answer = await there.post(("topic", "a"), by="", headers=[with_cookie, *headers])
                refused = 401 if dialect is V0 else 403
                assert answer.status == (status or refused), headers


async def test_1_8_a_header_publishes_from_anywhere() -> None:
    async with mercure_hub() as there:
        answer = await there.post(("topic", "a"), headers=[("Origin", "https://evil.example")])
        assert answer.status == 200


async def test_2_responses_carry_what_keeps_browsers_safe() -> None:
    async with mercure_hub() as there:
        for to, status in [(target(V0, "a"), 200), (HUB, 400), ("/nothing", 404)]:
            async with there.open(to) as (response, _):
                headers = dict(response.headers)
                assert response.status_code == status
                assert headers[b"x-frame-options"] == b"DENY"
                assert headers[b"x-content-type-options"] == b"nosniff"
                assert headers[b"x-xss-protection"] == b"1; mode=block"
                assert b"default-src 'self'" in headers[b"content-security-policy"]


@both_dialects
async def test_2_head_is_answered_as_get_is_without_a_body(dialect: Dialect) -> None:
    async with mercure_hub() as there:
        sent = await there.publish("a", id="\u00e9 \U0001f600")
        for to in (target(dialect, "a", **{LAST_EVENT_ID[dialect]: sent}), HUB):
            async with there.open(to) as (response, _):
                got = Answered(response.status_code, _comparable(dict(response.headers)), "")
            head = await there.ask(to, method="HEAD")
            assert Answered(head.status, _comparable(head.headers), head.body) == got
        assert there.hub.clients <= 1


async def test_0_a_hub_of_0_x_alone_has_no_query() -> None:
    config = HttpConfig(dialects=frozenset({V0}))
    async with mercure_hub(config, authorization={"protocol": "0"}) as there:
        answer = await there.ask(target(V0, "a"), method="QUERY")
        assert answer.status == 405
        assert b"QUERY" not in answer.headers[b"allow"]


async def test_2_other_methods_are_405_with_those_that_are_allowed() -> None:
    async with mercure_hub() as there:
        for method in ("PUT", "PATCH", "DELETE"):
            answer = await there.ask(target(V0, "a"), method=method)
            assert answer.status == 405
            assert {b"GET", b"HEAD", b"POST", b"OPTIONS"} <= set(
                answer.headers[b"allow"].split(b", ")
            )


def _comparable(headers: object) -> dict[bytes, bytes]:
    assert isinstance(headers, dict)
    per_connection = {b"date", b"transfer-encoding", b"content-length", b"connection"}
    return {name: value for name, value in headers.items() if name not in per_connection}


@promises.SECRETS_NOT_SHOWN
async def test_1_10_no_token_is_in_what_an_answer_says() -> None:
    async with mercure_hub() as there:
        secret = token_v0(subscribe=["*"])[:-4] + "AAAA"
        for answer in [
            await there.ask(target(V0, "a"), bearer(secret)),
            await there.ask(target(V0, "a", authorization=secret)),
            await there.ask(target(V0, "", authorization=secret)),
        ]:
            assert answer.status in (400, 401)
            assert secret not in answer.body
