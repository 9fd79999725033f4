"""Promises of the decisions about requests to publish."""

from collections.abc import Mapping

import pytest

from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.grant import Action, Dialect, Grant
from noti.authorization.keys import TrustedKeys, read_keys
from noti.errors import (
    CommandUnknown,
    IdempotencyKeyReused,
    MessageInvalid,
    NotiError,
    Overloaded,
    ProposalUncertain,
    TooLarge,
    Unavailable,
)
from noti.http.answers import Answer
from noti.http.forms import FORM
from noti.http.publish import (
    PublishAuthorizer,
    PublishRequest,
    admit,
    answer_to,
    draft_of,
)
from noti.publishing.events import TOPICS_MAX
from noti.publishing.ports import Draft
from tests.authorization.tokens import NOW, SECRET, token_v0
from tests.http.publishing_stage import GRANTS, Publishers, form

HUB_URL = "http://x/.well-known/mercure"
OLD, NEW = GRANTS["old"], GRANTS["new"]


def request(headers: Mapping[str, str] | None = None) -> PublishRequest:
    given = {
        "host": "x",
        "content-length": "1",
        "content-type": FORM,
        "authorization": "Bearer old",
        **(headers or {}),
    }
    return PublishRequest(
        "/.well-known/mercure", "", lambda name: given.get(name, ""), "192.0.2.1", HUB_URL
    )


def decide(headers: Mapping[str, str], authorizer: PublishAuthorizer) -> Grant | Answer:
    return admit(request(headers), authorizer, 0.0)


def draft(body: bytes, grant: Grant = OLD, key: str = "") -> Draft:
    got = draft_of(grant, request({"idempotency-key": key}), body)
    assert isinstance(got, Draft), got
    return got


def refused(body: bytes, grant: Grant) -> int:
    got = draft_of(grant, request(), body)
    assert isinstance(got, Answer)
    text = got.body.decode()
    assert len(text.splitlines()) == 1
    assert text.endswith("\n")
    assert dict(got.headers)["Content-Type"] == "text/plain; charset=utf-8"
    return got.status


def test_every_field_reaches_the_draft() -> None:
    body = form(
        ("topic", "https://example.com/ü"),
        ("topic", "b"),
        data="a b+c\nd",
        id="urn:x:1",
        type="news",
        retry="500",
        private="false",
        unknown="ignored",
    )
    assert draft(body, key="k1") == Draft(
        ("https://example.com/ü", "b"), "a b+c\nd", "urn:x:1", "news", 500, True, "k1"
    )


def test_a_topic_is_enough() -> None:
    assert draft(b"topic=a") == Draft(("a",), "")


def test_private_means_present_whatever_its_value() -> None:
    for body in (b"topic=a&private", b"topic=a&private=", b"topic=a&private=false"):
        assert draft(body).private
    assert not draft(b"topic=a&Private=on").private


def test_of_a_field_that_is_there_twice_the_first_counts() -> None:
    assert draft(b"topic=a&data=1&data=2&id=x&id=y") == Draft(("a",), "1", "x")


def test_an_empty_id_is_none() -> None:
    assert draft(b"topic=a&id=").id is None


@pytest.mark.parametrize(
    ("body", "in_0x", "in_1_0"),
    [
        (b"", 400, 400),
        (b"data=x", 400, 400),
        (b"topic=a&data=%ff", 400, 400),
        (b"topic=a&retry=-1", 400, 400),
        (b"topic=a&retry=1.5", 400, 400),
        (b"topic=a&retry=%D9%A3", 400, 400),  # an Arabic digit
        (b"topic=a&retry=12345678901", 400, 400),
        (b"topic=a&id=%23x", 400, 400),
        (b"topic=/.well-known/mercure/subscriptions/a", 403, 400),
        (b"&".join([b"topic=a"] * (TOPICS_MAX + 1)), 400, 413),
        (b"topic=a" + b"&x" * 5000, 400, 413),
    ],
)
def test_what_is_wrong_gets_the_status_of_the_dialect(body: bytes, in_0x: int, in_1_0: int) -> None:
    assert (refused(body, OLD), refused(body, NEW)) == (in_0x, in_1_0)


def test_an_empty_retry_is_none_in_0_x_and_wrong_in_1_0() -> None:
    assert refused(b"topic=a&retry=", NEW) == 400
    assert draft(b"topic=a&retry=", OLD).retry_ms == 0


