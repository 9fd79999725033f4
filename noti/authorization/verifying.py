"""Checks the signature of a token with keys that the operator chose.

Enters: a token; keys, each with the algorithms that it is for. Leaves: header and claims.
Never: `none`; a key, an address of a key or the choice of an algorithm from the token; the token in
an error.

Sources: RFC 7515 (JWS), 4.1, 5.2 and 7.1; RFC 8725 (JWT Best Current Practices), 3.1 to 3.3. PyJWT
does the cryptography; its reader of whole tokens takes three times as long as the rest of it.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, NoReturn, TypeAlias

from noti.authorization.claims import TokenInvalid
from noti.authorization.keys import VerificationKey

Json: TypeAlias = dict[str, Any]

_COMPACT: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]*)")
_REFUSED_HEADERS: Final = frozenset({"crit", "b64"})
"""What must be understood, and we understand none (RFC 7515, 4.1.11; RFC 7797)."""
_HEADERS_KEPT: Final = 256
"""Headers that are remembered: an issuer's tokens have the same one, which takes as long to read as
the signature of a secret."""
_HEADER_CHARS_KEPT: Final = 1024

_NOT_A_TOKEN = "the token is not a JSON Web Token"  # noqa: S105 - a sentence


class KeyUnknown(TokenInvalid):
    """No key has the token's `kid`, or there is none of its kind: it may be newer than our keys."""


def verify(token: str, keys: Sequence[VerificationKey]) -> tuple[Json, Json]:
    """Return header and claims of a token that one of the keys signed; raises `TokenInvalid`."""
    found = _COMPACT.fullmatch(token)
    if found is None:
        raise TokenInvalid(_NOT_A_TOKEN)
    head, payload, signature = found.groups()
    header = _header_of(head) if len(head) <= _HEADER_CHARS_KEPT else _decoded_header(head)
    if not header.keys().isdisjoint(_REFUSED_HEADERS):
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
        if not isinstance(key_id, str):
            raise TokenInvalid("the token's kid is not a text")
        fitting = [key for key in fitting if key.key_id in (None, key_id)]
        if not fitting:
            raise KeyUnknown("the token is signed with a key that this hub does not know (kid)")
    signed, proof = token[: found.end(2)].encode(), _decoded(signature)
    for key in fitting:
        if key.algorithms[algorithm].verify(signed, key.key, proof):
            return header, _claims(_decoded(payload))
    raise TokenInvalid("the token's signature is wrong")


@lru_cache(maxsize=_HEADERS_KEPT)
def _header_of(segment: str) -> Json:
    return _decoded_header(segment)


def _decoded_header(segment: str) -> Json:
    try:
        header = json.loads(_decoded(segment).decode())
    except (ValueError, RecursionError):
        raise TokenInvalid(_NOT_A_TOKEN) from None
    if not isinstance(header, dict):
        raise TokenInvalid(_NOT_A_TOKEN)
    return header


def _decoded(segment: str) -> bytes:
    """Return what base64url without padding stands for (RFC 7515, 2)."""
    try:
        return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        raise TokenInvalid(_NOT_A_TOKEN) from None


def _claims(payload: bytes) -> Json:
    try:
        claims = _CLAIMS.decode(payload.decode())
    except (ValueError, RecursionError):
        raise TokenInvalid("the token's claims are not JSON") from None
    if not isinstance(claims, dict):
        raise TokenInvalid("the token's claims are not an object")
    return claims


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and Infinity, which Python would take


_CLAIMS: Final = json.JSONDecoder(parse_constant=_no_constant)
"""Made once: to make it takes longer than to read claims with it."""
