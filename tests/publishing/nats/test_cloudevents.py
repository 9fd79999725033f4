"""CloudEvents in both modes, as their publishers write them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.publishing.nats.cloudevents import CloudEventDecoder
from noti.publishing.nats.content import MessageContent
from noti.publishing.nats.ports import SourceMessage

DECODE = CloudEventDecoder(needs_fields=True)
PLAIN = {"specversion": "1.0", "id": "a-1", "source": "/s", "type": "com.paid"}


def structured(text: str | bytes, **headers: str) -> MessageContent:
    payload = text if isinstance(text, bytes) else text.encode()
    named = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return DECODE(SourceMessage(1, "a", payload, named), 0)


def with_members(**members: object) -> str:
    return json.dumps({**PLAIN, **members})


def binary(payload: bytes, **attributes: str) -> MessageContent:
    headers = {f"ce-{name}": [value] for name, value in {**PLAIN, **attributes}.items()}
    return DECODE(SourceMessage(1, "a", payload, {**headers, "content-type": ["text/plain"]}), 0)


def test_structured_event_says_id_type_subject_and_time() -> None:
    text = with_members(subject="users/7", time="2024-05-06T07:08:09.25+02:00", data={"a": 1})
    content = structured(text)
    assert content[:1] + content[2:] == ('{"a": 1}', "a-1", "com.paid", "users/7", 1714972089250)
    fields = content.fields
    assert isinstance(fields, dict)
    assert (fields["a"], fields["ce-source"], fields["ce-subject"]) == ("1", "/s", "users/7")


@pytest.mark.parametrize(
    ("member", "data"),
    [
        ('"data": {"a" : 1.50, "b": 1e999}', '{"a" : 1.50, "b": 1e999}'),
        ('"data": "plain \\u00e9"', "plain é"),
        ('"data": null', "null"),
        ('"data": 12345678901234567890', "12345678901234567890"),
        ('"data_base64": "w6k="', "é"),
        ('"other": 1', ""),
    ],
)
def test_data_is_shown_as_it_stands_there(member: str, data: str) -> None:
    start = json.dumps(PLAIN)[:-1]
    assert structured(f"\n{start} , {member} \n}} ").data == data


def test_binary_event_has_its_data_for_payload() -> None:
    content = binary('{"é": 1}'.encode(), subject="a%20b", time="2024-05-06T07:08:09Z")
    assert (content.data, content.topic, content.created_ms) == ('{"é": 1}', "a b", 1714979289000)
    assert content.fields == {
        "é": "1",
        "ce-specversion": "1.0",
        "ce-id": "a-1",
        "ce-source": "/s",
        "ce-type": "com.paid",
        "ce-subject": "a b",
        "ce-time": "2024-05-06T07:08:09Z",
    }
    assert binary(b"not json").data == "not json"


def test_content_type_says_that_all_is_in_the_payload() -> None:
    text = with_members(data=1)
    content = structured(
        text, content_type="application/cloudevents+json; charset=utf-8", ce_specversion="0.3"
    )
    assert (content.id, content.data) == ("a-1", "1")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "no CloudEvent in JSON"),
        (b"[]", "it is no object"),
        (b"{}", "specversion 'None'"),
        (b"{} x", "Extra data"),
        (b'{"a": 1,}', "a name in quotes"),
        (b'{"a" 1}', "Expecting ':'"),
        (b'{"a": 1 "b"}', "Expecting ',' or '}'"),
        (b'{"a": 1', "Expecting ',' or '}'"),
        (b"{1: 2}", "a name in quotes"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"\xff", "no UTF-8"),
        (with_members(specversion="0.3"), "specversion '0.3'"),
        (with_members(specversion=1.0), ""),
        (with_members(id=""), "no text for its id"),
        (with_members(id=7, source=None), "no text for its source"),
        (with_members(type=["a"]), "no text for its type"),
        (with_members(subject=""), "no text for its subject"),
        (with_members(time="yesterday"), "not RFC 3339"),
        (with_members(time="2024-05-06T07:08:09"), "not RFC 3339"),
        (with_members(time="1969-05-06T07:08:09Z"), "after 1970"),
        (with_members(data=1, data_base64="YQ=="), "may have one"),
        (with_members(data_base64="/w=="), "holds no UTF-8"),
        (with_members(data_base64="?"), "holds no UTF-8"),
        (with_members(data_base64=7), "holds no UTF-8"),
        (json.dumps(PLAIN)[:-1] + ',"x":' + "[" * 101 + "]" * 101 + "}", "nested"),
        (json.dumps(PLAIN)[:-1] + ',"x":' + "[" * 100_000, "nested"),
    ],
)
def test_what_is_no_cloud_event_is_invalid(text: str | bytes, problem: str) -> None:
    if problem == "":
        # A number instead of text is a slip of many publishers, and says the same.
        assert structured(text).id == "a-1"
        return
    with pytest.raises(MessageInvalid) as caught:
        structured(text)
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [({"id": ""}, "id"), ({"specversion": "2"}, "specversion"), ({"subject": "%ff"}, "UTF-8")],
)
def test_wrong_attribute_of_binary_mode_is_invalid(
    attributes: dict[str, str], problem: str
) -> None:
    with pytest.raises(MessageInvalid, match=problem):
        binary(b"x", **attributes)


def test_fields_are_left_out_where_no_template_needs_them() -> None:
    decode = CloudEventDecoder(needs_fields=False)
    assert decode(SourceMessage(1, "a", with_members(data={"a": 1}).encode()), 0).fields == {}


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.integers())))
def test_data_of_any_object_is_the_same_json(data: dict[str, object]) -> None:
    for ascii_only in (True, False):
        text = json.dumps({**PLAIN, "data": data}, ensure_ascii=ascii_only)
        try:
            payload = text.encode()
        except UnicodeEncodeError:
            continue
        assert json.loads(structured(payload).data) == data
