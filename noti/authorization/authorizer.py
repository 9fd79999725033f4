"""Says what a request may do: finds its token, checks it, and remembers good ones.

Enters: what a request presents; Unix time. Leaves: a grant, or why there is none.
Never: waits; trusts a token after its end, its revocation or a change of keys; keeps tokens, but
only digests of them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from noti.authorization.claims import Expectation, TokenInvalid, dialect_of, grant_of
from noti.authorization.grant import ANONYMOUS, Action, Dialect, Grant
from noti.authorization.keys import TrustedKeys
from noti.authorization.metrics import CHECKED, REJECTED
from noti.authorization.presented import (
    COOKIE_V0,
    IN_QUERY,
    SAFE_METHODS,
    Channel,
    Presented,
    bearer_of,
    check_origin,
)
from noti.authorization.rejection import Reason, TokenRejected
from noti.authorization.verifying import KeyUnknown, verify

GRANTS_MAX: Final = 50_000
"""Good tokens that are remembered: as many as a node has streams by default, which all may come
back in one moment. Some 1 KB each."""

_BY_SIGNATURE: Final = CHECKED.labels("signature")
_BY_CACHE: Final = CHECKED.labels("cache")
for _reason in Reason:
    REJECTED.labels(_reason.value)

Revoked: TypeAlias = Callable[[str | None, str | None, float], bool]
"""Whether tokens of a subject, or with an id, are refused at a Unix time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizationConfig:
    """Whose tokens are taken, and what needs none."""

    anonymous: bool = False
    """Whether public events may be read without a token."""
    protocol: Literal["both", "0", "1"] = "both"
    """Which dialects' tokens are taken."""
    issuer: str | None = None
    audience: str | None = None
    """The hub's identifier; None for its address as each request has it."""
    cookie_name: str = COOKIE_V0
    publish_origins: frozenset[str] = frozenset()


