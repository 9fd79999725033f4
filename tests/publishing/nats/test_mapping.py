"""Messages become events, by the mapping of their stream."""

import random
from pathlib import Path

import pytest

from noti.errors import ConfigInvalid, MessageInvalid, TooLarge
from noti.history.commands import PublishBatch, decode, encode
from noti.history.notification import Event
from noti.publishing.events import EVENT_BYTES_MAX, make_id
from noti.publishing.nats.mapping import (
    PAYLOAD_BYTES_MAX,
    SUBJECTS_KNOWN_MAX,
    StreamMapping,
    mapping_of,
)
from noti.publishing.nats.ports import SourceMessage
from noti.stream_settings import StreamSettings, SubjectSettings

WALL_MS = 18


def mapping(*subjects: dict[str, str]) -> StreamMapping:
    return StreamMapping(
        [SubjectSettings.model_validate({"decoder": "text", **one}) for one in subjects]
    )


def event(
    made: StreamMapping, payload: bytes = b"x", subject: str = "news.sport", **headers: list[str]
) -> Event:
    named = {name.replace("_", "-"): values for name, values in headers.items()}
    message = SourceMessage(3, subject, payload, named, 17)
    one = made.event_of(message, wall_ms=WALL_MS, rng=random.Random(1))
    assert decode(encode(PublishBatch("s", (one,)))) == PublishBatch("s", (one,))
    return one


NEWS = mapping({"subject": "news.>"})


def test_text_is_shown_as_it_is_with_its_subject_for_topic() -> None:
    assert event(NEWS, "né".encode(), nats_msg_id=["n-1"]) == Event(
        3, "n-1", ("news.sport",), "né", 17
    )


@pytest.mark.parametrize("ids", [[], ["#a"], ["earliest"], ["x" * 257], ["a\n"], [""]])
def test_id_that_cannot_be_one_is_replaced_by_a_uuid7(ids: list[str]) -> None:
    made = event(NEWS, nats_msg_id=ids) if ids else event(NEWS)
    assert made.id == make_id(WALL_MS, random.Random(1))


def test_headers_win_over_the_payload() -> None:
    made = event(
        NEWS,
        nats_msg_id=["n-1"],
        noti_topic=["https://example.com/1", "b"],
        noti_type=["price"],
        noti_private=["true"],
        noti_retry=["500"],
        traceparent=["anything"],
    )
    assert made == Event(
        3, "n-1", ("https://example.com/1", "b"), "x", 17, "price", 500, private=True
    )


def test_headers_of_ours_count_without_an_id_too() -> None:
    assert event(NEWS, noti_topic=["a"]).topics == ("a",)
    with pytest.raises(MessageInvalid, match="Noti-Private"):
        event(NEWS, noti_private=["perhaps"])


def test_first_subject_that_matches_counts() -> None:
    made = mapping(
        {"subject": "news.*.raw", "topic": "raw"},
        {"subject": "news.>", "topic": "https://example.com/{2}"},
    )
    assert event(made, subject="news.a.raw").topics == ("raw",)
    assert event(made, subject="news.a.b").topics == ("https://example.com/a",)
    assert event(made, subject="news.a.raw").topics == ("raw",)
    with pytest.raises(MessageInvalid, match="none that is read"):
        event(made, subject="old")


def test_topic_is_made_of_fields_of_json() -> None:
    made = mapping({"subject": ">", "decoder": "json", "topic": "/users/{user.id}"})
    assert event(made, b'{"user": {"id": 7}}').topics == ("/users/7",)
    with pytest.raises(MessageInvalid, match=r"user\.id"):
        event(made, b'{"user": 7}')
    assert event(made, b'{"user": 7}', noti_topic=["a"]).topics == ("a",), "headers win"


def test_topic_that_readers_cannot_name_is_invalid_unless_a_header_names_another() -> None:
    reserved = "/.well-known/mercure/subscriptions"
    made = mapping({"subject": ">"})
    for _ in range(2):
        with pytest.raises(MessageInvalid, match="reserved"):
            event(made, subject=reserved)
    assert event(made, subject=reserved, noti_topic=["a"]).topics == ("a",)
    chosen = mapping({"subject": ">", "decoder": "json", "topic": "{topic}"})
    with pytest.raises(MessageInvalid, match="reserved"):
        event(chosen, b'{"topic": "/.well-known/mercure/subscriptions/a"}')


