"""Publishers' payloads."""

import json
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.history.notification import Event
from noti.protobuf import length_field, length_keys, parse, scan
from noti.publishing.events import EVENT_BYTES_MAX, make_id
from noti.publishing.nats.mapping import StreamMapping
from noti.publishing.nats.ports import SourceMessage
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.stream_settings import SubjectSettings
from tests.fuzz.mutations import mutated

WALL_MS = 1_700_000_000_123
MAPPING = StreamMapping((SubjectSettings(subject=">", decoder="category"),))
CREATED = datetime(2024, 5, 6, 7, 8, 9, 250_000, tzinfo=UTC)


def decode(payload: bytes, message_id: str | None = "id-1", subject: str = "jobs.noti.x") -> Event:
    headers = {} if message_id is None else {"nats-msg-id": [message_id]}
    message = SourceMessage(7, subject, payload, headers)
    return MAPPING.event_of(message, wall_ms=WALL_MS, rng=random.Random(5))


def payload(**fields: object) -> bytes:
    return bytes(CategoryMessage(**fields))  # type: ignore[arg-type]


def test_event_carries_the_message() -> None:
    event = decode(payload(user_id=12, category_from="a\nb", category_to="ü", created_at=CREATED))
    assert event == Event(
        source_seq=7,
        id="id-1",
        topics=("jobs.noti.x",),
        data='{"user_id":12,"category_from":"a\\nb","category_to":"ü",'
        '"created_at":"2024-05-06T07:08:09.250Z"}',
        created_ms=round(CREATED.timestamp() * 1000),
    )


def test_time_of_reading_stands_in_for_a_missing_one() -> None:
    event = decode(payload(user_id=1))
    assert event.created_ms == WALL_MS
    assert json.loads(event.data)["created_at"] == "2023-11-14T22:13:20.123Z"


@pytest.mark.parametrize(
    "message_id", [None, "", "a ", "a\n", "#a", "x" * 257, "earliest", "beginning"]
)
def test_unusable_id_is_replaced_by_a_uuid7(message_id: str | None) -> None:
    event = decode(payload(user_id=1), message_id)
    assert event.id == make_id(WALL_MS, random.Random(5))


def test_made_id_is_a_uuid7_of_its_time() -> None:
    made = make_id(WALL_MS, random.Random(1))
    digits = made.removeprefix("urn:uuid:").replace("-", "")
    assert int(digits[:12], 16) == WALL_MS
    assert digits[12] == "7"
    assert digits[16] in "89ab"
    assert [len(part) for part in made.split(":")[2].split("-")] == [8, 4, 4, 4, 12]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xff",
        b'{"user_id": 1}',
        payload(category_from="abc")[:-1],  # cut off
        b"\x0a\x01x",  # user_id as text
        b"\x10\x05",  # category_from as a number
        b"\x12\x02\xff\xfe",  # not UTF-8
        b"\x78\x01",  # only a field that we do not know
        b"\x22\x01\x08",  # a timestamp that is cut off
        b"\x22\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f",  # a year beyond any calendar
        payload(user_id=1, created_at=datetime(1969, 12, 31, tzinfo=UTC)),
        payload(category_to="x" * EVENT_BYTES_MAX),
    ],
    ids=[
        "empty",
        "noise",
        "json",
        "cut",
        "text-for-number",
        "number-for-text",
        "not-utf8",
        "unknown-only",
        "cut-timestamp",
        "endless-time",
        "before-1970",
        "too-large",
    ],
)
def test_payload_that_does_not_parse_is_invalid(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode(data)


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("*", "no topic"),
        ("/.well-known/mercure/subscriptions", "reserved"),
        ("jobs.noti.\x01", "control character"),
        ("jobs.noti.\x7f", "control character"),
        ("jobs.noti.\udc80", "no Unicode text"),
    ],
)
def test_subject_that_no_reader_can_name_is_invalid(subject: str, reason: str) -> None:
    with pytest.raises(MessageInvalid, match=reason):
        decode(payload(user_id=1), subject=subject)


def test_fields_of_newer_publishers_are_skipped() -> None:
    assert decode(payload(user_id=3) + b"\x7a\x03new").data == decode(payload(user_id=3)).data


@given(st.binary(max_size=60))
def test_random_payload_gives_one_line_of_json_or_is_invalid(data: bytes) -> None:
    try:
        event = decode(data)
    except MessageInvalid:
        return
    assert "\n" not in event.data
    assert "\r" not in event.data
    assert set(json.loads(event.data)) == {
        "user_id",
        "category_from",
        "category_to",
        "created_at",
    }


EXAMPLES = [
    payload(user_id=2**32 - 1, category_from='é\n"\\\0', category_to="films", created_at=CREATED),
    payload(category_from="a", created_at=datetime(9999, 12, 31, tzinfo=UTC)),
    b"\x22\x06\x08\x05\x10\xff\xff\x03",
]


def as_the_class_reads(data: bytes) -> dict[str, object] | None:
    """Return what the generated class makes of a payload, which takes it much longer."""
    try:
        category = parse(CategoryMessage, data)
    except MessageInvalid:
        return None
    created = category.created_at or datetime.fromtimestamp(0, UTC) + timedelta(
        milliseconds=WALL_MS
    )
    if category == CategoryMessage() or created.astimezone(UTC).year < 1970:
        return None
    at = created.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    texts = {"category_from": category.category_from, "category_to": category.category_to}
    return {"user_id": category.user_id, **texts, "created_at": at}


def times_in(data: bytes) -> int:
    """Return how often a payload says when it was created."""
    try:
        return len(list(scan(data, length_keys(4))))
    except MessageInvalid:
        return 0


def test_of_several_times_the_last_counts() -> None:
    impossible = length_field(4, b"\x08" + b"\xff" * 7 + b"\x0f")
    with pytest.raises(MessageInvalid):
        decode(payload(user_id=1) + impossible)
    possible = payload(user_id=1, created_at=CREATED)
    assert decode(impossible + possible).data == decode(possible).data


@settings(max_examples=500, deadline=None)
@given(mutated(EXAMPLES))
def test_payload_is_read_as_the_generated_class_reads_it(data: bytes) -> None:
    assume(times_in(data) < 2)  # the class judges each, and we the one that counts
    try:
        read: object = json.loads(decode(data).data)
    except MessageInvalid:
        read = None
    assert read == as_the_class_reads(data)
