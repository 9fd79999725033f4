"""Makes a grant of what a verified token says, or says what is invalid in it.

Enters: header and claims, decoded from JSON; the time. Leaves: a grant.
Never: a signature, which was checked before; a clock; anything of a token in an error.

Sources: Mercure 0.x, "Authorization"; Mercure 1.0, "Authorization" and "Authorization Details";
RFC 7519, 4.1; RFC 9068, 4; RFC 9396, 2.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from noti.authorization.grant import Dialect, Grant, Payload
from noti.errors import MessageInvalid
from noti.history.revocations import NAME_CHARS_MAX
from noti.history.selectors import Selector, exact_matcher, pattern_matcher, topic_selector
from noti.history.subscription_commands import PAYLOAD_BYTES_MAX

DETAIL_TYPE: Final = "https://mercure.rocks/authorization-detail"
NAMESPACED_CLAIM: Final = "https://mercure.rocks/"
"""For issuers that allow no short names of their own (OpenID Connect); it wins."""
CLAIM: Final = "mercure"

MATCHERS_MAX: Final = 100
"""Matchers of one token of 1.0; the reference hub has the same limit."""
SELECTORS_MAX: Final = 1000
"""Selectors of a token of 0.x, which knows no limit: as many as an event may have topics."""
MATCHER_BYTES_MAX: Final = 4096
"""Of one matcher; the reference hub has the same limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What tokens must say of who made them, and for whom."""

    issuer: str | None = None
    audience: str | None = None
    """None: the hub's own address, as the request has it (1.0); not looked at (0.x)."""
    required: bool = False
    """Whether tokens of 0.x must have `iss` and `aud`, where these are expected; otherwise only
    those that have them are held to it, as most of 0.x have none."""


class TokenInvalid(MessageInvalid):
    """Claims that a token must not have, or lacks; the text is a clause without its values."""


def dialect_of(header: Mapping[str, Any], claims: Mapping[str, Any]) -> Dialect:
    """Return the dialect in which a token is written."""
    if "authorization_details" in claims:
        return Dialect.V1
    if CLAIM in claims or NAMESPACED_CLAIM in claims:
        return Dialect.V0
    return Dialect.V1 if _is_access_token(header) else Dialect.V0


def grant_of(
    header: Mapping[str, Any],
    claims: Mapping[str, Any],
    dialect: Dialect,
    expected: Expectation,
    resource: str,
    now: float,
) -> Grant:
    """Return what a token with a good signature allows at Unix time `now`.

    `resource` is the hub's identifier: relative patterns are resolved against it, and tokens of 1.0
    must be meant for it. Raises `TokenInvalid`.
    """
    expires_at = _time(claims, "exp")
    not_before = _time(claims, "nbf")
    if expires_at is not None and now >= expires_at:
        raise TokenInvalid("the token has expired; get a new one")
    if not_before is not None and now < not_before:
        raise TokenInvalid("the token is not valid yet (nbf)")
    subject, token_id = _name(claims, "sub"), _name(claims, "jti")
    if dialect is Dialect.V0:
        _check_v0(claims, expected)
        publish, subscribe, payloads = _rights_v0(claims)
    else:
        if not _is_access_token(header):
            raise TokenInvalid("the token's typ is not at+jwt")
        if expires_at is None:
            raise TokenInvalid("the token has no exp")
        if expected.issuer is None:
            raise TokenInvalid("this hub trusts no issuer (--jwt-issuer)")
        if claims.get("iss") != expected.issuer:
            raise TokenInvalid("the token is not from the issuer that this hub trusts (iss)")
        if resource not in _audiences(claims):
            raise TokenInvalid("the token is not for this hub (aud)")
        publish, subscribe, payloads = _rights_v1(claims.get("authorization_details", []), resource)
    return Grant(
        dialect=dialect,
        publish=publish,
        subscribe=subscribe,
        payloads=payloads,
        subject=subject,
        token_id=token_id,
        expires_at=expires_at,
    )


def _is_access_token(header: Mapping[str, Any]) -> bool:
    kind = header.get("typ")
    return isinstance(kind, str) and kind.lower().removeprefix("application/") == "at+jwt"


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenInvalid(f"the token's {name} is not a number")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise TokenInvalid(f"the token's {name} is not a time")
    return seconds


def _name(claims: Mapping[str, Any], name: str) -> str | None:
    value = claims.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > NAME_CHARS_MAX:
        raise TokenInvalid(f"the token's {name} is not a text of up to {NAME_CHARS_MAX} characters")
    return value


def _audiences(claims: Mapping[str, Any]) -> list[object]:
    value = claims.get("aud")
    return value if isinstance(value, list) else [value]


