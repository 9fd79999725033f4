"""Tokens that we make are tokens that we take."""

import json
from typing import Any

import pytest

from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.grant import Action, Dialect, Grant, Payload
from noti.authorization.keys import CURVES, EDDSA, HMAC, RSA, TrustedKeys, read_keys
from noti.authorization.presented import Presented
from noti.authorization.signing import TokenDraft, signed_token
from noti.errors import ConfigInvalid
from noti.history.selectors import ALL_TOPICS, exact_matcher, pattern_matcher, topic_selector
from tests.authorization.tokens import HUB, ISSUER, NOW, jwk, private_key, private_pem, public_pem

SECRET = b"s" * 64 + b"\n"


def draft(**more: Any) -> TokenDraft:
    return TokenDraft(**{"publish": ["*"], "issued_at": NOW, **more})


def granted(token: str, content: bytes, algorithm: str | None = None) -> Grant:
    keys = TrustedKeys()
    keys.put("k", Action, read_keys(content, "k", algorithm).keys)
    config = AuthorizationConfig(issuer=ISSUER, audience=HUB)
    presented = Presented(authorization=f"Bearer {token}", hub_url=HUB)
    return Authorizer(config, keys).grant(presented, Action.SUBSCRIBE, now=NOW)


@pytest.mark.parametrize("algorithm", HMAC)
def test_a_secret_signs_with_any_of_its_algorithms(algorithm: str) -> None:
    token = signed_token(draft(), SECRET, "k", algorithm)
    assert granted(token, SECRET, algorithm).publish == {ALL_TOPICS}


@pytest.mark.parametrize("algorithm", [*RSA, *CURVES.values(), EDDSA])
def test_a_private_key_signs_what_its_public_half_checks(algorithm: str) -> None:
    key = private_key(algorithm)
    token = signed_token(draft(), private_pem(key), "k", algorithm)
    assert granted(token, public_pem(key), algorithm).publish == {ALL_TOPICS}


def test_a_private_jwk_signs_and_names_itself() -> None:
    secret = {"kty": "oct", "kid": "one", "alg": "HS256", "k": "c2Vj" * 16}
    content = json.dumps({"keys": [secret]}).encode()
    assert granted(signed_token(draft(), content, "k", None), content).publish == {ALL_TOPICS}


def test_0x_token_says_all_of_its_draft() -> None:
    whole = draft(
        subscribe=["/users/{id}"], payload={"n": 1}, subject="7", token_id="j", expires_in_s=60.0
    )
    assert granted(signed_token(whole, SECRET, "k", None), SECRET) == Grant(
        Dialect.V0,
        frozenset({ALL_TOPICS}),
        frozenset({topic_selector("/users/{id}")}),
        (Payload(None, '{"n":1}'),),
        "7",
        "j",
        NOW + 60,
    )


def test_10_token_says_all_of_its_draft() -> None:
    usual = {"dialect": Dialect.V1, "issuer": ISSUER, "audience": HUB, "expires_in_s": 60.0}
    whole = draft(subscribe=["/u/:id"], match_type="urlpattern", payload={"n": 1}, **usual)
    grant = granted(signed_token(whole, SECRET, "k", None), SECRET)
    assert grant.publish == {ALL_TOPICS}
    assert grant.subscribe == {pattern_matcher("/u/:id", HUB)}
    assert grant.payload_of("/u/7") == '{"n":1}'
    exact = draft(subscribe=["/u/:id"], **usual)
    got = granted(signed_token(exact, SECRET, "k", None), SECRET)
    assert got.subscribe == {exact_matcher("/u/:id")}


@pytest.mark.parametrize("flag", ["--issuer", "--audience", "--expires"])
def test_10_token_lacks_nothing_that_hubs_demand(flag: str) -> None:
    usual = {
        "--issuer": ("issuer", ISSUER),
        "--audience": ("audience", HUB),
        "--expires": ("expires_in_s", 9.0),
    }
    given = dict(value for name, value in usual.items() if name != flag)
    with pytest.raises(ConfigInvalid, match=flag):
        draft(dialect=Dialect.V1, **given).claims()


@pytest.mark.parametrize(
    ("content", "algorithm", "problem"),
    [
        (b"\n", None, "is empty"),
        (SECRET, "ES256", "for HS256 or HS384 or HS512, not for ES256"),
        (public_pem(private_key("ES256")), None, "public key, which cannot sign"),
        (private_pem(private_key("ES256")), "RS256", "for ES256, not for RS256"),
        (b"-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----\n", None, "is no secret"),
        (json.dumps(jwk("ES256", "a")).encode(), None, "public key, which cannot sign"),
        (b"{", None, "is no secret"),
        (b'{"keys": []}', None, "is no secret"),
    ],
)
def test_a_key_that_cannot_sign_is_one_clear_line(
    content: bytes, algorithm: str | None, problem: str
) -> None:
    with pytest.raises(ConfigInvalid, match=problem):
        signed_token(draft(), content, "k", algorithm)
