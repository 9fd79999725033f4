"""Payloads and headers of JetStream messages, for every decoder that settings can name.

Enters: bytes. Leaves: nothing, or an undocumented exception, or an event that the log would not
hold. Never: sockets.
"""

import random
import tempfile
from functools import cache
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

from noti.history.commands import PublishBatch, decode, encode
from noti.publishing.nats.dead_letter import parse_headers
from noti.publishing.nats.mapping import StreamMapping
from noti.publishing.nats.ports import SourceMessage
from noti.publishing.nats.topic_template import TopicTemplate
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.stream_settings import SubjectSettings

CATEGORIES = [bytes(CategoryMessage(user_id=7, category_from="books", category_to="films"))]
JSON = [b'{"user": {"id": 7, "a": [1.5e3, null, true, "\\u00e9\\ud800"]}}']
CLOUD_EVENTS = [
    b'{"specversion": "1.0", "id": "a", "source": "/s", "type": "t", "subject": "u",'
    b' "time": "2024-05-06T07:08:09Z", "data": {"user": {"id": "a/b"}}}',
    b'{"specversion":"1.0","id":"a","source":"/s","type":"t","data_base64":"e30="}',
]
MESSAGES = [b"\x08\x07\x12\x02id\x1a\x04\x08\x01\x1a\x00\x22\x04\x01\x02\x03\x04"]
HEADERS = [
    b"nats-msg-id: a\nnoti-topic: b\nnoti-topic: c\nnoti-type: t\nnoti-private: on\nnoti-retry: 5",
    b"ce-specversion: 1.0\nce-id: a%20b\nce-source: s\nce-type: t\nce-time: 2024-05-06T07:08:09Z",
    b"content-type: application/cloudevents+json\ntraceparent: 00-0-0-01",
]
TEMPLATES = [b"https://example.com/{1}/{user.id}?x={{{subject}}}#{a-b.c}", b"{user.id}"]


@cache
def mapping(decoder: str, topic: str | None = "/users/{user.id}") -> StreamMapping:
    settings = {"subject": ">", "decoder": decoder, "topic": topic}
    return StreamMapping((SubjectSettings.model_validate(settings),))


@cache
def protobuf_mapping() -> StreamMapping:
    """Of a message that has itself inside, and all kinds of wire types."""
    kinds = FieldDescriptorProto
    message = DescriptorProto(name="M")
    fields = {
        "n": kinds.TYPE_INT64,
        "s": kinds.TYPE_STRING,
        "m": kinds.TYPE_MESSAGE,
        "r": kinds.TYPE_SINT32,
        "f": kinds.TYPE_DOUBLE,
        "x": kinds.TYPE_FIXED32,
    }
    for number, (name, kind) in enumerate(fields.items(), 1):
        label = kinds.LABEL_REPEATED if name in "mr" else kinds.LABEL_OPTIONAL
        message.field.add(
            name=name,
            number=number,
            type=kind,
            label=label,
            type_name=".p.M" if name == "m" else None,
        )
    descriptors = FileDescriptorSet()
    descriptors.file.add(name="m.proto", package="p", syntax="proto3", message_type=[message])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "m.pb"
        file.write_bytes(descriptors.SerializeToString())
        one = SubjectSettings(
            subject=">", decoder="protobuf", descriptor_set=file, message="p.M", topic="/{n}/{s}"
        )
        return StreamMapping((one,))


def _take(made: StreamMapping, message: SourceMessage) -> None:
    event = made.event_of(message, wall_ms=10, rng=random.Random(0))
    assert decode(encode(PublishBatch("s", (event,)))) == PublishBatch("s", (event,))


def take_category(data: bytes) -> None:
    _take(mapping("category", None), SourceMessage(1, "jobs.noti.a", data))


def take_text(data: bytes) -> None:
    _take(mapping("text", None), SourceMessage(1, "a", data))


def take_json(data: bytes) -> None:
    _take(mapping("json"), SourceMessage(1, "a", data))


def take_cloud_event(data: bytes) -> None:
    _take(mapping("cloudevents", None), SourceMessage(1, "a", data))


def take_message(data: bytes) -> None:
    _take(protobuf_mapping(), SourceMessage(1, "a", data))


def take_headers(data: bytes) -> None:
    headers: dict[str, list[str]] = {}
    for name, value in parse_headers(b"NATS/1.0\r\n" + data.replace(b"\n", b"\r\n")):
        headers.setdefault(name.lower(), []).append(value)
    for decoder, payload in (("text", b"{}"), ("cloudevents", CLOUD_EVENTS[0])):
        _take(mapping(decoder, None), SourceMessage(1, "a", payload, headers))


def make_template(data: bytes) -> None:
    template = TopicTemplate(data.decode("utf-8", "surrogateescape"))
    fields = {"user": {"id": "a/../b?c#d"}, "a-b": {"c": 7}}
    assert template.bind("a.b").topic(fields)
