"""What a whole request is granted, and what is remembered of tokens."""

import pytest

from noti.authorization.authorizer import AuthorizationConfig, Authorizer
from noti.authorization.grant import ANONYMOUS, Action, Dialect, Grant
from noti.authorization.keys import TrustedKeys, read_keys
from noti.authorization.presented import Presented
from noti.authorization.rejection import Reason, TokenRejected
from noti.history.selectors import ALL_TOPICS, topic_selector
from tests import promises
from tests.authorization.tokens import HUB, NOW, SECRET, authorizer, detail, token_v0, token_v1


def with_header(token: str) -> Presented:
    return Presented(authorization=f"Bearer {token}", hub_url=HUB)


def rejected(
    one: Authorizer, presented: Presented, action: Action = Action.SUBSCRIBE, now: float = NOW
) -> TokenRejected:
    with pytest.raises(TokenRejected) as caught:
        one.grant(presented, action, now=now)
    return caught.value


def test_a_good_token_grants_what_it_says() -> None:
    token = token_v0(["*"], ["/users/7"], sub="7", jti="j", exp=NOW + 5)
    assert authorizer().grant(with_header(token), Action.SUBSCRIBE, now=NOW) == Grant(
        dialect=Dialect.V0,
        publish=frozenset({ALL_TOPICS}),
        subscribe=frozenset({topic_selector("/users/7")}),
        subject="7",
        token_id="j",
        expires_at=NOW + 5,
    )


def test_without_a_token_only_readers_are_anonymous_and_only_if_allowed() -> None:
    assert authorizer(anonymous=True).grant(Presented(), Action.SUBSCRIBE, now=NOW) is ANONYMOUS
    assert rejected(authorizer(), Presented()).reason is Reason.MISSING
    open_hub = authorizer(anonymous=True)
    assert open_hub.without_token is ANONYMOUS
    assert authorizer().without_token is None
    assert rejected(open_hub, Presented(), Action.PUBLISH).reason is Reason.MISSING


@promises.BAD_TOKEN_NEVER_ANONYMOUS
@pytest.mark.parametrize(
    "presented",
    [
        with_header("garbage"),
        with_header(token_v0(["*"]) + "x"),
        with_header(token_v0(subscribe=["a"], exp=NOW)),
        Presented(cookie=f"mercureAuthorization={token_v0(exp=NOW - 1)}"),
        Presented(query_tokens=("a.b.c",)),
    ],
)
def test_a_bad_token_is_never_an_anonymous_reader(presented: Presented) -> None:
    assert rejected(authorizer(anonymous=True), presented).reason is Reason.INVALID


def test_a_token_that_may_publish_nothing_is_not_enough_to_publish() -> None:
    presented = with_header(token_v0(subscribe=["*"]))
    assert rejected(authorizer(), presented, Action.PUBLISH).reason is Reason.INSUFFICIENT
    assert authorizer().grant(presented, Action.SUBSCRIBE, now=NOW).subscribe == {ALL_TOPICS}


def test_publishers_and_subscribers_have_keys_of_their_own() -> None:
    keys = TrustedKeys()
    keys.put("publishers", [Action.PUBLISH], read_keys(SECRET.encode(), "p").keys)
    keys.put("subscribers", [Action.SUBSCRIBE], read_keys(b"s" * 32, "s").keys)
    both = Authorizer(AuthorizationConfig(), keys)
    presented = with_header(token_v0(["*"]))
    assert both.grant(presented, Action.PUBLISH, now=NOW).publish
    assert rejected(both, presented, Action.SUBSCRIBE).reason is Reason.INVALID


def test_a_remembered_token_ends_with_its_time() -> None:
    one = authorizer()
    presented = with_header(token_v0(exp=NOW + 5))
    assert one.grant(presented, Action.SUBSCRIBE, now=NOW) is one.grant(
        presented, Action.SUBSCRIBE, now=NOW + 4.9
    )
    assert rejected(one, presented, now=NOW + 5).reason is Reason.INVALID


def test_a_remembered_token_ends_with_its_key() -> None:
    keys = TrustedKeys()
    keys.put("file", Action, read_keys(SECRET.encode(), "old").keys)
    one = Authorizer(AuthorizationConfig(), keys)
    presented = with_header(token_v0())
    one.grant(presented, Action.SUBSCRIBE, now=NOW)
    keys.put("file", Action, read_keys(b"n" * 32, "new").keys)
    assert rejected(one, presented).reason is Reason.INVALID


