"""Makes tokens, as an application or an issuer does: for trying things, for scripts and for tests.

Enters: a key; what the token is to allow. Leaves: a token.
Never: a clock; `none`; a key in an error.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.exceptions import PyJWTError

from noti.authorization.claims import CLAIM, DETAIL_TYPE
from noti.authorization.grant import Dialect
from noti.authorization.keys import HMAC, algorithms_of
from noti.errors import ConfigInvalid

ACCESS_TOKEN: Final = "at+jwt"  # noqa: S105 - a media type
"""RFC 9068, 2.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenDraft:
    """What a token is to say."""

    dialect: Dialect = Dialect.V0
    publish: Sequence[str] = ()
    subscribe: Sequence[str] = ()
    match_type: str = "exact"
    """Of all topics in a token of 1.0: exact or urlpattern."""
    payload: Any = None
    subject: str | None = None
    token_id: str | None = None
    issuer: str | None = None
    audience: str | None = None
    issued_at: float
    """Unix time, seconds."""
    expires_in_s: float | None = None

    def claims(self) -> dict[str, Any]:
        """Return the claims in their dialect; raises `ConfigInvalid` when one is missing."""
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": self.subject,
            "jti": self.token_id,
            "iat": int(self.issued_at),
        }
        if self.expires_in_s is not None:
            claims["exp"] = int(self.issued_at + self.expires_in_s)
        claims = {name: value for name, value in claims.items() if value is not None}
        if self.dialect is Dialect.V0:
            rights = {"publish": list(self.publish), "subscribe": list(self.subscribe)}
            if self.payload is not None:
                rights["payload"] = self.payload
            return {**claims, CLAIM: rights}
        for name, flag in (("iss", "--issuer"), ("aud", "--audience"), ("exp", "--expires")):
            if name not in claims:
                raise ConfigInvalid(f"a token of Mercure 1.0 needs {name}; give {flag}")
        return {**claims, "authorization_details": self._details()}

    def _details(self) -> list[dict[str, Any]]:
        details = []
        for action, topics in (("publish", self.publish), ("subscribe", self.subscribe)):
            if not topics:
                continue
            detail: dict[str, Any] = {
                "type": DETAIL_TYPE,
                "actions": [action],
                "topics": [
                    {"match": topic}
                    if self.match_type == "exact" or topic == "*"
                    else {"match": topic, "match_type": self.match_type}
                    for topic in topics
                ],
            }
            if action == "subscribe" and self.payload is not None:
                detail["payload"] = self.payload
            details.append(detail)
        return details


def signed_token(draft: TokenDraft, content: bytes, name: str, algorithm: str | None) -> str:
    """Return the token, signed with the key in `content`, of a file called `name`.

    A secret signs with HS256, and another key with what fits it, unless `algorithm` says otherwise.
    Raises `ConfigInvalid` for a key that cannot sign, or not with that.
    """
    key, key_id, fitting = _signing_key(content, name)
    chosen = algorithm or fitting[0]
    if chosen not in fitting:
        raise ConfigInvalid(f"{name} has a key for {' or '.join(fitting)}, not for {chosen}")
    headers: dict[str, Any] = {"kid": key_id} if key_id is not None else {}
    if draft.dialect is Dialect.V1:
        headers["typ"] = ACCESS_TOKEN
    signer = jwt.get_algorithm_by_name(chosen)
    # By the algorithm itself: of a short secret, whoever checks the token with it is told.
    head = _segment({"typ": "JWT", **headers, "alg": chosen})
    body = f"{head}.{_segment(draft.claims())}"
    signature = jwt.utils.base64url_encode(signer.sign(body.encode(), key)).decode()
    return f"{body}.{signature}"


def _segment(value: object) -> str:
    text = json.dumps(value, separators=(",", ":"))
    return jwt.utils.base64url_encode(text.encode()).decode()


def _signing_key(content: bytes, name: str) -> tuple[Any, str | None, list[str]]:
    """Return a key that signs, its id, and the algorithms that it is for."""
    key_id = None
    try:
        if b"-----BEGIN " in content:
            if b"PRIVATE KEY-----" not in content:
                raise ConfigInvalid(
                    f"{name} holds a public key, which cannot sign; name its other half"
                )
            key: Any = load_pem_private_key(content, None)
        elif content.lstrip()[:1] == b"{":
            jwk = json.loads(content)
            if "keys" in jwk:
                [jwk] = jwk["keys"]
            parsed = jwt.PyJWK(jwk)
            key, key_id = parsed.key, parsed.key_id
        else:
            key = content.rstrip(b"\r\n")
    except (ValueError, TypeError, KeyError, PyJWTError, UnsupportedAlgorithm):
        raise ConfigInvalid(f"{name} is no secret, private key in PEM, or private JWK") from None
    if isinstance(key, bytes):
        if not key:
            raise ConfigInvalid(f"{name} is empty; put a secret of 32 bytes there")
        return key, key_id, list(HMAC)
    if not hasattr(key, "sign"):
        raise ConfigInvalid(f"{name} holds a public key, which cannot sign; name its other half")
    fitting = algorithms_of(key.public_key())
    if not fitting:
        raise ConfigInvalid(f"{name} has a kind of key that signs no tokens")
    return key, key_id, fitting
