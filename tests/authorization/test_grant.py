"""What a grant allows."""

from noti.authorization.grant import ANONYMOUS, Dialect, Grant, Payload
from noti.history.selectors import ALL_TOPICS, exact_matcher, topic_selector


def test_every_topic_of_an_event_must_be_allowed() -> None:
    grant = Grant(Dialect.V0, publish=frozenset({topic_selector("/users/{id}")}))
    assert grant.may_publish(["/users/7"])
    assert not grant.may_publish(["/users/7", "/books"])
    assert Grant(Dialect.V0, publish=frozenset({ALL_TOPICS})).may_publish(["/users/7", "/books"])


def test_who_has_no_token_may_publish_nothing_and_reads_nothing_private() -> None:
    assert not ANONYMOUS.may_publish(["/books"])
    assert not ANONYMOUS.may_read_at("/.well-known/mercure/subscriptions")
    assert ANONYMOUS.payload_of("/books") is None


def test_subscriptions_may_be_listed_where_a_selector_matches_the_path() -> None:
    path = "/.well-known/mercure/subscriptions"
    grant = Grant(Dialect.V0, subscribe=frozenset({topic_selector(path + "{/topic}")}))
    assert grant.may_read_at(path + "/books")
    assert not grant.may_read_at(path + "/books/urn:uuid:1")


def test_payload_of_a_subscription_is_that_of_the_first_detail_that_matches_it() -> None:
    payloads = (
        Payload(frozenset({exact_matcher("/a")}), None),
        Payload(frozenset({exact_matcher("/a"), exact_matcher("/b")}), '{"n":2}'),
    )
    grant = Grant(Dialect.V1, payloads=payloads)
    assert grant.payload_of("/a") is None
    assert grant.payload_of("/b") == '{"n":2}'
    assert grant.payload_of("/c") is None
    assert Grant(Dialect.V0, payloads=(Payload(None, "7"),)).payload_of("/c") == "7"
