"""The scanner of hot paths, held to the strict way that it shortens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.protobuf import LENGTH, VARINT, Fields, _scan_one, length_field, scan, varint

FIELDS = Fields({1: LENGTH, 2: VARINT, 3: LENGTH, 16: LENGTH})


def scan_strictly(data: bytes) -> list[tuple[int, object]] | None:
    """Return the fields, one after the other without a short cut; None for what is refused."""
    found: list[tuple[int, object]] = []
    position = 0
    try:
        while position < len(data):
            position = _scan_one(data, position, FIELDS.wire_types, found)
    except MessageInvalid:
        return None
    return found


def scan_or_none(data: bytes) -> list[tuple[int, object]] | None:
    try:
        return scan(data, FIELDS)
    except MessageInvalid:
        return None


LENGTHS = st.sampled_from([0, 1, 127, 128, 129, 255, 16_383, 16_384, 16_385])


@given(st.binary(max_size=40))
def test_short_cut_finds_what_the_strict_way_finds_in_any_bytes(data: bytes) -> None:
    assert scan_or_none(data) == scan_strictly(data)


@given(st.lists(st.tuples(st.sampled_from([1, 3, 4]), LENGTHS), max_size=4), st.integers(0, 3))
def test_fields_of_any_length_are_found_and_what_is_cut_off_is_refused(
    fields: list[tuple[int, int]], cut_bytes: int
) -> None:
    data = b"".join(length_field(number, bytes([number]) * size) for number, size in fields)
    known = [(number, bytes([number]) * size) for number, size in fields if number != 4]
    assert scan(data, FIELDS) == known
    if fields and 0 < cut_bytes <= fields[-1][1]:
        with pytest.raises(MessageInvalid):
            scan(data[:-cut_bytes], FIELDS)


def test_number_and_key_of_two_bytes_are_found() -> None:
    data = b"\x10" + varint(2**64 - 1) + varint(16 << 3 | LENGTH) + b"\x02ab"
    assert scan(data, FIELDS) == [(2, 2**64 - 1), (16, b"ab")]


def test_length_in_more_bytes_than_it_needs_is_read_as_the_number_it_is() -> None:
    assert scan(b"\x0a\x82\x00ab\x0a\x82\x80\x00cd", FIELDS) == [(1, b"ab"), (1, b"cd")]


def test_known_field_of_another_wire_type_is_refused() -> None:
    with pytest.raises(MessageInvalid, match="field 1 has wire type 0"):
        scan(b"\x08\x01", FIELDS)
