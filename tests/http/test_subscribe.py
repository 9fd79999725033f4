"""What is decided about a request for a stream."""

import pytest

from noti.authorization.grant import Dialect, Grant
from noti.history.selectors import ALL_TOPICS, Selector, exact_matcher, topic_selector
from noti.http.subscribe import accepts_streams, rights_of

ALL = frozenset({ALL_TOPICS})


def of(*texts: str) -> frozenset[Selector]:
    return frozenset(map(topic_selector, texts))


@pytest.mark.parametrize(
    ("subscribe", "asked", "rights"),
    [
        (of(), of("a"), of()),
        (of("*", "a"), of("b"), ALL),
        (of("a", "/u/7"), of("a"), ALL),
        (of("/u/{id}", "/x"), of("/u/7", "/u/8"), ALL),
        (of("/u/{id}", "/x"), of("/u/{id}"), ALL),
        (of("/u/7"), of("/u/{id}"), of("/u/7")),
        (of("/u/7"), ALL, of("/u/7")),
        # An event may be of both topics: this reader sees it.
        (of("b"), of("a"), of("b")),
    ],
)
def test_readers_who_may_see_all_that_they_ask_for_share_an_audience(
    subscribe: frozenset[Selector], asked: frozenset[Selector], rights: frozenset[Selector]
) -> None:
    assert rights_of(Grant(Dialect.V0, subscribe=subscribe), asked) == rights


def test_a_right_to_a_text_that_looks_like_a_template_is_one_to_that_text() -> None:
    exact = frozenset({exact_matcher("/u/{id}")})
    assert rights_of(Grant(Dialect.V1, subscribe=exact), of("/u/7")) == exact


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [
        ("", True),
        ("*/*", True),
        ("text/*;q=0.1", True),
        ("Text/Event-Stream", True),
        ("text/html, */*;q=0.8", True),
        ("application/json", False),
        ("application/json, text/html", False),
        ("text/event-stream;q=0, */*", False),
        ("text/*;q=0.000, */*", False),
        ("*/*;q=0", False),
    ],
)
def test_accept_is_read_by_its_most_specific_range(accept: str, accepted: bool) -> None:
    assert accepts_streams(accept) == accepted
