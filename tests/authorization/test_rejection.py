"""How requests without a usable token are answered, in both dialects."""

import pytest

from noti.authorization.grant import Dialect
from noti.authorization.rejection import Reason, TokenRejected, answer_to, metadata_url
from tests.authorization.tokens import HUB

METADATA = "https://hub.example/.well-known/oauth-protected-resource/.well-known/mercure"


@pytest.mark.parametrize(
    ("dialect", "reason", "status", "challenge"),
    [
        (Dialect.V1, Reason.MISSING, 401, f'Bearer resource_metadata="{METADATA}"'),
        (Dialect.V1, Reason.INVALID, 401, 'Bearer error="invalid_token"'),
        (Dialect.V1, Reason.INSUFFICIENT, 403, 'Bearer error="insufficient_scope"'),
        (Dialect.V1, Reason.MALFORMED, 400, 'Bearer error="invalid_request"'),
        (Dialect.V1, Reason.FORGED, 403, None),
        (Dialect.V0, Reason.MISSING, 401, "Bearer resource_metadata="),
        (Dialect.V0, Reason.INVALID, 401, 'Bearer error="invalid_token"'),
        (Dialect.V0, Reason.MALFORMED, 401, 'Bearer error="invalid_request"'),
        (Dialect.V0, Reason.INSUFFICIENT, 403, 'Bearer error="insufficient_scope"'),
        (Dialect.V0, Reason.FORGED, 401, "Bearer resource_metadata="),
    ],
)
def test_each_rejection_has_the_status_and_challenge_of_its_dialect(
    dialect: Dialect, reason: Reason, status: int, challenge: str | None
) -> None:
    answered = answer_to(TokenRejected(reason, "do this", dialect), HUB)
    headers = dict(answered[1])
    assert answered[0] == status
    assert headers.get("WWW-Authenticate", "").startswith(challenge or "")
    assert ("WWW-Authenticate" in headers) == (challenge is not None)
    assert b"do this" in answered[2]


def test_a_challenge_holds_nothing_that_could_end_its_quotes() -> None:
    rejection = TokenRejected(Reason.INVALID, 'say "a"\\\r\nX: y', Dialect.V1)
    challenge = dict(answer_to(rejection, HUB)[1])["WWW-Authenticate"]
    assert "error_description=\"say 'a'X: y\"" in challenge
    assert '"' not in metadata_url('https://h"x/.well-known/mercure\r\n').removeprefix('"')
