"""Promises of selectors: what each matches, by a slow reference, and that none costs much."""

import gc
import random
import sys
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.history import selectors
from noti.history.selectors import (
    ALL_TOPICS,
    COMPILED_MAX,
    SELECTOR_BYTES_MAX,
    Selector,
    SelectorKind,
    exact_matcher,
    path_of,
    pattern_matcher,
    topic_selector,
)

HUB = "https://hub.example/.well-known/mercure"


def test_all_topics_are_not_the_topic_that_is_called_so() -> None:
    assert Selector(SelectorKind.EXACT, "*") != ALL_TOPICS


def test_star_is_every_topic_in_both_dialects() -> None:
    assert topic_selector("*") is exact_matcher("*") is pattern_matcher("*", HUB) is ALL_TOPICS
    assert ALL_TOPICS.matches("anything")


def test_template_is_told_from_a_topic_that_is_none() -> None:
    assert topic_selector("/users/{id}").kind is SelectorKind.TEMPLATE
    for text in ["/users/7", "{", "}", "a}b", "{}", "{ id}", "{id", "a{!b}", "a b{c}", "%zz{a}"]:
        assert topic_selector(text).kind is SelectorKind.EXACT, text
    assert exact_matcher("/users/{id}").kind is SelectorKind.EXACT


@pytest.mark.parametrize(
    ("template", "matching", "others"),
    [
        ("/a/{x}", ["/a/", "/a/b", "/a/b,c", "/a/%C3%A9", "/a/{x}"], ["/a/b/c", "/a/é", "/a/%G1"]),
        ("/a/{+x}", ["/a/", "/a/b/c?d#e", "/a/[b]"], ["/a/é", "/a/ b", "/a/%1"]),
        ("/a{#x}", ["/a", "/a#", "/a#b/c"], ["/ab", "/a/b"]),
        ("/a{.x}", ["/a", "/a.", "/a.b", "/a.b.c"], ["/ab", "/a.b/c"]),
        ("/a{/x}", ["/a", "/a/", "/a/b"], ["/a/b/c", "/ab"]),
        ("/a{/x,y}", ["/a", "/a/b", "/a/b/c", "/a//"], ["/a/b/c/d"]),
        ("/a{/x*}", ["/a", "/a/b", "/a/b/c/d", "/a/b=c"], ["/ab"]),
        ("/a{;x}", ["/a", "/a;x=1", "/a;x"], ["/a;x=1;y=2", "/ax=1", "a"]),
        ("/a{?x,y}", ["/a", "/a?x=1", "/a?x=1&y=2", "/a?"], ["/a?x=1&y=2&z=3", "/a&x=1"]),
        ("/a{?x*}", ["/a?b=1&c=2&d=3"], ["/a?b=1?c=2"]),
        ("/a?b=1{&x}", ["/a?b=1", "/a?b=1&c=2"], ["/a?b=1c=2", "/a?b=1&c=2&d=3"]),
        ("/{a,b}", ["/", "/1,2", "/1,2,3"], ["/1=2"]),
        ("/{a*}", ["/1=2", "/1,2=3"], ["/1/2"]),
        ("/{a:3}", ["/abcdef"], ["/a/b"]),
        ("/{a.b}", ["/c"], ["/c/d"]),
        ("é{x}", ["é", "éa"], ["e"]),
        ("/a.b/{x}", ["/a.b/c"], ["/aXb/c"]),
        (
            "https://example.com/books/{id}.jsonld",
            ["https://example.com/books/1.jsonld"],
            ["https://example.com/books/1"],
        ),
    ],
)
def test_template_matches_as_the_hub_of_0_x_does(
    template: str, matching: list[str], others: list[str]
) -> None:
    selector = topic_selector(template)
    assert selector.kind is SelectorKind.TEMPLATE
    assert [topic for topic in matching if not selector.matches(topic)] == []
    assert [topic for topic in others if selector.matches(topic)] == []


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (
            "/books/:id",
            ["/books/1", "https://hub.example/books/1"],
            ["/books/1/2", "/Books/1", "https://other.example/books/1"],
        ),
        (
            "https://example.com/books/*",
            ["https://example.com/books/1/2"],
            ["/books/1", "http://example.com/books/1"],
        ),
        ("/books/(\\d+)", ["/books/12"], ["/books/x"]),
        ("*://*/x", ["https://a.example/x"], ["https://a.example/y"]),
        ("https://example.com/books/:id", [], ["http://[", "::::", "\ud800", ""]),
    ],
)
def test_pattern_matches_whole_urls_with_case_and_relative_to_the_hub(
    pattern: str, matching: list[str], others: list[str]
) -> None:
    selector = pattern_matcher(pattern, HUB)
    assert [topic for topic in matching if not selector.matches(topic)] == []
    assert [topic for topic in others if selector.matches(topic)] == []