def test_as_many_topics_as_allowed_are_taken() -> None:
    assert len(draft(b"&".join([b"topic=a"] * TOPICS_MAX)).topics) == TOPICS_MAX


def test_an_event_of_a_topic_that_the_token_does_not_name_is_refused_with_the_way_to_a_token() -> (
    None
):
    for name in ("old-a", "new-a"):
        draft(b"topic=a", GRANTS[name])
        got = draft_of(GRANTS[name], request(), b"topic=a&topic=b")
        assert isinstance(got, Answer)
        assert got.status == 403
        assert "insufficient_scope" in dict(got.headers)["WWW-Authenticate"]


def test_a_good_token_is_let_in_with_what_it_allows() -> None:
    assert decide({}, Publishers()) is OLD


@pytest.mark.parametrize("authorization", ["", "Bearer bad"])
def test_without_a_good_token_nobody_publishes(authorization: str) -> None:
    got = decide({"authorization": authorization}, Publishers())
    assert isinstance(got, Answer)
    assert got.status == 401
    assert dict(got.headers)["WWW-Authenticate"].startswith("Bearer")


def test_without_a_key_of_publishers_everybody_is_told_what_to_configure() -> None:
    got = decide({"authorization": ""}, Authorizer(AuthorizationConfig(), TrustedKeys()))
    assert isinstance(got, Answer)
    assert got.status == 401
    assert b"--publisher-jwt-key-file" in got.body


@pytest.mark.parametrize("content_type", ["", "application/json", f"{FORM}; charset=latin1"])
def test_a_body_that_is_no_form_is_refused(content_type: str) -> None:
    got = decide({"content-type": content_type}, Publishers())
    assert isinstance(got, Answer)
    assert got.status == 415


def test_a_body_whose_end_is_not_said_is_refused() -> None:
    got = decide({"content-length": ""}, Publishers())
    assert isinstance(got, Answer)
    assert got.status == 411
    assert isinstance(decide({"content-length": "", "transfer-encoding": "x"}, Publishers()), Grant)


def test_who_may_not_publish_is_told_so_before_anything_about_the_body() -> None:
    got = decide({"authorization": "", "content-type": "text/plain"}, Publishers())
    assert isinstance(got, Answer)
    assert got.status == 401


def test_success_is_the_id_and_nothing_else() -> None:
    got = answer_to(("urn:uuid:1",))
    assert (got.status, got.body) == (200, b"urn:uuid:1")
    assert got.headers == [("Content-Type", "text/plain; charset=utf-8")]


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (MessageInvalid("a topic is empty"), 400, b"A topic is empty."),
        (TooLarge("an event of 9 bytes; 8 are allowed"), 413, b"9 bytes"),
        (Overloaded("too much; retry later"), 503, b"Nothing was committed"),
        (Unavailable("no leader; retry later"), 503, b"Nothing was committed"),
        (IdempotencyKeyReused((None,)), 422, b"give every event its own"),
        (ProposalUncertain("no answer"), 504, b"publish it again"),
        (CommandUnknown(7), 500, b"logs"),
    ],
)
def test_every_failure_of_the_cluster_has_its_status(
    error: NotiError, status: int, word: bytes
) -> None:
    got = answer_to(error)
    assert got.status == status
    assert word in got.body
    assert ("Retry-After" in dict(got.headers)) == (status == 503)


def test_tokens_of_both_dialects_have_one() -> None:
    assert {grant.dialect for grant in GRANTS.values()} == set(Dialect)


def test_a_request_that_comes_again_is_refused_once_its_token_has_ended() -> None:
    revoked: set[str] = set()
    keys = TrustedKeys()
    keys.put("file", Action, read_keys(SECRET.encode(), "old").keys)
    authorizer = Authorizer(AuthorizationConfig(), keys, lambda subject, *_: subject in revoked)
    token = token_v0(["*"], sub="7", exp=NOW + 5)
    again = request({"authorization": f"Bearer {token}"})

    def status(now: float) -> int:
        got = admit(again, authorizer, now)
        return got.status if isinstance(got, Answer) else 200

    assert (status(NOW), status(NOW + 4), status(NOW + 5), status(NOW)) == (200, 200, 401, 200)
    revoked.add("7")
    assert status(NOW) == 401
    revoked.clear()
    assert status(NOW) == 200
    keys.put("file", Action, read_keys(b"n" * 32, "new").keys)
    assert status(NOW) == 401
