"""What a key file may hold, and what an operator is told of it."""

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt import InsecureKeyLengthWarning

from noti.authorization.grant import Action
from noti.authorization.keys import KEYS_MAX, TrustedKeys, read_jwks, read_keys
from noti.authorization.verifying import verify
from noti.errors import ConfigInvalid
from tests.authorization.tokens import (
    SECRET,
    jwk,
    private_key,
    private_pem,
    public_pem,
    signed,
)

OCT = {"kty": "oct", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IDEyMzQ", "kid": "s"}


def jwks(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


def test_the_newline_at_the_end_of_a_file_is_no_part_of_the_secret() -> None:
    found = read_keys(f"{SECRET}\r\n".encode(), "k")
    assert found.keys[0].key == SECRET.encode()
    assert list(found.keys[0].algorithms) == ["HS256"]
    assert found.notices == ()


@pytest.mark.parametrize(
    ("content", "algorithm", "problem"),
    [
        (SECRET.encode(), "RS256", "k holds a secret, and RS256 needs a public key"),
        (b"\n", None, "k is empty"),
        (public_pem(private_key("RS256")), "HS256", "k has a key for RS256 or .* not for HS256"),
        (public_pem(private_key("ES256")), "ES384", "k has a key for ES256, not for ES384"),
        (b"-----BEGIN PUBLIC KEY-----\nQUJD\n-----END PUBLIC KEY-----\n", None, "not a PEM file"),
        (b"{", None, "k is not JSON"),
        (b'{"keys": 7}', None, "k is not a JWK set"),
        (b'{"keys": []}', None, "k has no keys"),
        (b'{"keys": [7]}', None, "k is not a JWK set"),
        (jwks({"kty": "RSA"}), None, "key 1 is not used: it does not decode"),
        (jwks({"kty": "EC", "crv": 7, "x": "", "y": ""}), None, "does not decode"),
        (jwks({"kty": "oct", "k": 7}), None, "does not decode"),
        (jwks({"kty": "X"}), None, "its kty is not"),
        (jwks(jwk("ES256", "a", use="enc")), None, "its use is not sig"),
        (jwks(jwk("ES256", "a", alg="HS256")), None, "its algorithm does not fit it"),
        (jwks(*[OCT] * (KEYS_MAX + 1)), None, "more than 64 keys"),
    ],
)
def test_an_unusable_key_is_one_clear_line(
    content: bytes, algorithm: str | None, problem: str
) -> None:
    with pytest.raises(ConfigInvalid, match=problem) as caught:
        read_keys(content, "k", algorithm)
    assert len(str(caught.value).splitlines()) == 1
    assert SECRET not in str(caught.value)


def test_a_short_secret_is_used_with_a_warning() -> None:
    found = read_keys(b"!ChangeMe!", "k")
    with pytest.warns(InsecureKeyLengthWarning):
        token = signed({}, "!ChangeMe!")
    assert verify(token, found.keys)
    assert "10 bytes, which can be guessed" in found.notices[0]
    assert "ChangeMe" not in found.notices[0]


def test_a_private_key_is_used_with_a_warning_and_only_its_public_half() -> None:
    key = private_key("ES256")
    found = read_keys(private_pem(key), "k", "ES256")
    assert "private key" in found.notices[0]
    assert not hasattr(found.keys[0].key, "sign")
    with pytest.raises(ConfigInvalid, match="does not decode"):
        read_keys(jwks(jwk("ES256", "a") | {"d": "AAAA"}), "k")


def test_a_weak_rsa_key_is_used_with_a_warning() -> None:
    key = rsa.generate_private_key(65537, 1024)
    assert "1024 bits" in read_keys(public_pem(key), "k", "RS256").notices[0]


def test_of_a_set_the_usable_keys_are_used() -> None:
    found = read_jwks(jwks(jwk("ES256", "a"), {"kty": "X"}, jwk("EdDSA", "b")), "k")
    assert [(key.key_id, list(key.algorithms)) for key in found.keys] == [
        ("a", ["ES256"]),
        ("b", ["EdDSA"]),
    ]
    assert found.notices == ("k: key 2 is not used: its kty is not oct, RSA, EC or OKP",)


def test_a_single_jwk_is_a_set_of_one_and_its_algorithm_wins() -> None:
    found = read_keys(json.dumps(jwk("RS256", "a", alg="PS256")).encode(), "k", "RS256")
    assert list(found.keys[0].algorithms) == ["PS256"]
    assert "HS256" in read_keys(json.dumps(OCT).encode(), "k").keys[0].algorithms


def test_a_secret_at_a_public_address_is_no_secret() -> None:
    with pytest.raises(ConfigInvalid, match="anybody can fetch"):
        read_jwks(jwks(OCT), "k", secrets=False)


def test_keys_of_a_source_replace_those_that_came_before() -> None:
    keys = TrustedKeys()
    first, second = (read_keys(text, "k").keys for text in (b"1" * 32, b"2" * 32))
    keys.put("a", Action, first)
    keys.put("b", [Action.PUBLISH], second)
    assert keys.of(Action.PUBLISH) == first + second
    assert keys.of(Action.SUBSCRIBE) == first
    before = keys.generation
    keys.put("a", Action, ())
    assert keys.of(Action.SUBSCRIBE) == ()
    assert keys.generation != before


def test_a_key_is_never_shown() -> None:
    assert SECRET not in repr(read_keys(SECRET.encode(), "k"))


def test_keys_that_follow_others_have_those_of_a_source_and_another_generation() -> None:
    older, newer = TrustedKeys(), TrustedKeys()
    kept = read_keys(b"k" * 32, "issuer").keys
    older.put("issuer", Action, kept)
    older.put("file", Action, read_keys(b"f" * 32, "file").keys)
    newer.follow(older, "issuer", "unknown")
    assert newer.of(Action.PUBLISH) == tuple(kept)
    assert newer.generation > older.generation
