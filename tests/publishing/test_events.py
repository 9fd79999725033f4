"""What can be an event."""

import random

import pytest

from noti.errors import MessageInvalid, TooLarge
from noti.history.notification import Notification
from noti.publishing.events import (
    ID_CHARACTERS_MAX,
    KEY_CHARACTERS_MAX,
    RETRY_MS_MAX,
    TOPICS_MAX,
    TYPE_CHARACTERS_MAX,
    event_of,
    problem_of_id,
    problem_of_type,
)
from noti.publishing.ports import Draft
from noti.streams.retained import cursor_of

DRAFT = Draft(("t",), "data")


def made(draft: Draft) -> object:
    return event_of(draft, wall_ms=7, rng=random.Random(1))


def test_event_carries_all_that_its_publisher_said() -> None:
    draft = Draft(("a", "b"), "data", "id", "chat", 3000, True, "key")
    assert made(draft) == (0, "id", ("a", "b"), "data", 7, "chat", 3000, True, "key", "")


@pytest.mark.parametrize(
    "event_id",
    [
        "a",
        "two words",
        "https://example.com/books/1",
        "ü" * ID_CHARACTERS_MAX,
        "naïve 日本語 😀",
        "a#b",
        "noti:7",
        "noti:x-00000000",
        "Earliest",
        "\u00a0".join("ab"),
    ],
)
def test_any_printable_text_can_be_an_id(event_id: str) -> None:
    assert problem_of_id(event_id) is None
    assert made(DRAFT._replace(id=event_id))


@pytest.mark.parametrize(
    ("event_id", "reason"),
    [
        ("", "is empty"),
        ("x" * (ID_CHARACTERS_MAX + 1), "257 characters; 256 are allowed"),
        ("a\nb", "control character"),
        ("a\x7fb", "control character"),
        ("a\x85b", "control character"),
        ("a\u200bb", "control character"),
        ("a\u2028b", "line end"),
        ("a\ud800", "half a surrogate pair"),
        (" a", "space"),
        ("#a", "begin with #"),
        ("earliest", "a place in history"),
        ("beginning", "a place in history"),
        (cursor_of(Notification(7, "a", ("t",), "", 0)), "the form of this hub's cursors"),
    ],
)
def test_text_that_can_be_no_id_is_refused_with_the_reason_in_one_line(
    event_id: str, reason: str
) -> None:
    with pytest.raises(MessageInvalid, match=reason) as caught:
        made(DRAFT._replace(id=event_id))
    assert str(caught.value).isprintable()


def test_type_has_the_same_characters_and_is_never_the_hubs_own() -> None:
    assert problem_of_type("ü" * TYPE_CHARACTERS_MAX) is None
    for wrong in ("ü" * (TYPE_CHARACTERS_MAX + 1), "a\rb", "a\u202eb", "mercure"):
        with pytest.raises(MessageInvalid, match="type"):
            made(DRAFT._replace(type=wrong))


def test_key_is_short_and_printable() -> None:
    assert made(DRAFT._replace(idempotency_key="k" * KEY_CHARACTERS_MAX))
    for wrong in ("k" * (KEY_CHARACTERS_MAX + 1), "a\nb", " a"):
        with pytest.raises(MessageInvalid, match="idempotency key"):
            made(DRAFT._replace(idempotency_key=wrong))


def test_time_to_retry_is_what_a_browsers_timer_takes() -> None:
    assert made(DRAFT._replace(retry_ms=RETRY_MS_MAX))
    for wrong in (-1, RETRY_MS_MAX + 1):
        with pytest.raises(MessageInvalid, match="cannot be a time to retry"):
            made(DRAFT._replace(retry_ms=wrong))


def test_event_has_a_thousand_topics_at_most() -> None:
    topics = tuple(f"topic {number}" for number in range(TOPICS_MAX))
    assert made(DRAFT._replace(topics=topics))
    with pytest.raises(TooLarge, match="1001 topics; 1000 are allowed"):
        made(DRAFT._replace(topics=(*topics, "one more")))
