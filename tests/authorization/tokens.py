"""Tokens and keys for tests."""

import functools
import json
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from noti.authorization.authorizer import AuthorizationConfig, Authorizer, Revoked
from noti.authorization.claims import DETAIL_TYPE
from noti.authorization.grant import Action
from noti.authorization.keys import TrustedKeys, read_keys

SECRET = "!ChangeThisMercureHubJWTSecretKey!"
ISSUER = "https://issuer.example"
HUB = "https://hub.example/.well-known/mercure"
NOW = 1_800_000_000.0


@functools.cache
def private_key(algorithm: str) -> Any:
    match algorithm:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "ES384":
            return ec.generate_private_key(ec.SECP384R1())
        case "ES512":
            return ec.generate_private_key(ec.SECP521R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, 2048)


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def private_pem(key: Any) -> bytes:
    pem: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem


def jwk(algorithm: str, key_id: str, **more: object) -> dict[str, Any]:
    key = private_key(algorithm).public_key()
    found: dict[str, Any] = jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True)
    return {**found, "kid": key_id, **more}


def signed(
    claims: dict[str, Any],
    key: Any = SECRET,
    algorithm: str = "HS256",
    header: dict[str, Any] | None = None,
) -> str:
    return jwt.encode(claims, key, algorithm, headers=header)


def token_v0(
    publish: list[str] | None = None, subscribe: list[str] | None = None, **claims: Any
) -> str:
    rights = {"publish": publish or [], "subscribe": subscribe or []}
    return signed({"mercure": rights, **claims})


def claims_v1(*details: dict[str, Any], **claims: Any) -> dict[str, Any]:
    typed = [{"type": DETAIL_TYPE, **detail} for detail in details]
    usual = {"iss": ISSUER, "aud": HUB, "exp": NOW + 60, "sub": "7"}
    return {**usual, "authorization_details": typed, **claims}


def token_v1(*details: dict[str, Any], typ: str = "at+jwt", **claims: Any) -> str:
    return signed(claims_v1(*details, **claims), header={"typ": typ})


def detail(*matches: str, actions: tuple[str, ...] = ("subscribe",), **more: Any) -> dict[str, Any]:
    return {"actions": list(actions), "topics": [{"match": one} for one in matches], **more}


def authorizer(revoked: Revoked | None = None, secret: str = SECRET, **config: Any) -> Authorizer:
    keys = TrustedKeys()
    keys.put("test", Action, read_keys(secret.encode(), "test").keys)
    settings = AuthorizationConfig(**{"issuer": ISSUER, "audience": HUB, **config})
    return Authorizer(settings, keys, revoked or (lambda _subject, _token_id, _now: False))


def write_jwks(path: Path, *keys: dict[str, Any]) -> None:
    path.write_text(json.dumps({"keys": list(keys)}))
