"""Checks the signature of a token with keys that the operator chose.

Enters: a token; keys, each with the algorithms that it is for. Leaves: header and claims.
Never: `none`; a key, an address of a key or the choice of an algorithm from the token; the token in
an error.

Sources: RFC 7515 (JWS), 4.1 and 5.2; RFC 8725 (JWT Best Current Practices), 3.1 to 3.3; PyJWT,
which does the cryptography.
"""

import json
from collections.abc import Sequence
from typing import Any, NoReturn, TypeAlias

from jwt import PyJWS
from jwt.exceptions import PyJWTError

from noti.authorization.claims import TokenInvalid
from noti.authorization.keys import VerificationKey

Json: TypeAlias = dict[str, Any]

_NOT_A_TOKEN = "the token is not a JSON Web Token"  # noqa: S105 - a sentence


class KeyUnknown(TokenInvalid):
    """No key has the token's `kid`, or there is none of its kind: it may be newer than our keys."""


def verify(token: str, keys: Sequence[VerificationKey]) -> tuple[Json, Json]:
    """Return header and claims of a token that one of the keys signed; raises `TokenInvalid`."""
    data = token.encode("ascii")
    try:
        parts = _JWS.decode_complete(data, options={"verify_signature": False})
    except (PyJWTError, ValueError, RecursionError):
        raise TokenInvalid(_NOT_A_TOKEN) from None
    header = parts["header"]
    if "crit" in header:
        raise TokenInvalid("the token has a critical header (crit) that this hub does not know")
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm.lower() == "none":
        raise TokenInvalid("the token is not signed")
    if not keys:
        raise KeyUnknown("this hub has no key to check tokens with")
    fitting = [key for key in keys if algorithm in key.algorithms]
    if not fitting:
        raise KeyUnknown("the token is signed with an algorithm that this hub has no key for")
    if key_id is not None:
        fitting = [key for key in fitting if key.key_id in (None, key_id)]
        if not fitting:
            raise KeyUnknown("the token is signed with a key that this hub does not know (kid)")
    signed = data.rpartition(b".")[0]
    for key in fitting:
        if key.algorithms[algorithm].verify(signed, key.key, parts["signature"]):
            return header, _claims(parts["payload"])
    raise TokenInvalid("the token's signature is wrong")


_JWS = PyJWS()


def _claims(payload: bytes) -> Json:
    try:
        claims = json.loads(payload, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenInvalid("the token's claims are not JSON") from None
    if not isinstance(claims, dict):
        raise TokenInvalid("the token's claims are not an object")
    return claims


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which Python would take
