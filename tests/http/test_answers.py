"""Answers say in the dialect in use what is wrong, and nothing that was presented."""

import json

from noti.authorization.grant import Dialect
from noti.authorization.presented import Bearer, Channel, Presented
from noti.authorization.rejection import Reason, TokenRejected
from noti.http.answers import PROBLEM, invalid, plain, rejected
from noti.http.response_headers import NOT_STORED
from tests import promises


def test_what_is_invalid_is_told_in_each_dialect_and_not_stored() -> None:
    old, new = (invalid(dialect, "No.", 404) for dialect in (Dialect.V0, Dialect.V1))
    assert old == plain(404, "No.", NOT_STORED)
    assert old.body == b"No.\n"
    assert ("Content-Type", PROBLEM) in new.headers
    assert NOT_STORED in new.headers
    assert json.loads(new.body) == {"title": "Not Found", "status": 404, "detail": "No."}


def test_a_rejection_is_not_stored_and_says_whether_keys_may_come() -> None:
    rejection = TokenRejected(Reason.INVALID, "the token has expired", Dialect.V1)
    answer = rejected(rejection, "http://h/hub", awaits_keys=True)
    assert (answer.status, answer.awaits_keys) == (401, True)
    assert NOT_STORED in answer.headers


@promises.SECRETS_NOT_SHOWN
def test_what_is_presented_is_not_in_what_is_logged_of_it() -> None:
    headers = {"authorization": "Bearer s3cret", "cookie": "mercureAuthorization=s3cret"}
    shown = Presented.by(
        lambda name: headers.get(name, ""),
        method="GET",
        hub_url="http://h",
        query_tokens=("s3cret",),
    )
    assert "s3cret" not in repr(shown)
    assert "s3cret" not in repr(Bearer("s3cret", Channel.HEADER, None))