@pytest.mark.parametrize(
    "make", [topic_selector, exact_matcher, lambda text: pattern_matcher(text, HUB)]
)
@pytest.mark.parametrize(
    "text", ["", "a\n", "a\x00", "\x85", "\u200b", "\ud800", "x" * 4097, "é" * 2049]
)
def test_selector_that_no_topic_could_meet_is_refused_in_one_sentence(
    make: Callable[[str], Selector], text: str
) -> None:
    with pytest.raises(MessageInvalid) as caught:
        make(text)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("pattern", ["https://[", "/(", "/{a", "/(?<x", "/:1", "/\\"])
def test_bad_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(MessageInvalid, match="is no URL pattern"):
        pattern_matcher(pattern, HUB)


# --- A slow reference: expressions are expanded to all ways of cutting the topic up ---------------

UNRESERVED = frozenset("ABCabc019-._~")
RESERVED = frozenset("!#$&'()*+,/:;=?@[]")


def values(topic: str, start: int, allowed: frozenset[str]) -> list[int]:
    """Where a value may end that begins at `start`."""
    ends = [start]
    position = start
    while position < len(topic):
        if topic[position] in allowed:
            position += 1
        elif topic[position] == "%" and all(
            one in "0123456789abcdefABCDEF" for one in (topic[position + 1 : position + 3] or "x")
        ) and len(topic) >= position + 3:  # fmt: skip
            position += 3
        else:
            break
        ends.append(position)
    return ends


def ends_of(operator: str, names: list[str], topic: str, start: int) -> set[int]:
    """Where an expression may end that begins at `start`."""
    ends = {start}
    begin = "" if operator == "+" else operator
    if not topic.startswith(begin, start):
        return ends
    named = operator in (";", "?", "&")
    exploded = [name.endswith("*") for name in names]
    separator = {"": ",", "+": ",", "#": ",", "?": "&"}.get(operator, operator)

    def allowed(with_names: bool) -> frozenset[str]:
        if operator in ("+", "#"):
            return UNRESERVED | RESERVED
        return UNRESERVED | set(",=" if with_names else ",")

    now = set(values(topic, start + len(begin), allowed(named or exploded[0])))
    ends |= now
    if len(names) > 1 or exploded[0]:
        for _ in range(len(topic) if any(exploded) else len(names) - 1):
            now = {
                end
                for at in now
                if topic.startswith(separator, at)
                for end in values(topic, at + 1, allowed(named or any(exploded)))
            }
            ends |= now
    return ends


Piece = str | tuple[str, list[str]]


def reference(pieces: list[Piece], topic: str) -> bool:
    places = {0}
    for piece in pieces:
        if isinstance(piece, str):
            places = {at + len(piece) for at in places if topic.startswith(piece, at)}
        else:
            places = {end for at in places for end in ends_of(*piece, topic, at)}
    return len(topic) in places


def written(pieces: list[Piece]) -> str:
    return "".join(
        piece if isinstance(piece, str) else "{" + piece[0] + ",".join(piece[1]) + "}"
        for piece in pieces
    )


LITERALS = st.text(st.sampled_from("ab/.?&=;#,+()[]~é"), min_size=1, max_size=3)
EXPRESSIONS = st.tuples(
    st.sampled_from(["", "+", "#", ".", "/", ";", "?", "&"]),
    st.lists(st.sampled_from(["a", "b1", "c_d", "e*", "f:3"]), min_size=1, max_size=3),
)
TOPICS = st.lists(st.sampled_from([*"ab/.?&=;#,+[é", "%41", "%", "%4"]), max_size=9).map("".join)


@given(st.lists(st.one_of(LITERALS, EXPRESSIONS), max_size=4), TOPICS)
@example([("", ["a", "e*"])], "a=a")
@example(["/a", ("?", ["a", "b1"])], "/a?a&a")
def test_templates_match_what_a_slow_reference_matches(pieces: list[Piece], topic: str) -> None:
    template = written(pieces)
    if "{" not in template:
        return
    selector = topic_selector(template)
    assert selector.kind is SelectorKind.TEMPLATE
    assert selector.matches(topic) == (topic == template or reference(pieces, topic))
    if selector.matches(topic):
        assert topic.startswith(selector.prefix)


PATTERN_PIECES = st.sampled_from(
    [*"ab/:x*?+#{}().é%\\", "/:x?", "{/a}?", "(b)", "%61", "//", "https://h", "urn:", ".."]
)