@promises.REVOKED_EVERYWHERE
def test_a_remembered_token_ends_with_its_revocation() -> None:
    revoked: set[str] = set()
    one = authorizer(lambda subject, token_id, now: bool(revoked & {subject, token_id}))
    presented = with_header(token_v0(sub="7", jti="j"))
    one.grant(presented, Action.SUBSCRIBE, now=NOW)
    for name in ("7", "j"):
        revoked.add(name)
        assert rejected(one, presented).reason is Reason.INVALID
        revoked.clear()
    one.grant(presented, Action.SUBSCRIBE, now=NOW)


def test_of_remembered_tokens_the_one_unused_for_longest_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("noti.authorization.authorizer.GRANTS_MAX", 2)
    one = authorizer()
    first, second, third = (with_header(token_v0(sub=name)) for name in "123")
    kept = one.grant(first, Action.SUBSCRIBE, now=NOW)
    forgotten = one.grant(second, Action.SUBSCRIBE, now=NOW)
    assert one.grant(first, Action.SUBSCRIBE, now=NOW) is kept
    one.grant(third, Action.SUBSCRIBE, now=NOW)
    assert one.grant(first, Action.SUBSCRIBE, now=NOW) is kept
    assert one.grant(second, Action.SUBSCRIBE, now=NOW) is not forgotten


def test_a_token_of_10_is_for_one_hub_and_must_not_be_in_the_address() -> None:
    token = token_v1(detail("/users/7"))
    assert authorizer().grant(with_header(token), Action.SUBSCRIBE, now=NOW).dialect is Dialect.V1
    elsewhere = Presented(authorization=f"Bearer {token}", hub_url="https://other.example/hub")
    assert rejected(authorizer(audience=None), elsewhere).reason is Reason.INVALID
    in_query = rejected(authorizer(), Presented(query_tokens=(token,)))
    assert (in_query.reason, in_query.dialect) == (Reason.MALFORMED, Dialect.V1)


def test_a_hub_of_10_alone_takes_no_token_of_0x() -> None:
    one = authorizer(protocol="1")
    for token in (token_v0(["*"]), token_v0(["*"], exp=NOW + 9)):
        rejection = rejected(one, with_header(token))
        assert (rejection.reason, rejection.dialect) == (Reason.INVALID, Dialect.V1)
    assert rejected(one, Presented(query_tokens=(token_v0(),))).reason is Reason.MALFORMED


def test_a_hub_of_0x_alone_ignores_authorization_details() -> None:
    presented = with_header(token_v1(detail("/users/7")))
    grant = authorizer(protocol="0").grant(presented, Action.SUBSCRIBE, now=NOW)
    assert (grant.dialect, grant.subscribe) == (Dialect.V0, frozenset())


def test_a_cookie_publishes_only_from_origins_that_may_and_a_header_from_anywhere() -> None:
    one = authorizer(publish_origins=frozenset({"https://app.example"}))
    token = token_v0(["*"])
    cookie = f"mercureAuthorization={token}"
    good = Presented(method="POST", hub_url=HUB, cookie=cookie, origin="https://app.example")
    assert one.grant(good, Action.PUBLISH, now=NOW).publish
    forged = Presented(method="POST", hub_url=HUB, cookie=cookie, origin="https://evil.example")
    assert rejected(one, forged, Action.PUBLISH).reason is Reason.FORGED
    reading = one.grant(Presented(hub_url=HUB, cookie=cookie), Action.SUBSCRIBE, now=NOW)
    assert reading.dialect is Dialect.V0
    header = Presented(method="POST", authorization=f"Bearer {token}", origin="https://x.example")
    assert one.grant(header, Action.PUBLISH, now=NOW).publish


@promises.SECRETS_NOT_SHOWN
def test_no_rejection_shows_a_part_of_the_token() -> None:
    token = token_v0(["/secret/topic"], sub="secret-subject", exp=NOW - 1, iss="secret-issuer")
    text = str(rejected(authorizer(), with_header(token)))
    assert "secret" not in text
    assert not any(part in text for part in token.split("."))
