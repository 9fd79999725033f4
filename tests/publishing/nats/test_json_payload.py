"""JSON and text reach readers as they are, or are refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.publishing.nats.json_payload import DEPTH_MAX, decode_json, decode_text
from noti.publishing.nats.ports import SourceMessage


def message(payload: bytes) -> SourceMessage:
    return SourceMessage(1, "a", payload)


@pytest.mark.parametrize(
    "text", ['{"a": 1.50, "a": 2}', " [1]\n", '"x"', "null", "1e999", "-0", "9" * 5000, '"\\ud800"']
)
def test_json_is_shown_as_it_is(text: str) -> None:
    assert decode_json(message(text.encode()), 0).data == text


def test_last_value_of_a_key_counts_and_numbers_stay_as_they_are_written() -> None:
    content = decode_json(message(b'{"a": 1, "a": 2.50, "b": 12345678901234567890}'), 0)
    assert content.fields == {"a": "2.50", "b": "12345678901234567890"}


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        (b"", "no JSON"),
        (b"\xef\xbb\xbf{}", "no JSON"),
        (b"{} {}", "no JSON"),
        (b"{'a': 1}", "no JSON"),
        (b"[1,]", "no JSON"),
        (b"NaN", "NaN is no number"),
        (b"[-Infinity]", "-Infinity is no number"),
        (b'{"a": "\n"}', "no JSON"),
        (b"\xff", "no UTF-8"),
        (b'"\xed\xa0\x80"', "no UTF-8"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "nested"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested"),
        (b"[" * 1_000_000, "nested"),
    ],
)
def test_payload_that_is_no_json_is_invalid(payload: bytes, problem: str) -> None:
    with pytest.raises(MessageInvalid, match=problem):
        decode_json(message(payload), 0)


def test_depth_is_counted_and_not_brackets() -> None:
    deep = "[" * DEPTH_MAX + "]" * DEPTH_MAX
    for text in (deep, "[" + "[],{}," * 5000 + "1]", json.dumps("[" * 500)):
        assert decode_json(message(text.encode()), 0).data == text


def test_text_is_shown_as_it_is() -> None:
    assert decode_text(message("a\r\nné".encode()), 0).data == "a\r\nné"
    assert decode_text(message(b""), 0).data == ""
    with pytest.raises(MessageInvalid, match="no UTF-8 text, at byte 1"):
        decode_text(message(b"a\xff"), 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_whatever_is_json_is_taken(value: object) -> None:
    text = json.dumps(value)
    if "Infinity" not in text:
        assert decode_json(message(text.encode()), 0).data == text