def _check_v0(claims: Mapping[str, Any], expected: Expectation) -> None:
    def held_to(value: str | None, name: str) -> bool:
        return value is not None and (expected.required or name in claims)

    if held_to(expected.issuer, "iss") and claims.get("iss") != expected.issuer:
        raise TokenInvalid("the token is not from the issuer that this hub trusts (iss)")
    if held_to(expected.audience, "aud") and expected.audience not in _audiences(claims):
        raise TokenInvalid("the token is not for this hub (aud)")


_Rights = tuple[frozenset[Selector], frozenset[Selector], tuple[Payload, ...]]


def _rights_v0(claims: Mapping[str, Any]) -> _Rights:
    claim = claims.get(NAMESPACED_CLAIM, claims.get(CLAIM))
    if claim is None:
        return frozenset(), frozenset(), ()
    if not isinstance(claim, dict):
        raise TokenInvalid(f"the token's claim {CLAIM} is not an object")
    publish, subscribe = (_selectors(claim.get(name), name) for name in ("publish", "subscribe"))
    payload = claim.get("payload")
    payloads = () if payload is None else (Payload(None, _json_of([payload])[0]),)
    return publish, subscribe, payloads


def _selectors(value: object, name: str) -> frozenset[Selector]:
    if value is None:
        return frozenset()
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise TokenInvalid(f"the token's {CLAIM}.{name} is not a list of selectors")
    if len(value) > SELECTORS_MAX:
        raise TokenInvalid(f"the token has more than {SELECTORS_MAX} selectors")
    return frozenset(_selector(one) for one in value)


def _selector(text: str) -> Selector:
    _check_size(text)
    try:
        return topic_selector(text)
    except MessageInvalid as error:
        raise TokenInvalid(f"a selector of the token is invalid: {error}") from None


def _rights_v1(details: object, resource: str) -> _Rights:
    if not isinstance(details, list):
        raise TokenInvalid("the token's authorization_details is not a list")
    publish: set[Selector] = set()
    subscribe: set[Selector] = set()
    payloads: list[tuple[frozenset[Selector], object]] = []
    count = 0
    for detail in details:
        if not isinstance(detail, dict) or not isinstance(detail.get("type"), str):
            raise TokenInvalid("one of the token's authorization_details has no type")
        if detail["type"] != DETAIL_TYPE:
            continue
        actions = _actions(detail)
        topics = detail.get("topics")
        if not isinstance(topics, list) or not topics:
            raise TokenInvalid("one of the token's authorization_details has no topics")
        count += len(topics)
        if count > MATCHERS_MAX:
            raise TokenInvalid(f"the token has more than {MATCHERS_MAX} matchers")
        matchers = frozenset(_matcher(one, resource) for one in topics)
        payload = detail.get("payload")
        if "payload" in detail and not isinstance(payload, dict):
            raise TokenInvalid("a payload in the token's authorization_details is not an object")
        if "publish" in actions:
            publish |= matchers
        if "subscribe" in actions:
            subscribe |= matchers
            payloads.append((matchers, payload))
    texts = _json_of([payload for _, payload in payloads])
    attached = (Payload(kept[0], text) for kept, text in zip(payloads, texts, strict=True))
    return frozenset(publish), frozenset(subscribe), tuple(attached)


def _actions(detail: Mapping[str, object]) -> list[object]:
    actions = detail.get("actions")
    if (
        not isinstance(actions, list)
        or not actions
        or not all(isinstance(action, str) for action in actions)
    ):
        raise TokenInvalid("one of the token's authorization_details has no actions")
    return actions


def _matcher(value: object, resource: str) -> Selector:
    if not isinstance(value, dict) or not isinstance(value.get("match"), str):
        raise TokenInvalid("a topic in the token's authorization_details has no match")
    text, kind = value["match"], value.get("match_type", "exact")
    _check_size(text)
    try:
        match kind:
            case "exact":
                return exact_matcher(text)
            case "urlpattern":
                return pattern_matcher(text, resource)
            case _:
                raise TokenInvalid("a match_type of the token is not supported")
    except TokenInvalid:
        raise
    except MessageInvalid as error:
        raise TokenInvalid(f"a matcher of the token is invalid: {error}") from None


def _check_size(text: str) -> None:
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError:
        raise TokenInvalid("a selector of the token is no Unicode text") from None
    if size_bytes > MATCHER_BYTES_MAX:
        raise TokenInvalid(f"a selector of the token is longer than {MATCHER_BYTES_MAX} bytes")


def _json_of(payloads: Iterable[object]) -> list[str | None]:
    """Return payloads as compact JSON, None for None; bounded all together."""
    texts = [
        None
        if payload is None
        else json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        for payload in payloads
    ]
    try:
        size_bytes = sum(len(text.encode()) for text in texts if text is not None)
    except UnicodeEncodeError:
        raise TokenInvalid("the token's payload is no Unicode text") from None
    if size_bytes > PAYLOAD_BYTES_MAX:
        raise TokenInvalid(f"the token's payload is longer than {PAYLOAD_BYTES_MAX} bytes")
    return texts