def test_data_that_is_too_large_is_invalid() -> None:
    with pytest.raises(TooLarge):
        event(NEWS, b"x" * (EVENT_BYTES_MAX + 1))
    made = mapping({"subject": ">", "decoder": "json"})
    with pytest.raises(TooLarge, match="a payload of"):
        event(made, b"[" * (PAYLOAD_BYTES_MAX + 1))


def test_subjects_that_are_remembered_are_bounded() -> None:
    for number in range(SUBJECTS_KNOWN_MAX + 10):
        assert event(NEWS, subject=f"news.{number}").topics == (f"news.{number}",)
    assert len(NEWS._ways) <= SUBJECTS_KNOWN_MAX
    long = "news." + "x" * 300
    assert event(NEWS, subject=long).topics == (long,)
    assert long not in NEWS._ways


def test_category_may_have_a_topic_of_its_fields() -> None:
    made = mapping({"subject": ">", "decoder": "category", "topic": "/users/{user_id}"})
    assert event(made, b"\x08\x07").topics == ("/users/7",)


def test_cloud_event_names_topic_type_and_id_unless_settings_or_headers_do() -> None:
    payload = (
        b'{"specversion":"1.0","id":"c-1","source":"/s","type":"com.paid","subject":"users/7",'
        b'"time":"1970-01-01T00:00:01Z","data":{"user":{"id":7}}}'
    )
    plain = mapping({"subject": ">", "decoder": "cloudevents"})
    assert event(plain, payload) == Event(
        3, "c-1", ("users/7",), '{"user":{"id":7}}', 1000, "com.paid"
    )
    told = event(plain, payload, nats_msg_id=["n-1"], noti_topic=["a"], noti_type=[""])
    assert (told.id, told.topics, told.type) == ("n-1", ("a",), "")
    assert event(plain, payload, nats_msg_id=["#"]).id == "c-1"
    assert event(plain, payload.replace(b"subject", b"subjekt")).topics == ("news.sport",)
    fields = mapping({"subject": ">", "decoder": "cloudevents", "topic": "/{user.id}/{ce-type}"})
    assert event(fields, payload).topics == ("/7/com.paid",)
    with pytest.raises(TooLarge, match="type"):
        event(plain, payload.replace(b"com.paid", b"x" * 129))


@pytest.mark.parametrize(
    ("subject", "problem"),
    [
        ({"subject": "a.>", "topic": "x{"}, "stream s, subject a.>: topic 'x{' has a single {"),
        ({"subject": "a.*", "topic": "{3}"}, "has {3}, and the subject has 2 tokens"),
        ({"subject": "a.>", "topic": "{id}"}, "has fields, and text has none"),
        ({"subject": "a.>", "topic": "a\0b{1}"}, "cannot be one: topic 'a\\x00bx' has a control"),
        ({"subject": "a.>", "topic": "/.well-known/mercure/{1}"}, "is reserved"),
        ({"subject": "a.>", "topic": "*"}, "'*' is no topic"),
        ({"subject": "a.>", "topic": "x" * 1025}, "longer than 1024 bytes"),
    ],
)
def test_mapping_that_cannot_be_used_says_where(subject: dict[str, str], problem: str) -> None:
    one = SubjectSettings.model_validate({"decoder": "text", **subject})
    with pytest.raises(ConfigInvalid) as caught:
        mapping_of(StreamSettings(name="s", subjects=(one,)))
    assert problem in str(caught.value)


def test_protobuf_needs_its_descriptors_at_the_start(tmp_path: Path) -> None:
    one = SubjectSettings(
        subject="a", decoder="protobuf", descriptor_set=tmp_path / "none", message="a.B"
    )
    with pytest.raises(ConfigInvalid, match=r"subject a: descriptor_set .* cannot be read"):
        mapping_of(StreamSettings(name="s", subjects=(one,)))
