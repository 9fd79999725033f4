"""Promises of the reader of forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid, TooLarge
from noti.http.forms import FORM, is_media_type, parse_form, problem_of_type, values_of
from tests.http.publishing_stage import form


@given(st.lists(st.tuples(st.text(), st.text())))
def test_what_a_client_encodes_is_what_is_read(fields: list[tuple[str, str]]) -> None:
    named = [(name, value) for name, value in fields if name or value]
    assert parse_form(form(*named), 1000) == named


def test_fields_keep_their_order_and_may_be_repeated() -> None:
    body = b"topic=a&data=1&topic=b&private&topic="
    wanted = [("topic", "a"), ("data", "1"), ("topic", "b"), ("private", ""), ("topic", "")]
    assert parse_form(body, 5) == wanted


def test_a_plus_is_a_space_and_an_encoded_one_is_none() -> None:
    assert parse_form(b"data=1+2%2B3", 9) == [("data", "1 2+3")]


def test_a_percent_sign_that_begins_no_sequence_stands_for_itself() -> None:
    assert parse_form(b"data=100%&b=%zz", 9) == [("data", "100%"), ("b", "%zz")]


@pytest.mark.parametrize("body", [b"data=\xff", b"data=%ff", b"%C3=a", b"data=%ed%a0%80"])
def test_what_is_not_utf_8_is_refused(body: bytes) -> None:
    with pytest.raises(MessageInvalid, match="not UTF-8"):
        parse_form(body, 9)


def test_more_fields_than_allowed_are_refused_before_they_are_read() -> None:
    assert len(parse_form(b"&".join([b"a=b"] * 9), 9)) == 9
    with pytest.raises(TooLarge, match="more than 9 fields"):
        parse_form(b"&".join([b"a=%ff"] * 10), 9)


@pytest.mark.parametrize(
    "content_type",
    [
        FORM,
        "Application/X-WWW-Form-Urlencoded",
        f"{FORM}; charset=utf-8",
        f'{FORM};charset="UTF-8"',
        f"{FORM}; boundary=x",
    ],
)
def test_forms_in_utf_8_are_taken(content_type: str) -> None:
    assert problem_of_type(content_type) is None


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/json", "multipart/form-data; boundary=x", f"{FORM}x"],
)
def test_other_bodies_are_refused_with_what_to_send(content_type: str) -> None:
    assert FORM in (problem_of_type(content_type) or "")


def test_another_charset_is_refused() -> None:
    assert "UTF-8" in (problem_of_type(f"{FORM}; charset=latin1") or "")


@pytest.mark.parametrize("content_type", ["", "form", "a/b/c", "application json"])
def test_what_is_no_media_type_is_told_from_another_one(content_type: str) -> None:
    assert problem_of_type(content_type)
    assert not is_media_type(content_type)
    assert is_media_type("application/json")
    assert is_media_type(f"{FORM.upper()}; charset=utf-8")


def test_a_parameter_is_found_in_a_query_whatever_else_is_in_it() -> None:
    assert values_of("a=1&token=x%2B&token=y&b=%ff", "token") == ("x+", "y")
    assert values_of("", "token") == values_of("a=token", "token") == ()
