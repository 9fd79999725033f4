"""Says why a request has no usable token, and how it is answered.

Enters: what was wrong, in which dialect. Leaves: status, headers and body of the answer.
Never: a token or a part of one.

Sources: RFC 6750, 3; Mercure 1.0, "Authorization"; RFC 9728, 5.1.
"""

from enum import Enum
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from noti.authorization.grant import Dialect
from noti.errors import RemoteError

HeaderFields: TypeAlias = list[tuple[str, str]]

METADATA_PREFIX: Final = "/.well-known/oauth-protected-resource"
"""Before the hub's path: where its metadata is (RFC 9728, 3.1)."""


class Reason(Enum):
    """What was wrong; the value is that of the metric's label."""

    MISSING = "missing"
    """No token was presented, and one is needed."""
    MALFORMED = "malformed"
    """What was presented is not how a token is presented."""
    INVALID = "invalid"
    """The token is bad: signature, time, issuer, claims; or it is revoked."""
    INSUFFICIENT = "insufficient"
    """The token is good, and does not allow this."""
    FORGED = "forged"
    """A cookie came from a page of an origin that may not publish, or from nobody knows where."""


class TokenRejected(RemoteError):
    """A request has no token that allows what it wants; the text is a sentence for its sender."""

    def __init__(
        self, reason: Reason, problem: str, dialect: Dialect, *, unknown_key: bool = False
    ) -> None:
        super().__init__(problem)
        self.reason = reason
        self.dialect = dialect
        """In which it is to be answered."""
        self.unknown_key = unknown_key
        """Whether its key is unknown and keys may be fetched: worth a second look soon."""


_STATUS: Final = {
    (Dialect.V0, Reason.MISSING): 401,
    (Dialect.V0, Reason.MALFORMED): 401,
    (Dialect.V0, Reason.INVALID): 401,
    (Dialect.V0, Reason.INSUFFICIENT): 403,
    (Dialect.V0, Reason.FORGED): 401,
    (Dialect.V1, Reason.MISSING): 401,
    (Dialect.V1, Reason.MALFORMED): 400,
    (Dialect.V1, Reason.INVALID): 401,
    (Dialect.V1, Reason.INSUFFICIENT): 403,
    (Dialect.V1, Reason.FORGED): 403,
}
_ERROR: Final = {
    Reason.MALFORMED: "invalid_request",
    Reason.INVALID: "invalid_token",
    Reason.INSUFFICIENT: "insufficient_scope",
}
_TITLE: Final = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden"}


def answer_to(rejection: TokenRejected, hub_url: str) -> tuple[int, HeaderFields, bytes]:
    """Return status, headers and body. `hub_url` is the hub's address as the request has it.

    The challenge names the hub's metadata, from which a client of 1.0 learns where tokens are
    issued. A request without a token is told no error (RFC 6750, 3.1).
    """
    status = _STATUS[rejection.dialect, rejection.reason]
    headers: HeaderFields = [("Content-Type", "text/plain; charset=utf-8")]
    if rejection.reason is not Reason.FORGED or status == 401:
        fields = []
        error = _ERROR.get(rejection.reason)
        if error is not None:
            description = str(rejection).replace("\\", "").replace('"', "'")
            fields += [f'error="{error}"', f'error_description="{_ascii(description)}"']
        if hub_url:
            fields.append(f'resource_metadata="{metadata_url(hub_url)}"')
        challenge = " ".join(filter(None, ("Bearer", ", ".join(fields))))
        headers.append(("WWW-Authenticate", challenge))
    return status, headers, f"{_TITLE[status]}: {rejection}\n".encode()


def metadata_url(hub_url: str) -> str:
    """Return where the metadata of the hub is (RFC 9728, 3.1)."""
    parts = urlsplit(hub_url)
    return _ascii(f"{parts.scheme}://{parts.netloc}{METADATA_PREFIX}{parts.path}").replace('"', "")


def _ascii(text: str) -> str:
    return "".join(char for char in text if " " <= char <= "~")
