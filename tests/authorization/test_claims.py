"""What claims grant, in both dialects, and which are invalid."""

from typing import Any

import pytest

from noti.authorization.claims import (
    MATCHERS_MAX,
    SELECTORS_MAX,
    Expectation,
    TokenInvalid,
    dialect_of,
    grant_of,
)
from noti.authorization.grant import Dialect, Grant
from noti.history.selectors import ALL_TOPICS, exact_matcher, pattern_matcher, topic_selector
from tests.authorization.tokens import HUB, ISSUER, NOW, claims_v1, detail

EXPECTED = Expectation(issuer=ISSUER, audience=HUB)
AT_JWT = {"typ": "at+jwt", "alg": "HS256"}


def v0(claims: dict[str, Any], expected: Expectation = EXPECTED, now: float = NOW) -> Grant:
    return grant_of({"typ": "JWT"}, claims, Dialect.V0, expected, HUB, now)


def v1(claims: dict[str, Any], header: dict[str, Any] | None = None) -> Grant:
    return grant_of(AT_JWT if header is None else header, claims, Dialect.V1, EXPECTED, HUB, NOW)


def test_the_claim_tells_the_dialect_and_without_one_the_type() -> None:
    assert dialect_of({"typ": "JWT"}, {"mercure": {}}) is Dialect.V0
    assert dialect_of(AT_JWT, {"https://mercure.rocks/": {}}) is Dialect.V0
    assert dialect_of({"typ": "JWT"}, {"authorization_details": []}) is Dialect.V1
    assert dialect_of(AT_JWT, {"mercure": {}, "authorization_details": []}) is Dialect.V1
    assert dialect_of({"typ": "application/AT+JWT"}, {}) is Dialect.V1
    assert dialect_of({}, {}) is Dialect.V0


# --- 0.x ------------------------------------------------------------------------------------------


def test_0x_rights_are_selectors() -> None:
    rights = {"publish": ["*"], "subscribe": ["/a", "/users/{id}"], "payload": {"ü": [1, None]}}
    grant = v0({"mercure": rights, "sub": "7", "jti": "j"})
    assert grant.publish == {ALL_TOPICS}
    assert grant.subscribe == {topic_selector("/a"), topic_selector("/users/{id}")}
    assert grant.payload_of("anything") == '{"ü":[1,null]}'
    assert (grant.subject, grant.token_id, grant.expires_at) == ("7", "j", None)


@pytest.mark.parametrize("claims", [{}, {"mercure": {}}, {"mercure": {"publish": None}}])
def test_0x_without_rights_is_a_good_token(claims: dict[str, Any]) -> None:
    assert v0(claims) == Grant(Dialect.V0)


def test_0x_namespaced_claim_wins() -> None:
    claims = {"mercure": {"publish": ["*"]}, "https://mercure.rocks/": {"publish": ["/a"]}}
    assert v0(claims).publish == {topic_selector("/a")}


def test_0x_issuer_and_audience_are_checked_where_a_token_has_them() -> None:
    good = {"iss": ISSUER, "aud": ["https://other.example", HUB]}
    assert v0(good) == v0({}) == Grant(Dialect.V0)
    for name in good:
        with pytest.raises(TokenInvalid, match=name):
            v0({**good, name: "https://other.example"})
    alone = Expectation(issuer=ISSUER, audience=HUB, required=True)
    assert v0(good, alone) == Grant(Dialect.V0)
    for name in good:
        with pytest.raises(TokenInvalid, match=name):
            v0({key: value for key, value in good.items() if key != name}, alone)
    assert v0({"iss": "anybody", "aud": "anything"}, Expectation()) == Grant(Dialect.V0)


@pytest.mark.parametrize(
    "claims",
    [
        {"mercure": []},
        {"mercure": None, "https://mercure.rocks/": "*"},
        {"mercure": {"publish": "*"}},
        {"mercure": {"subscribe": [7]}},
        {"mercure": {"subscribe": ["x" * 5000]}},
        {"mercure": {"subscribe": ["\ud800"]}},
        {"mercure": {"publish": ["a"] * (SELECTORS_MAX + 1)}},
        {"mercure": {"payload": "x" * 5000}},
        {"mercure": {"payload": "\ud800"}},
        {"exp": "soon"},
        {"exp": True},
        {"exp": 10**400},
        {"exp": NOW},
        {"nbf": NOW + 1},
        {"sub": 7},
        {"jti": "j" * 600},
    ],
)
def test_0x_invalid_claims_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid):
        v0(claims)


