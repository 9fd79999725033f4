"""Decoders of tokens for `targets.py`: claims, keys, cookies, lists of what is revoked.

Enters: bytes. Leaves: nothing, or an `AssertionError`, or what the decoder let out.
Never: sockets, files.
"""

import functools
import json

from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.claims import Expectation, dialect_of, grant_of
from noti.authorization.grant import Action, Dialect
from noti.authorization.keys import TrustedKeys, read_keys
from noti.authorization.presented import Presented, check_origin, cookies_of
from noti.authorization.rejection import TokenRejected, answer_to
from noti.authorization.revoked_file import names_of
from noti.authorization.verifying import verify
from tests.authorization.tokens import (
    HUB,
    ISSUER,
    NOW,
    SECRET,
    claims_v1,
    detail,
    jwk,
    private_key,
    public_pem,
    token_v0,
    token_v1,
)

CLAIMS = [
    json.dumps(
        {"mercure": {"publish": ["*"], "subscribe": ["/u/{id}"], "payload": {"a": [1]}}, "exp": NOW}
    ).encode(),
    json.dumps(
        claims_v1(
            detail("/a", "*", actions=("publish", "subscribe"), payload={"n": 1}),
            {"actions": ["x"], "topics": [{"match": "/:id", "match_type": "urlpattern"}]},
            jti="j",
            nbf=NOW - 1,
        )
    ).encode(),
]
TOKENS = [token_v0(["*"], ["a"]).encode(), token_v1(detail("a")).encode()]
KEYS = [
    json.dumps({"keys": [jwk("ES256", "a"), jwk("EdDSA", "b", use="sig")]}).encode(),
    json.dumps({"kty": "oct", "k": "c2Vj" * 12, "alg": "HS256"}).encode(),
    public_pem(private_key("ES256")),
    SECRET.encode(),
]
HEADERS = [
    b'mercureAuthorization=a.b.c; __Secure-mercure_access_token="d"\nhttps://app.example:8443/x',
    b"a=b;mercureAuthorization\nnull",
]
REVOKED = [b"# gone\nsub 7\njti a b\n"]


def read_claims(data: bytes) -> None:
    """Whatever the claims are: a grant that can be asked, or one sentence without their values."""
    try:
        claims = json.loads(data)
    except (ValueError, RecursionError):
        return
    if not isinstance(claims, dict):
        return
    header = {"typ": "at+jwt"}
    expected = Expectation(issuer=ISSUER, audience=HUB)
    dialect = dialect_of(header, claims)
    grant = grant_of(header, claims, dialect, expected, HUB, NOW - 0.5)
    hash(grant)
    grant.may_publish(["/u/7"])
    grant.payload_of("/u/7")


def read_token(data: bytes) -> None:
    verify(data.decode("ascii", errors="ignore"), _keys().of(Action.PUBLISH))


def read_key_file(data: bytes) -> None:
    found = read_keys(data, "file")
    assert found.keys
    for key in found.keys:
        assert key.algorithms


def read_headers(data: bytes) -> None:
    """A request with these cookies from this origin is answered, and with one token at most."""
    cookie, _, origin = data.decode("latin-1").partition("\n")
    cookies_of(cookie)
    presented = Presented(method="POST", hub_url=HUB, cookie=cookie, origin=origin)
    authorizer = Authorizer(AuthorizationConfig(issuer=ISSUER), _keys())
    for action in Action:
        try:
            authorizer.grant(presented, action, now=NOW)
        except TokenRejected as rejection:
            _, headers, _ = answer_to(rejection, HUB)
            assert all(value.isascii() and value.isprintable() for _, value in headers)
    try:
        check_origin(presented, frozenset(), Dialect.V0)
    except TokenRejected:
        assert not origin.startswith("https://hub.example/")


def read_revoked(data: bytes) -> None:
    names_of(data, "file")


@functools.cache
def _keys() -> TrustedKeys:
    keys = TrustedKeys()
    keys.put("test", Action, read_keys(SECRET.encode(), "test").keys)
    return keys
