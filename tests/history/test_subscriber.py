"""Addresses and documents of subscriptions, as Mercure 0.x and 1.0 have them (section 1.9)."""

import json
from urllib.parse import unquote

import pytest

from noti.history.selectors import Selector, SelectorKind
from noti.history.subscriber import (
    ActiveSubscription,
    Subscriber,
    address,
    collection,
    document,
    members,
)

ID = "urn:uuid:7c8f5b74-a128-46b7-ac85-ac241c15ea9d"
ENCODED_ID = "urn%3Auuid%3A7c8f5b74-a128-46b7-ac85-ac241c15ea9d"
BOOKS = ActiveSubscription(SelectorKind.TEMPLATE, "https://example.com/books/{id}", '{"user":7}')
PATTERN = ActiveSubscription(SelectorKind.URL_PATTERN, "/books/:id")


def test_address_of_0x_has_the_topic_and_the_subscriber_each_encoded_once() -> None:
    assert address(Subscriber(ID, 0, (BOOKS,)), BOOKS) == (
        "/.well-known/mercure/subscriptions/https%3A%2F%2Fexample.com%2Fbooks%2F%7Bid%7D"
        f"/{ENCODED_ID}"
    )


def test_address_of_1_0_has_the_match_type_before_the_matcher() -> None:
    assert address(Subscriber(ID, 1, (PATTERN,)), PATTERN) == (
        f"/.well-known/mercure/subscriptions/urlpattern/%2Fbooks%2F%3Aid/{ENCODED_ID}"
    )


@pytest.mark.parametrize("text", ["*", "a b+c", "ü/€", "100%", "%2F", 'say "yes"', "a\\b"])
@pytest.mark.parametrize("version", [0, 1])
def test_any_text_comes_back_from_address_and_document(text: str, version: int) -> None:
    subscription = ActiveSubscription(SelectorKind.EXACT, text)
    subscriber = Subscriber(ID, version, (subscription,))
    path = address(subscriber, subscription)
    assert path.isascii()
    assert unquote(path.split("/")[-2]) == text
    told = json.loads(document(subscriber, subscription, active=True))
    assert (told["id"], told["topic" if version == 0 else "match"]) == (path, text)


def test_document_of_0x_has_the_fields_of_0x() -> None:
    subscriber = Subscriber(ID, 0, (BOOKS,))
    assert json.loads(document(subscriber, BOOKS, active=True)) == {
        "@context": "https://mercure.rocks/",
        "id": address(subscriber, BOOKS),
        "type": "Subscription",
        "topic": "https://example.com/books/{id}",
        "subscriber": ID,
        "active": True,
        "payload": {"user": 7},
    }


def test_document_of_1_0_has_the_fields_of_1_0() -> None:
    subscriber = Subscriber(ID, 1, (PATTERN,))
    assert json.loads(document(subscriber, PATTERN, active=False)) == {
        "id": address(subscriber, PATTERN),
        "type": "subscription",
        "match": "/books/:id",
        "match_type": "urlpattern",
        "subscriber": ID,
        "active": False,
    }


def test_root_document_of_0x_says_from_where_to_follow_and_members_do_not() -> None:
    subscriber = Subscriber(ID, 0, (BOOKS,))
    one = json.loads(document(subscriber, BOOKS, active=True, last_event_id="e-7"))
    listed = [members(subscriber, BOOKS, active=True)]
    several = json.loads(collection(0, "/path", listed, last_event_id="e-7"))
    assert one["lastEventID"] == several["lastEventID"] == "e-7"
    assert "lastEventID" not in several["subscriptions"][0]


def test_collection_has_the_type_of_its_dialect() -> None:
    assert json.loads(collection(0, "/path", [])) == {
        "@context": "https://mercure.rocks/",
        "id": "/path",
        "type": "Subscriptions",
        "subscriptions": [],
    }
    assert json.loads(collection(1, "/path", [])) == {
        "id": "/path",
        "type": "subscriptions",
        "subscriptions": [],
    }


def test_wildcard_is_exact_in_1_0() -> None:
    everything = ActiveSubscription.to(Selector(SelectorKind.ALL, "*"))
    path = address(Subscriber(ID, 1, (everything,)), everything)
    assert path == f"/.well-known/mercure/subscriptions/exact/%2A/{ENCODED_ID}"
