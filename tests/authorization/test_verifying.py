"""Whose signature counts."""

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest

from noti.authorization.claims import TokenInvalid
from noti.authorization.keys import CURVES, EDDSA, HMAC, RSA, read_jwks, read_keys
from noti.authorization.verifying import KeyUnknown, verify
from tests.authorization.tokens import SECRET, jwk, private_key, public_pem, signed

CLAIMS: dict[str, Any] = {"mercure": {"publish": ["*"]}}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("algorithm", HMAC)
def test_tokens_signed_with_a_secret_are_good(algorithm: str) -> None:
    secret = "s" * 64
    keys = read_keys(secret.encode(), "k", algorithm).keys
    assert verify(signed(CLAIMS, secret, algorithm), keys)[1] == CLAIMS
    with pytest.raises(TokenInvalid, match="signature"):
        verify(signed(CLAIMS, "t" * 64, algorithm), keys)


@pytest.mark.parametrize("algorithm", [*RSA, *CURVES.values(), EDDSA])
def test_tokens_signed_with_a_private_key_are_good(algorithm: str) -> None:
    key = private_key(algorithm)
    for keys in (
        read_keys(public_pem(key), "k", algorithm).keys,
        read_keys(jwks(jwk(algorithm, "one")), "k").keys,
    ):
        token = signed(CLAIMS, key, algorithm, {"kid": "one"})
        assert verify(token, keys)[1] == CLAIMS
        head, _, tail = token.rpartition(".")
        with pytest.raises(TokenInvalid, match="signature"):
            verify(f"{head}.{'A' * len(tail)}", keys)


def test_a_public_key_is_no_secret_to_sign_with() -> None:
    pem = public_pem(private_key("RS256"))
    head = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment(CLAIMS)}"
    forged = base64.urlsafe_b64encode(hmac.digest(pem, head.encode(), hashlib.sha256))
    with pytest.raises(KeyUnknown):
        verify(f"{head}.{forged.rstrip(b'=').decode()}", read_keys(pem, "k", "RS256").keys)


@pytest.mark.parametrize("name", ["none", "None", "NONE", ""])
def test_a_token_without_signature_is_refused(name: str) -> None:
    token = f"{segment({'alg': name})}.{segment(CLAIMS)}."
    with pytest.raises(TokenInvalid):
        verify(token, read_keys(SECRET.encode(), "k").keys)


def test_another_algorithm_of_the_same_secret_is_refused() -> None:
    with pytest.raises(KeyUnknown):
        verify(signed(CLAIMS, "s" * 64, "HS512"), read_keys(b"s" * 64, "k", "HS256").keys)


def test_a_key_in_the_token_is_not_used() -> None:
    header = {"jwk": jwk("ES256", "mine"), "kid": "mine", "jku": "https://evil.example/jwks"}
    token = signed(CLAIMS, private_key("ES256"), "ES256", header)
    with pytest.raises(KeyUnknown):
        verify(token, read_jwks(jwks(jwk("ES384", "theirs")), "k").keys)


def test_a_critical_header_is_refused() -> None:
    for name in ("exp", "b64"):
        token = signed(CLAIMS, header={"crit": [name], name: True})
        with pytest.raises(TokenInvalid):
            verify(token, read_keys(SECRET.encode(), "k").keys)


def test_the_key_that_the_token_names_is_tried_and_no_other_named_one() -> None:
    named = read_jwks(jwks(jwk("ES256", "a")), "k").keys
    assert verify(signed(CLAIMS, private_key("ES256"), "ES256", {"kid": "a"}), named)
    assert verify(signed(CLAIMS, private_key("ES256"), "ES256"), named)
    with pytest.raises(KeyUnknown, match="kid"):
        verify(signed(CLAIMS, private_key("ES256"), "ES256", {"kid": "b"}), named)
    with pytest.raises(KeyUnknown):
        verify(signed(CLAIMS), ())


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "e30.e30.e30", "eyJhbGciOiJIUzI1NiJ9.W10.", "=.=.="]
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(TokenInvalid):
        verify(token, read_keys(SECRET.encode(), "k").keys)


@pytest.mark.parametrize("payload", [b"[]", b"7", b"{", b"\xff", b'{"exp": NaN}', b"[" * 100_000])
def test_claims_are_a_json_object(payload: bytes) -> None:
    token = jwt.api_jws.encode(payload, SECRET, "HS256")
    with pytest.raises(TokenInvalid, match="claims"):
        verify(token, read_keys(SECRET.encode(), "k").keys)
