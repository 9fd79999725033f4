"""Promises of audiences: equal ones are one, and an event is looked up instead of tried on all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.history.selectors import ALL_TOPICS, Selector, pattern_matcher, topic_selector
from noti.streams import audience
from noti.streams.audience import Audience, AudienceIndex, PatternIndex, View, in_both
from tests.history.test_selectors import HUB
from tests.http.stage import notification, selecting


def of(*texts: str) -> Audience:
    return Audience(View.MERCURE, selecting(*texts))


def test_equal_rights_and_selectors_are_one_audience() -> None:
    first, second = (Audience(View.MERCURE, selecting("a", "b"), selecting("c")) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert first != Audience(View.MERCURE, selecting("a", "b"))
    assert first != Audience(View.CATEGORY, selecting("a", "b"), selecting("c"))


def test_a_private_event_is_for_those_whose_rights_cover_a_topic() -> None:
    private = notification(1)._replace(topics=("a", "b"), private=True)
    everything = frozenset({ALL_TOPICS})
    for rights, may in (("b", True), ("c", False), ("*", True), ("{x}", True)):
        audience = Audience(View.MERCURE, everything, selecting(rights))
        assert audience.may_see(private) is may
        assert audience.may_see(private._replace(private=False))
    assert not Audience(View.MERCURE, everything).may_see(private)
    assert not Audience(View.CATEGORY, everything, everything).may_see(private)


TEXTS = st.sampled_from(["*", "a", "ab", "/u/1", "/u/{id}", "/u/1/{x}", "{a}", "a{b}", "/v/{+x}"])
SELECTED = st.frozensets(
    st.one_of(
        TEXTS.map(topic_selector),
        st.sampled_from(["/u/:id", "/v/*"]).map(lambda text: pattern_matcher(text, "https://h/")),
    ),
    min_size=1,
    max_size=4,
)
TOPICS = st.lists(
    st.sampled_from(["a", "ab", "/u/1", "/u/2", "/u/1/x", "/v/1/2", "/u/{id}"]), max_size=3
)


@given(st.lists(st.tuples(SELECTED, st.booleans()), max_size=12), TOPICS)
def test_the_index_finds_whom_trying_all_would_find(
    selected: list[tuple[frozenset[Selector], bool]], topics: list[str]
) -> None:
    index, left = AudienceIndex(), set[Audience]()
    audiences = {Audience(View.MERCURE, selectors): leaves for selectors, leaves in selected}
    for one in audiences:
        index.add(one, one.selectors)
        index.matching(topics)
    for one, leaves in audiences.items():
        if leaves:
            index.remove(one, one.selectors)
        else:
            left.add(one)
    found = {one for part in index.matching(topics) for one in part}
    if topics:
        assert found == {one for one in left if one.matches(topics)}
    for one in left:
        index.remove(one, one.selectors)
    assert index.matching(topics) == []
    assert not index._by_topic
    assert not index._by_pattern
    assert not index.patterns._uses
    assert not index.patterns._groups
    assert not index.patterns._beginnings


def test_ten_thousand_audiences_of_a_topic_each_are_one_look_up() -> None:
    index = AudienceIndex()
    audiences = [of(f"/users/{number}") for number in range(10_000)]
    for one in audiences:
        index.add(one, one.selectors)
    [found] = index.matching(["/users/77"])
    assert list(found) == [audiences[77]]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every pattern that is tried."""
    tried: list[str] = []
    matches = Selector.matches

    def counting(selector: Selector, topic: str) -> bool:
        tried.append(selector.text)
        return matches(selector, topic)

    monkeypatch.setattr(Selector, "matches", counting)
    return tried


def test_a_pattern_is_tried_once_for_a_topic_however_many_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = AudienceIndex()
    for number in range(100):
        one = of("/users/{id}", f"own-{number}")
        index.add(one, one.selectors)
    tried = counted(monkeypatch)
    for _ in range(50):
        [found] = index.matching(["/users/7"])
        assert len(found) == 100
    assert tried == ["/users/{id}"]


def test_templates_that_begin_otherwise_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    index = PatternIndex()
    for number in range(1000):
        index.add(topic_selector(f"/users/{number}/{{what}}"))
    tried = counted(monkeypatch)
    assert [one.text for one in index.matching("/users/77/mail")] == ["/users/77/{what}"]
    assert len(tried) < 5


def test_url_patterns_whose_paths_begin_otherwise_are_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    index = PatternIndex()
    for number in range(100):
        index.add(pattern_matcher(f"/users/{number}/:what", HUB))
    tried = counted(monkeypatch)
    for topic in ("/users/77/mail", "https://hub.example/a/../users/77/mail"):
        assert [one.text for one in index.matching(topic)] == ["/users/77/:what"]
    assert len(tried) < 10


def test_no_more_patterns_begin_alike_than_one_topic_can_be_tried_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audience, "PATTERNS_ALIKE_MAX", 3)
    monkeypatch.setattr(audience, "BASES_MAX", 2)
    index = PatternIndex()
    for number in range(3):
        for pattern in (topic_selector(f"{{a}}{number}"), pattern_matcher(f"/:a/{number}", HUB)):
            assert not index.is_crowded(pattern)
            index.add(pattern)
            assert not index.is_crowded(pattern), "it is in use already"
    assert index.is_crowded(topic_selector("{a}4"))
    assert index.is_crowded(pattern_matcher("/:a/4", HUB))
    assert not index.is_crowded(topic_selector("/a/{a}"))
    assert not index.is_crowded(pattern_matcher("/a/:a", HUB))
    index.add(pattern_matcher("/:a", "http://other/hub"))
    assert index.is_crowded(pattern_matcher("/:a", "http://third/hub"))


def test_topics_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience, "TOPICS_REMEMBERED", 10)
    index = PatternIndex()
    index.add(topic_selector("/{x}"))
    for number in range(100):
        assert index.matching(f"/{number}")
        assert len(index._remembered) <= 10


def test_who_is_on_both_sides_is_found_from_the_smaller_one() -> None:
    many = [of(str(number)) for number in range(1000)]

    class NotToBeWalked(dict[Audience, None]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise AssertionError("all of the larger side are looked at")

    everybody = NotToBeWalked.fromkeys(many)
    assert list(in_both([everybody], [{many[7]: None}])) == [many[7]]
    assert list(in_both([{many[7]: None}], [everybody])) == [many[7]]
    assert list(in_both([{many[7]: None}], [])) == []