def test_times_are_inclusive_at_their_beginning_and_exclusive_at_their_end() -> None:
    assert v0({"nbf": NOW, "exp": NOW + 0.5}).expires_at == NOW + 0.5


# --- 1.0 ------------------------------------------------------------------------------------------


def test_10_rights_are_those_of_all_details_by_action() -> None:
    typed = {"match": "/u/:id", "match_type": "urlpattern"}
    both = {"actions": ["publish", "subscribe", "dance"], "topics": [typed, {"match": "/b"}]}
    grant = v1(claims_v1(both, detail("*", actions=("publish",))))
    assert grant.subscribe == {pattern_matcher("/u/:id", HUB), exact_matcher("/b")}
    assert grant.publish == grant.subscribe | {ALL_TOPICS}
    assert (grant.dialect, grant.subject, grant.expires_at) == (Dialect.V1, "7", NOW + 60)


def test_10_payload_is_that_of_the_first_subscribe_detail_that_matches() -> None:
    grant = v1(
        claims_v1(
            detail("/a", actions=("publish",), payload={"n": 1}),
            detail("/a", payload={"n": 2}),
            detail("/a", "/b", payload={"n": 3}),
            detail("/c"),
        )
    )
    payloads = [grant.payload_of(name) for name in ("/a", "/b", "/c", "/d")]
    assert payloads == ['{"n":2}', '{"n":3}', None, None]


def test_10_details_of_other_types_are_ignored() -> None:
    assert v1(claims_v1(authorization_details=[{"type": "payment"}])).publish == frozenset()
    assert v1({**claims_v1(), "authorization_details": []}).subscribe == frozenset()


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_10_type_of_the_token_is_an_access_token(typ: str) -> None:
    assert v1(claims_v1(), {"typ": typ}).dialect is Dialect.V1


@pytest.mark.parametrize("header", [{}, {"typ": "JWT"}, {"typ": 7}, {"typ": "at+jwt "}])
def test_10_another_type_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid, match="typ"):
        v1(claims_v1(), header)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": NOW},
        {"nbf": NOW + 1},
        {"iss": None},
        {"iss": ISSUER + "/"},
        {"aud": None},
        {"aud": "https://other.example"},
        {"aud": [["x"]]},
        {"authorization_details": {}},
        {"authorization_details": [7]},
        {"authorization_details": [{"actions": ["publish"]}]},
    ],
)
def test_10_invalid_claims_are_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid):
        v1(claims_v1(**claims))


@pytest.mark.parametrize(
    "broken",
    [
        {"actions": []},
        {"actions": "subscribe"},
        {"actions": [1]},
        {"topics": []},
        {"topics": "*"},
        {"topics": ["*"]},
        {"topics": [{"match": 1}]},
        {"topics": [{"match": "a", "match_type": "regexp"}]},
        {"topics": [{"match": "a", "match_type": None}]},
        {"topics": [{"match": "(", "match_type": "urlpattern"}]},
        {"topics": [{"match": "a\u0000"}]},
        {"topics": [{"match": "x" * 5000}]},
        {"topics": [{"match": "a"}] * (MATCHERS_MAX + 1)},
        {"payload": "text"},
        {"payload": None},
        {"payload": {"x": "y" * 5000}},
    ],
)
def test_10_one_invalid_detail_refuses_the_whole_token(broken: dict[str, Any]) -> None:
    good = detail("/a")
    assert v1(claims_v1(good)).subscribe
    with pytest.raises(TokenInvalid):
        v1(claims_v1(good, {**good, **broken}))


def test_10_without_an_issuer_no_token_is_trusted() -> None:
    with pytest.raises(TokenInvalid, match="--jwt-issuer"):
        grant_of(AT_JWT, claims_v1(), Dialect.V1, Expectation(audience=HUB), HUB, NOW)