@given(st.lists(PATTERN_PIECES, max_size=7).map("".join), TOPICS)
@example("/a/:x?", "/a")
@example("/a/*?", "/a")
@example("https://h/b{/a}?", "https://h/a/../b")
@example("/é/:x", "/é/b")
def test_what_a_url_pattern_matches_begins_as_it_does(text: str, topic: str) -> None:
    try:
        selector = pattern_matcher(text, HUB)
    except MessageInvalid:
        return
    if selector.kind is SelectorKind.URL_PATTERN and selector.matches(topic):
        path = path_of(topic, HUB)
        assert path is not None
        assert path.startswith(selector.path_prefix)


@given(st.text(max_size=60), st.text(max_size=30))
def test_no_text_makes_a_selector_that_fails_later(text: str, topic: str) -> None:
    for make in (topic_selector, exact_matcher, lambda some: pattern_matcher(some, HUB)):
        try:
            selector = make(text)
        except MessageInvalid:
            continue
        assert selector.matches(topic) in (True, False)


# --- Bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    ["{/" + ",".join("a" * 900) + "}", "{?" + ",".join(["abc"] * 400) + "}", "{/a}" * 1000],
)
def test_template_that_is_too_large_when_compiled_is_refused(template: str) -> None:
    with pytest.raises(MessageInvalid, match="too large"):
        topic_selector(template)


def test_template_of_many_variables_within_the_bound_is_taken() -> None:
    selector = topic_selector("{?" + ",".join(["abc"] * 60) + "}")
    assert selector.matches("?" + "&".join(["abc=1"] * 60))
    assert not selector.matches("?" + "&".join(["abc=1"] * 61))


@pytest.mark.parametrize(
    "pattern",
    [
        "/(" + r"\w" * 100 + ")",
        r"/(\w{1000})",
        r"/((?:(?:a{100}){100}){100})",
        "/([a-z]{600})",
        "{/:a}?" * 200,
        "/:a" * 500,
        "*/" * 400,
        "/(a{99999999999999999999})",
    ],
)
def test_pattern_that_would_cost_much_is_refused_without_being_compiled(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(*_: object) -> None:
        raise AssertionError("compiled")

    monkeypatch.setattr(selectors, "URLPattern", compiled)
    with pytest.raises(MessageInvalid, match="costs too much"):
        pattern_matcher(pattern, HUB)


@pytest.mark.parametrize(
    "pattern",
    [
        "/:a/:b/*",
        "/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})",
        r"https://example.com/users/(\d+)/books/(\w+)\\.jsonld?page=*",
        "/(books|films|songs)/:id{/:part}?",
        "https://example.com/" + "x" * 3000 + "/:id",
    ],
)
def test_pattern_that_people_write_is_taken(pattern: str) -> None:
    pattern_matcher(pattern, HUB)


def steps_of(selector: Selector, topic: str) -> int:
    """How many calls and lines Python runs for a match; compiling is done before."""
    selector.matches(topic)
    steps = 0

    def count(*_: object) -> object:
        nonlocal steps
        steps += 1
        return count

    gc.disable()  # finalizers of what other tests left would count
    sys.settrace(count)  # type: ignore[arg-type]
    try:
        selector.matches(topic)
    finally:
        sys.settrace(None)
        gc.enable()
    return steps


def test_matching_takes_no_step_more_for_a_longer_topic() -> None:
    """All the work is in automata whose time is linear: nothing in Python loops or backtracks."""
    for selector in (
        topic_selector("{+a}" * 50 + "x"),
        topic_selector("{a*}{b*}{c*}/x"),
        pattern_matcher("/((?:a+)+b)", HUB),
        exact_matcher("a" * 1000),
    ):
        short, long = steps_of(selector, "/aa"), steps_of(selector, "/" + "a" * 1000)
        assert short == long < 50


def test_no_more_selectors_are_kept_compiled_than_the_bound() -> None:
    for number in range(COMPILED_MAX + 50):
        assert topic_selector(f"/{number}/{{x}}").matches(f"/{number}/a")
    assert selectors._template.cache_info().currsize <= COMPILED_MAX
    assert selectors._pattern.cache_info().maxsize == COMPILED_MAX


def test_whatever_is_refused_costs_nothing_the_second_time() -> None:
    bad = f"/({random.Random(1).random()}"
    for _ in range(2):
        with pytest.raises(MessageInvalid):
            pattern_matcher(bad, HUB)
    misses = selectors._pattern.cache_info().misses
    with pytest.raises(MessageInvalid):
        pattern_matcher(bad, HUB)
    assert selectors._pattern.cache_info().misses == misses


def test_longest_selector_is_taken() -> None:
    assert exact_matcher("x" * SELECTOR_BYTES_MAX).matches("x" * SELECTOR_BYTES_MAX)
