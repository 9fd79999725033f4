"""The scanner of hot paths, held to the strict parser that it shortens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.protobuf import length_field, length_keys, parse, scan
from noti.rpc.generated.noti.v1 import Event

KEYS = length_keys(1, 2, 3)


def parsed(data: bytes) -> Event | None:
    try:
        return parse(Event, data)
    except MessageInvalid:
        return None


def scanned(data: bytes) -> Event | None:
    try:
        fields = [(number, value.decode()) for number, value in scan(data, KEYS)]
    except (MessageInvalid, UnicodeDecodeError):
        return None
    topics = [text for number, text in fields if number == 1]
    last = dict(fields)
    return Event(topics=topics, data=last.get(2, ""), id=last.get(3, ""))


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


def test_length_in_more_bytes_than_it_needs_is_read_as_the_number_it_is() -> None:
    assert scan(b"\x0a\x82\x00ab\x0a\x82\x80\x00cd", KEYS) == [(1, b"ab"), (1, b"cd")]


def test_known_field_of_another_wire_type_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="field 1 has wire type 0"):
        scan(b"\x08\x01", KEYS)
