"""The scanner of hot paths, held to the strict parser that it shortens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.protobuf import (
    length_field,
    length_keys,
    number_field,
    number_in,
    number_keys,
    parse,
    scan,
)
from noti.rpc.generated.noti.v1 import Event

KEYS = length_keys(1, 2, 3)
TEXTS, NUMBERS = length_keys(1, 2, 3, 4, 7, 8), number_keys(5, 6)


def parsed(data: bytes) -> Event | None:
    try:
        return parse(Event, data)
    except MessageInvalid:
        return None


def scanned(data: bytes) -> Event | None:
    try:
        found = scan(data, TEXTS, NUMBERS)
        texts = [(number, value.decode()) for number, value in found if number not in (5, 6)]
    except (MessageInvalid, UnicodeDecodeError):
        return None
    topics = [text for number, text in texts if number == 1]
    last, numbers = dict(texts), dict(found)
    return Event(
        topics=topics,
        data=last.get(2, ""),
        id=last.get(3, ""),
        type=last.get(4, ""),
        retry_ms=number_in(numbers.get(5, b"\0")),
        private=number_in(numbers.get(6, b"\0")) != 0,
        idempotency_key=last.get(7, ""),
        traceparent=last.get(8, ""),
    )


LENGTHS = st.sampled_from([0, 1, 127, 128, 129, 255, 16_383, 16_384, 16_385])


@given(st.binary(max_size=40) | st.binary(max_size=8).map(lambda rest: b"\x0a\x01a" + rest))
def test_scanner_finds_what_the_strict_way_finds_in_any_bytes(data: bytes) -> None:
    assert scanned(data) == parsed(data)


@given(st.lists(st.tuples(st.sampled_from([1, 3, 4]), LENGTHS), max_size=4), st.integers(0, 3))
def test_fields_of_any_length_are_found_and_what_is_cut_off_is_refused(
    fields: list[tuple[int, int]], cut_bytes: int
) -> None:
    data = b"".join(length_field(number, bytes([number]) * size) for number, size in fields)
    known = [(number, bytes([number]) * size) for number, size in fields if number != 4]
    assert scan(data, KEYS) == known
    if fields and 0 < cut_bytes <= fields[-1][1]:
        with pytest.raises(MessageInvalid):
            scan(data[:-cut_bytes], KEYS)


def test_fields_that_a_newer_version_added_are_skipped() -> None:
    newer = b"\x20\xff\x01" + b"\x82\x01\x02ab" + b"\x29" + bytes(8) + b"\x35" + bytes(4)
    assert scan(newer + b"\x12\x01x" + newer, KEYS) == [(2, b"x")]


@pytest.mark.parametrize("number", [0, 1, 127, 128, 16_384, 2**63])
def test_number_is_written_as_protobuf_writes_it(number: int) -> None:
    found = dict(scan(number_field(5, number), {}, NUMBERS))
    assert number_in(found.get(5, b"\0")) == number


@pytest.mark.parametrize("number", [0, 1, 127, 128, 2**31 - 1])
def test_numbers_are_found_beside_texts(number: int) -> None:
    data = bytes(Event(topics=["a"], retry_ms=number, private=True, idempotency_key="k"))
    found = dict(scan(data, TEXTS, NUMBERS))
    assert number_in(found.get(5, b"\0")) == number
    assert number_in(found[6]) == 1
    assert found[7] == b"k"
    with pytest.raises(MessageInvalid, match="field 5 has wire type 2"):
        scan(b"\x2a\x00", TEXTS, NUMBERS)


def test_length_in_more_bytes_than_it_needs_is_read_as_the_number_it_is() -> None:
    assert scan(b"\x0a\x82\x00ab\x0a\x82\x80\x00cd", KEYS) == [(1, b"ab"), (1, b"cd")]


def test_known_field_of_another_wire_type_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="field 1 has wire type 0"):
        scan(b"\x08\x01", KEYS)
