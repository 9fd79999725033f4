"""Topics are made of subjects and fields, and no value makes another topic than was meant."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.publishing.nats.topic_template import PLACEHOLDERS_MAX, TopicTemplate


def topic(template: str, subject: str = "orders.7.paid", fields: object = None) -> str:
    return TopicTemplate(template).bind(subject).topic(fields)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("news", "news"),
        ("https://example.com/users/{2}", "https://example.com/users/7"),
        ("{1}/{3}", "orders/paid"),
        ("{subject}", "orders.7.paid"),
        ("/s/{subject}", "/s/orders.7.paid"),
        ("/users/{{id}}", "/users/{id}"),
        ("{{{1}}}", "{orders}"),
        ("/u/{user.id}/{ok}/{n}", "/u/5/true/-1.50"),
        ("{user.name}", "Zoë/é"),
        ("/{user.name}", "/Zo%C3%AB%2F%C3%A9"),
    ],
)
def test_topic_is_made_of_tokens_and_fields(template: str, expected: str) -> None:
    fields = {"user": {"id": 5, "name": "Zoë/é"}, "ok": True, "n": "-1.50"}
    assert topic(template, fields=fields) == expected


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("", "is empty"),
        ("a{", "single {; write {{"),
        ("a}", "single }; write }}"),
        ("{}", "no token"),
        ("{0}", "no token"),
        ("{1000}", "no token"),
        ("{01}", "no token"),
        ("{a b}", "no field"),
        ("{+a}", "no field"),
        ("{a..b}", "no field"),
        ("{a.}", "no field"),
        ("{a{b}}", "single {"),
        ("https://h/../{1}", "segment"),
        ("{a}" * (PLACEHOLDERS_MAX + 1), "33 fields; 32 are allowed"),
    ],
)
def test_template_that_cannot_be_read_says_why(template: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TopicTemplate(template)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (None, "user.id, of which the topic is made, is missing"),
        ([], "is missing"),
        ({}, "is missing"),
        ({"user": "id"}, "is missing"),
        ({"user": {"id": None}}, "is missing"),
        ({"user": {"id": ""}}, "is empty"),
        ({"user": {"id": ["7"]}}, "neither text nor a number"),
        ({"user": {"id": {"a": 1}}}, "neither text nor a number"),
        ({"user": {"id": "\ud800"}}, "half a surrogate"),
        ({"user": {"id": "."}}, "a segment . or .."),
        ({"user": {"id": ".."}}, "a segment . or .."),
    ],
)
def test_field_that_cannot_be_part_of_a_topic_is_invalid(fields: object, problem: str) -> None:
    with pytest.raises(MessageInvalid, match=problem):
        topic("https://example.com/users/{user.id}?x", fields=fields)


def test_subject_with_too_few_tokens_is_invalid() -> None:
    with pytest.raises(MessageInvalid, match="'orders' has 1 tokens; the topic needs 2"):
        topic("{2}", "orders")


def test_two_values_do_not_become_a_segment_of_dots() -> None:
    with pytest.raises(MessageInvalid, match="segment"):
        topic("/{a}{b}/c", fields={"a": ".", "b": "."})
    assert topic("/{a}.{b}", fields={"a": "x", "b": "y"}) == "/x.y"


@given(st.text())
def test_value_stays_within_its_segment(value: str) -> None:
    """Whatever it holds, it begins no path, query or fragment, and nothing is left of it there."""
    try:
        made = topic("https://h/users/{v}/private?a#b", fields={"v": value})
    except MessageInvalid:
        assert value in ("", ".", "..") or any("\ud800" <= one <= "\udfff" for one in value)
        return
    inner = made.removeprefix("https://h/users/").removesuffix("/private?a#b")
    assert inner.isascii()
    assert not set(inner) & set("/?#\\@:;&= \n\t{}")
    assert inner not in (".", "..")


def test_lone_placeholder_takes_the_value_as_it_is() -> None:
    assert topic("{topic}", fields={"topic": "https://h/a?b#c"}) == "https://h/a?b#c"