class Authorizer:
    """What requests may do at one node."""

    def __init__(
        self,
        config: AuthorizationConfig,
        keys: TrustedKeys,
        revoked: Revoked = lambda _subject, _token_id, _now: False,
        want_keys: Callable[[], object] = lambda: None,
        newer_keys: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Use `keys`, which may change, and `revoked`, which is asked with every request.

        `want_keys` is called when a token is signed with a key that is not among them, and
        `newer_keys` returns after a moment in which it may have come; None if none ever comes.
        """
        self._config = config
        self._keys = keys
        self._revoked = revoked
        self._want_keys = want_keys
        self.newer_keys = newer_keys
        """For a request whose rejection says `unknown_key`, before it asks again."""
        self._expectation = _expectation_of(config)
        self._grants: dict[tuple[bytes, Action, str], Grant] = {}
        """The one that was used longest ago comes first."""
        self._generation = keys.generation

    def change(self, config: AuthorizationConfig, keys: TrustedKeys) -> None:
        """Go by other settings, and keys that follow those before; nothing is remembered."""
        self._config = config
        self._keys = keys
        self._expectation = _expectation_of(config)

    @property
    def config(self) -> AuthorizationConfig:
        """Whose tokens are taken."""
        return self._config

    def resource(self, hub_url: str) -> str:
        """Return the hub's identifier, which relative patterns are resolved against."""
        return self._config.audience or hub_url

    def grant(self, presented: Presented, action: Action, *, now: float) -> Grant:
        """Return what the request may do at Unix time `now`; raises `TokenRejected`.

        A token that may publish nothing at all is rejected for publishing. Reading without a right
        is none's mistake: public events need none.
        """
        try:
            return self._grant(presented, action, now)
        except TokenRejected as rejection:
            REJECTED.labels(rejection.reason.value).inc()
            raise

    @property
    def without_token(self) -> Grant | None:
        """What whoever shows no token may read; None where that is a mistake."""
        return ANONYMOUS if self._config.anonymous else None

    @property
    def generation(self) -> int:
        """Changes whenever keys do."""
        return self._keys.generation

    def holds(self, grant: Grant, generation: int, now: float) -> bool:
        """Whether a token's grant, given while `generation` was this one, would be given again.

        For connections whose requests all present the same: it spares reading that again.
        """
        if generation != self._keys.generation:
            return False
        if grant.expires_at is not None and now >= grant.expires_at:
            return False
        if self._revoked(grant.subject, grant.token_id, now):
            return False
        _BY_CACHE.inc()
        return True

    def _grant(self, presented: Presented, action: Action, now: float) -> Grant:
        spoken = self._spoken(presented)
        bearer = bearer_of(presented, self._config.cookie_name, spoken)
        if bearer is None:
            if action is Action.SUBSCRIBE and self._config.anonymous:
                return ANONYMOUS
            problem = _MISSING[action] if self._keys.of(action) else _NO_KEY[action]
            raise TokenRejected(Reason.MISSING, problem, spoken)
        spoken = bearer.dialect or spoken
        if bearer.channel is Channel.COOKIE and presented.method not in SAFE_METHODS:
            check_origin(presented, self._config.publish_origins, spoken)
        if bearer.channel is Channel.QUERY and self._config.protocol == "1":
            raise TokenRejected(Reason.MALFORMED, IN_QUERY, Dialect.V1)
        grant = self._of_token(bearer.token, action, self.resource(presented.hub_url), now, spoken)
        dialect = grant.dialect or spoken
        if bearer.channel is Channel.QUERY and dialect is Dialect.V1:
            raise TokenRejected(Reason.MALFORMED, IN_QUERY, Dialect.V1)
        if grant.expires_at is not None and now >= grant.expires_at:
            raise TokenRejected(Reason.INVALID, "the token has expired; get a new one", dialect)
        if self._revoked(grant.subject, grant.token_id, now):
            raise TokenRejected(Reason.INVALID, "the token is revoked", dialect)
        if action is Action.PUBLISH and not grant.publish:
            raise TokenRejected(
                Reason.INSUFFICIENT, "the token does not allow to publish anything", dialect
            )
        return grant

    def _spoken(self, presented: Presented) -> Dialect:
        """Return the dialect of a request whose token tells none."""
        match self._config.protocol:
            case "0":
                return Dialect.V0
            case "1":
                return Dialect.V1
            case _:
                return presented.dialect or Dialect.V0

    def _of_token(
        self, token: str, action: Action, resource: str, now: float, spoken: Dialect
    ) -> Grant:
        if self._generation != self._keys.generation:
            self._generation = self._keys.generation
            self._grants.clear()
        known = sha256(token.encode()).digest(), action, resource
        grant = self._grants.pop(known, None)
        if grant is not None:
            _BY_CACHE.inc()
        else:
            grant = self._checked(token, action, resource, now, spoken)
            _BY_SIGNATURE.inc()
            if len(self._grants) >= GRANTS_MAX:
                del self._grants[next(iter(self._grants))]
        self._grants[known] = grant
        return grant

    def _checked(
        self, token: str, action: Action, resource: str, now: float, spoken: Dialect
    ) -> Grant:
        try:
            header, claims = verify(token, self._keys.of(action))
            match self._config.protocol:
                case "0":
                    spoken = Dialect.V0
                case "1":
                    spoken = Dialect.V1
                case _:
                    spoken = dialect_of(header, claims)
            return grant_of(header, claims, spoken, self._expectation, resource, now)
        except TokenInvalid as error:
            if unknown := isinstance(error, KeyUnknown):
                self._want_keys()
            raise TokenRejected(Reason.INVALID, str(error), spoken, unknown_key=unknown) from None


def _expectation_of(config: AuthorizationConfig) -> Expectation:
    return Expectation(
        issuer=config.issuer, audience=config.audience, required=config.protocol == "0"
    )


_MISSING: Final = {
    Action.PUBLISH: "publishing needs a token: send Authorization: Bearer TOKEN (noti token makes"
    " one)",
    Action.SUBSCRIBE: "reading needs a token here: send Authorization: Bearer TOKEN, or a cookie"
    " (noti token makes one; --anonymous lets everybody read public events)",
}
_NO_KEY: Final = {
    Action.PUBLISH: "nobody may publish here: start noti with --publisher-jwt-key-file",
    Action.SUBSCRIBE: "nobody may read here: start noti with --subscriber-jwt-key-file, or with"
    " --anonymous to let everybody read public events",
}
