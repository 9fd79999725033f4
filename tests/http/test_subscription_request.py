"""What a query means, in each dialect."""

from urllib.parse import urlencode

import pytest

from noti.authorization.grant import Dialect
from noti.history.selectors import (
    ALL_TOPICS,
    Selector,
    exact_matcher,
    pattern_matcher,
    topic_selector,
)
from noti.http import subscription_request
from noti.http.subscription_request import (
    CACHED_CHARS_MAX,
    KNOWN_MAX,
    SubscriptionParameters,
    cursor_parameters,
    parameters_of,
)

BOTH = frozenset(Dialect)
HUB = "https://hub.example/.well-known/mercure"


def read(
    query: str, dialects: frozenset[Dialect] = BOTH, body: bytes | None = None
) -> SubscriptionParameters:
    return parameters_of(query, dialects, HUB, body)


@pytest.mark.parametrize(
    ("query", "dialect", "selectors"),
    [
        ("topic=a&topic=%2Fb", Dialect.V0, {topic_selector("a"), topic_selector("/b")}),
        ("topic=/u/{id}", Dialect.V0, {topic_selector("/u/{id}")}),
        ("topic=*", Dialect.V0, {ALL_TOPICS}),
        ("match=/u/{id}", Dialect.V1, {exact_matcher("/u/{id}")}),
        ("match=a&match_exact=b", Dialect.V1, {exact_matcher("a"), exact_matcher("b")}),
        ("match_urlpattern=/u/:id", Dialect.V1, {pattern_matcher("/u/:id", HUB)}),
        ("match_urlpattern=*&page=7", Dialect.V1, {ALL_TOPICS}),
        ("topic=a+b%2Bc", Dialect.V0, {topic_selector("a b+c")}),
    ],
)
def test_topics_are_read_in_the_dialect_of_their_parameters(
    query: str, dialect: Dialect, selectors: set[Selector]
) -> None:
    read_ = read(query)
    assert (read_.dialect, read_.problem) == (dialect, "")
    assert read_.selectors == selectors


def test_text_beyond_ascii_is_read_with_percent_signs_and_without() -> None:
    plain = "topic=\u00e9t\u00e9/\U0001f600"
    assert read(plain.encode().decode("latin-1")).selectors == {
        topic_selector("\u00e9t\u00e9/\U0001f600")
    }
    quoted = urlencode({"topic": "\u00e9t\u00e9"})
    assert read(quoted).selectors == {topic_selector("\u00e9t\u00e9")}


@pytest.mark.parametrize(
    ("query", "dialect", "text"),
    [
        ("", Dialect.V0, 'Missing "topic" parameter.'),
        ("lastEventID=7", Dialect.V0, 'Missing "topic" parameter.'),
        ("topic=", Dialect.V0, "empty"),
        ("topic=a%0Ab", Dialect.V0, "control character"),
        ("topic=%FF", Dialect.V0, "UTF-8"),
        ("topic=\xff", Dialect.V0, "UTF-8"),
        ("topic=a&match=b", Dialect.V1, "choose one"),
        ("Match=a", Dialect.V1, "'Match'"),
        ("match=a&matchday=1", Dialect.V1, "'matchday'"),
        ("match_regexp=a", Dialect.V1, "'match_regexp'"),
        ("match_urlpattern=https://[", Dialect.V1, "no URL pattern"),
        ("match=" + "x" * 4097, Dialect.V1, "4096"),
        ("&".join(["match=a"] * 101), Dialect.V1, "at most 100"),
        ("&".join(["topic=a"] * 101), Dialect.V0, "at most 100"),
        ("topic=a" + "&x" * 1000, Dialect.V0, "parameters"),
    ],
)
def test_what_is_invalid_is_said_in_the_dialect_of_the_request(
    query: str, dialect: Dialect, text: str
) -> None:
    invalid = read(query)
    assert invalid.dialect is dialect
    assert text in invalid.problem
    assert invalid.problem.endswith((".", "in lower case."))
    assert not invalid.selectors


def test_a_hub_of_one_dialect_rejects_the_other() -> None:
    only_v0, only_v1 = frozenset({Dialect.V0}), frozenset({Dialect.V1})
    assert "0.x only" in read("match=a", only_v0).problem
    assert read("match=a", only_v0).dialect is Dialect.V0
    assert "1.0 only" in read("topic=a", only_v1).problem
    assert read("topic=a", only_v1).dialect is Dialect.V1
    assert 'Missing "match"' in read("", only_v1).problem


def test_a_form_adds_to_the_query_and_the_query_counts_first() -> None:
    asked = read("match=a&last_event_id=1", body=b"match=b&last_event_id=2")
    assert asked.selectors == {exact_matcher("a"), exact_matcher("b")}
    assert asked.cursor == "1"
    assert read("", body=b"match=b&last_event_id=2").cursor == "2"
    assert read("", body=b"").dialect is Dialect.V1
    assert "UTF-8" in read("match=a", body=b"\xff").problem


@pytest.mark.parametrize(
    ("query", "cursor"),
    [
        ("topic=a", None),
        ("topic=a&lastEventID=", ""),
        ("topic=a&lastEventID=7", "7"),
        ("topic=a&Last-Event-ID=7", "7"),
        ("topic=a&last_event_id=7", "7"),
        ("topic=a&lastEventID=&Last-Event-ID=7", "7"),
        ("topic=a&lastEventID=7&Last-Event-ID=8", "7"),
        ("topic=a&lastEventID=7&lastEventId=8", "8"),
        ("topic=a&lastEventID=%F0%9F%98%80", "\U0001f600"),
    ],
)
def test_a_cursor_is_read_under_all_its_names(query: str, cursor: str | None) -> None:
    assert read(query).cursor == cursor
    assert cursor_parameters(query).cursor == cursor


def test_tokens_are_kept_apart_and_out_of_what_is_shown() -> None:
    asked = read("topic=a&authorization=secret1&authorization=secret2")
    assert asked.tokens == ("secret1", "secret2")
    assert "secret" not in repr(asked)
    assert cursor_parameters("authorization=x").tokens == ("x",)
    assert cursor_parameters("authorization=%ff").problem


@pytest.mark.parametrize("name", ["authorization", "%61uthorization"])
def test_a_query_with_a_token_is_not_remembered(name: str) -> None:
    query = f"topic=secret-reader&{name}=s3cr3t"
    assert read(query).tokens == ("s3cr3t",)
    assert all("s3cr3t" not in known for known, _, _ in subscription_request._known)
    assert read("topic=secret-reader").tokens == ()


def test_queries_that_are_remembered_are_bounded_in_number_and_length() -> None:
    for number in range(2 * KNOWN_MAX):
        read(f"topic=bounded-{number}")
        assert len(subscription_request._known) <= KNOWN_MAX
    read(f"topic={'x' * CACHED_CHARS_MAX}")
    assert max(len(known) for known, _, _ in subscription_request._known) <= CACHED_CHARS_MAX


def test_a_query_that_is_remembered_is_read_by_its_own_hub_and_dialects() -> None:
    query = "match_urlpattern=/u/:id"
    here = parameters_of(query, BOTH, HUB)
    there = parameters_of(query, BOTH, "https://other.example/.well-known/mercure")
    assert here.selectors != there.selectors
    assert parameters_of(query, frozenset({Dialect.V0}), HUB).problem
    assert parameters_of(query, BOTH, HUB) is here
