"""What is at which path of the subscriptions API, and its headers (Mercure, 1.9)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.authorization.grant import Dialect
from noti.history.selectors import SelectorKind
from noti.history.subscriber import SUBSCRIPTIONS, ActiveSubscription, Subscriber, address
from noti.history.subscription_commands import SubscriptionBatch
from noti.history.subscriptions import SubscriptionTable
from noti.http.active_subscriptions import (
    SingleSubscription,
    SubscriptionCollection,
    canonical,
    etag,
    find,
    headers_of,
    is_current,
    segments_of,
)

ID = "urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d"
OTHER_ID = "urn:uuid:00000000-0000-4000-8000-000000000001"
BOOK = ActiveSubscription(SelectorKind.EXACT, "https://example.com/books/1")
PATTERN = ActiveSubscription(SelectorKind.URL_PATTERN, "/books/:id")
OLD = Subscriber(ID, 0, (BOOK, ActiveSubscription(SelectorKind.EXACT, "news")))
NEW = Subscriber(OTHER_ID, 1, (BOOK, PATTERN))


@pytest.fixture
def table() -> SubscriptionTable:
    made = SubscriptionTable()
    made.apply(SubscriptionBatch("n1", "life", 1, 5, (OLD, NEW), ()))
    return made


def at(
    path: str, dialect: Dialect | None, table: SubscriptionTable
) -> SingleSubscription | SubscriptionCollection | None:
    segments = segments_of(SUBSCRIPTIONS + path)
    return None if segments is None else find(segments, dialect, table)


def listed(found: object, table: SubscriptionTable) -> list[str]:
    assert isinstance(found, SubscriptionCollection)
    document = json.loads(found.document([*found.members_of(table.subscribers())], ""))
    return [one["id"] for one in document["subscriptions"]]


def test_encoded_slash_separates_nothing() -> None:
    assert segments_of(f"{SUBSCRIPTIONS}/https%3A%2F%2Fa%2Fb/urn%3Auuid%3A7") == [
        "https://a/b",
        "urn:uuid:7",
    ]
    assert segments_of(f"{SUBSCRIPTIONS}/%252F") == ["%2F"]


@pytest.mark.parametrize("path", ["/.well-known/mercure", f"{SUBSCRIPTIONS}s", "/%ff", ""])
def test_other_paths_have_no_segments(path: str) -> None:
    assert segments_of(path) is None


@given(st.lists(st.text(st.characters(codec="utf-8")), max_size=3))
def test_canonical_path_is_cut_into_what_it_was_made_of(segments: list[str]) -> None:
    assert segments_of(canonical(segments)) == segments


@given(st.text(st.characters(max_codepoint=255)))
def test_any_path_is_read(path: str) -> None:
    segments = segments_of(f"{SUBSCRIPTIONS}/{path}")
    assert segments is None or segments == segments_of(canonical(segments))


def test_collection_has_the_subscriptions_of_its_dialect(table: SubscriptionTable) -> None:
    assert listed(at("", Dialect.V0, table), table) == [address(OLD, s) for s in OLD.subscriptions]
    assert listed(at("", Dialect.V1, table), table) == [address(NEW, s) for s in NEW.subscriptions]


def test_collection_of_a_topic_has_those_of_that_text(table: SubscriptionTable) -> None:
    found = at("/https%3A%2F%2Fexample.com%2Fbooks%2F1", Dialect.V0, table)
    assert listed(found, table) == [address(OLD, BOOK)]
    assert listed(at("/nothing", Dialect.V0, table), table) == []


def test_collection_of_a_matcher_has_those_of_its_type_and_text(table: SubscriptionTable) -> None:
    assert listed(at("/urlpattern/%2Fbooks%2F%3Aid", Dialect.V1, table), table) == [
        address(NEW, PATTERN)
    ]
    assert listed(at("/exact/%2Fbooks%2F%3Aid", Dialect.V1, table), table) == []
    assert at("/regexp/a", Dialect.V1, table) is None
    assert at("/news", Dialect.V1, table) is None, "only 0.x has collections of a topic"


@pytest.mark.parametrize("dialect", [None, *Dialect])
def test_subscription_is_at_its_address_in_its_own_form(
    dialect: Dialect | None, table: SubscriptionTable
) -> None:
    for subscriber in (OLD, NEW):
        for subscription in subscriber.subscriptions:
            path = address(subscriber, subscription).removeprefix(SUBSCRIPTIONS)
            assert at(path, dialect, table) == SingleSubscription(subscriber, subscription)


@pytest.mark.parametrize(
    "path",
    [
        f"/news/{OTHER_ID}",
        f"/other/{ID}",
        f"/urlpattern/news/{ID}",
        f"/exact/%2Fbooks%2F%3Aid/{OTHER_ID}",
        "/a/b/c/d",
    ],
)
def test_nothing_is_where_no_subscription_is(path: str, table: SubscriptionTable) -> None:
    assert at(path, Dialect.V0, table) is None


def test_headers_of_0x_have_the_cursor_as_an_unquoted_etag() -> None:
    headers = dict(headers_of(0, "urn:uuid:7"))
    assert headers["Content-Type"] == "application/ld+json"
    assert headers["ETag"] == "urn:uuid:7"
    assert "Link" not in headers


def test_headers_of_1_0_have_the_cursor_in_a_link_and_a_quoted_etag() -> None:
    headers = dict(headers_of(1, 'a"b\\c'))
    assert headers["Content-Type"] == "application/json"
    assert headers["ETag"] == '"a%22b\\c"'
    assert headers["Link"] == (
        '</.well-known/mercure>; rel="mercure"; last-event-id="a\\"b\\\\c"; type="mercure"; '
        'content-type="application/json"'
    )


@pytest.mark.parametrize("version", [0, 1])
def test_client_that_has_the_answer_is_told_so(version: int) -> None:
    current = etag(version, "e,7")
    assert is_current(current, version, "e,7")
    assert is_current(f"W/{etag(1, 'e-7')}", version, "e-7")
    assert is_current(f'"other", {etag(version, "e-7")}', version, "e-7")
    assert is_current("*", version, "e-7")
    assert not is_current("", version, "e-7")
    assert not is_current(current, version, "e-8")
