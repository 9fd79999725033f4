"""Finds the token of a request: header, query or cookie, by the rules of each dialect.

Enters: a request's headers and query. Leaves: one token and where it was, or none, or why not.
Never: what the token says; a choice between two tokens that the sender did not make.

Sources: Mercure 0.x and 1.0, "Authorization"; RFC 6750, 2; RFC 6265, 5.4.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self
from urllib.parse import urlsplit

from noti.authorization.grant import Dialect
from noti.authorization.rejection import Reason, TokenRejected

COOKIE_V0: Final = "mercureAuthorization"
COOKIE_V1: Final = "__Secure-mercure_access_token"

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
"""They change nothing (RFC 9110, 9.2.1), so a page that forges them gains nothing."""

TOKEN_PARAMETER: Final = "authorization"  # noqa: S105 - a name
"""The query's parameter with a token (0.x)."""

TOKEN_BYTES_MAX: Final = 65_536
"""As long as a request's head may be by default."""


IN_QUERY: Final = "in Mercure 1.0, a token must not be in the address: use the Authorization header"


class Channel(Enum):
    """Where a token was."""

    HEADER = "header"
    QUERY = "query"
    COOKIE = "cookie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a request shows of itself; strings as they stand in it."""

    method: str = "GET"
    hub_url: str = ""
    """The hub's address as the request has it: https://host/.well-known/mercure."""
    authorization: str | None = field(default=None, repr=False)
    """The Authorization header; None without one. Several are joined with commas, and refused."""
    query_tokens: tuple[str, ...] = field(default=(), repr=False)
    """Values of the query's `authorization` parameters, decoded."""
    cookie: str = field(default="", repr=False)
    """The Cookie header; several are joined with `; `."""
    origin: str = ""
    referer: str = ""
    dialect: Dialect | None = None
    """Which dialect the request's other parameters speak, if they tell (`topic`, `match`)."""

    @classmethod
    def by(
        cls,
        header: Callable[[str], str],
        *,
        method: str,
        hub_url: str,
        query_tokens: tuple[str, ...] = (),
        dialect: Dialect | None = None,
    ) -> Self:
        """Return what a request shows; `header` returns a header's value by its lower-case name."""
        return cls(
            method=method,
            hub_url=hub_url,
            authorization=header("authorization") or None,
            query_tokens=query_tokens,
            cookie=header("cookie"),
            origin=header("origin"),
            referer=header("referer"),
            dialect=dialect,
        )


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token, unchecked, and where it was."""

    token: str = field(repr=False)
    channel: Channel
    dialect: Dialect | None
    """Which dialect has such a channel; None for both."""


def bearer_of(presented: Presented, cookie_v0: str, spoken: Dialect) -> Bearer | None:
    """Return the token that counts, or None when none was presented.

    The header wins, then the query (0.x), then a cookie; `spoken` says which cookie is looked for
    first. Raises `TokenRejected` when something was presented that is no token.
    """
    if presented.authorization is not None:
        scheme, _, token = presented.authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise _malformed("the Authorization header must be: Bearer TOKEN", spoken)
        return Bearer(_checked(token.strip(" "), spoken), Channel.HEADER, None)
    if presented.query_tokens:
        if presented.dialect is Dialect.V1:
            raise _malformed(IN_QUERY, Dialect.V1)
        if len(presented.query_tokens) > 1:
            raise _malformed("there must be one authorization parameter, not several", spoken)
        [token] = presented.query_tokens
        return Bearer(_checked(token, spoken), Channel.QUERY, Dialect.V0)
    if presented.cookie:
        names = [(COOKIE_V1, Dialect.V1), (cookie_v0, Dialect.V0)]
        if spoken is Dialect.V0:
            names.reverse()
        cookies = cookies_of(presented.cookie)
        for name, dialect in names:
            if (value := cookies.get(name)) is not None:
                return Bearer(_checked(value, dialect), Channel.COOKIE, dialect)
    return None


def cookies_of(header: str) -> dict[str, str]:
    """Return the cookies of a Cookie header; of several with one name the first, as sent.

    Browsers send the one with the longest path first (RFC 6265, 5.4).
    """
    found: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.strip(" \t").partition("=")
        if equals:
            value = value.strip(" \t")
            if len(value) >= 2 and value[0] == value[-1] == '"':
                value = value[1:-1]
            found.setdefault(name.rstrip(" \t"), value)
    return found


def check_origin(presented: Presented, allowed: frozenset[str], dialect: Dialect) -> None:
    """Refuse what a page of another origin may have forged: a cookie comes with it by itself.

    `allowed` are origins; that of the hub itself always is one, whatever its scheme: a proxy may
    have ended TLS. Raises `TokenRejected`.
    """
    source = presented.origin or presented.referer
    if not source:
        raise TokenRejected(
            Reason.FORGED,
            "a request with a cookie needs an Origin or Referer header; or send the token in the"
            " Authorization header",
            dialect,
        )
    origin = origin_of(source)
    own = origin_of(presented.hub_url)
    same = own is not None and origin is not None and origin[1] == own[1]
    if origin is None or not (same or "://".join(origin) in allowed):
        raise TokenRejected(
            Reason.FORGED,
            "pages of this origin may not publish with a cookie; the operator can add it to"
            " --publish-origins",
            dialect,
        )


def origin_of(url: str) -> tuple[str, str] | None:
    """Return scheme and host of a URL, with the port unless it is the scheme's own; or None."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = (parts.hostname or "").lower()
    if not parts.scheme or not host:
        return None
    if ":" in host:
        host = f"[{host}]"
    if port is None or (parts.scheme, port) in {("http", 80), ("https", 443)}:
        return parts.scheme, host
    return parts.scheme, f"{host}:{port}"


def _checked(token: str, dialect: Dialect) -> str:
    if not token:
        raise _malformed("the token is empty; leave it out, or send one", dialect)
    if " " in token or "," in token:
        raise _malformed("there must be one token, not several", dialect)
    if len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise TokenRejected(Reason.INVALID, "the token is not a JSON Web Token", dialect)
    return token


def _malformed(problem: str, dialect: Dialect) -> TokenRejected:
    return TokenRejected(Reason.MALFORMED, problem, dialect)
