"""Promises of topics."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.history.topics import EVERYTHING, RESERVED, control_in, problem_of

topics = st.text(
    st.one_of(st.sampled_from("*/.\x00\x1f\x7f\n\ud800é😀"), st.characters()), max_size=40
)


@given(st.one_of(topics, topics.map(lambda rest: f"{RESERVED}/{rest}"), st.just(RESERVED)))
def test_whatever_is_a_topic_can_be_named_by_a_reader_and_the_rest_is_reported_in_one_line(
    topic: str,
) -> None:
    problem = problem_of(topic)
    if problem is None:
        assert topic.encode().decode() == topic
        assert control_in(topic) is None
        assert topic != EVERYTHING
        assert not topic.startswith(RESERVED + "/")
    else:
        assert problem.isprintable()


@pytest.mark.parametrize(
    "topic",
    ["jobs.noti.*", "https://example.com/books/1", "/.well-known/mercurey", "ü" * 512, "a b", "**"],
)
def test_topic_that_only_looks_special_is_one(topic: str) -> None:
    assert problem_of(topic) is None


@pytest.mark.parametrize(
    "character",
    ["\x00", "\n", "\r", "\t", "\x1f", "\x7f", "\x85", "\u200b", "\u202e", "\U000e0041"],
)
def test_control_character_anywhere_in_a_topic_is_refused(character: str) -> None:
    for topic in (character, f"a{character}", f"{character}a"):
        assert "control character" in (problem_of(topic) or "")


@pytest.mark.parametrize(
    "topic",
    [
        RESERVED,
        f"{RESERVED}/",
        f"{RESERVED}/subscriptions/a/b",
        f"https://elsewhere.example{RESERVED}/x",
        f"/a/..{RESERVED}",
        "/.well%2Dknown/mercure",
        "mercure",
    ],
)
def test_topics_of_the_hub_itself_are_refused(topic: str) -> None:
    assert "reserved" in (problem_of(topic) or "")
