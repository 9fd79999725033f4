"""Parses protobuf bytes from outside, strictly.

Enters: bytes and a generated message class. Leaves: a message of that class.
Never: a foreign exception, or a message made of half a payload.

betterproto2's own parser accepts a payload that was cut in the middle of a field, and puts a value
of the wrong wire type into a field as it is. Here, the wire format is checked first. Fields that a
newer version may have added are skipped, as protobuf demands.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, TypeAlias, TypeVar

import betterproto2

from noti.errors import MessageInvalid

M = TypeVar("M", bound=betterproto2.Message)

VARINT, _FIXED_64, LENGTH, _FIXED_32 = 0, 1, 2, 5
_FIXED_BYTES: Final = {_FIXED_64: 8, _FIXED_32: 4}

_WIRE_TYPES: Final = {
    **dict.fromkeys(betterproto2.WIRE_VARINT_TYPES, VARINT),
    **dict.fromkeys(betterproto2.WIRE_FIXED_32_TYPES, _FIXED_32),
    **dict.fromkeys(betterproto2.WIRE_FIXED_64_TYPES, _FIXED_64),
    **dict.fromkeys(betterproto2.WIRE_LEN_DELIM_TYPES, LENGTH),
}

_Schema: TypeAlias = dict[int, tuple[int, type[betterproto2.Message] | None]]
"""Field number -> (wire type, class of the message inside, if it is one)."""


def parse(message_class: type[M], data: bytes) -> M:
    """Return the message in `data`.

    Raises `MessageInvalid` for bytes that are cut off or not protobuf, a known field with another
    wire type than its own, text that is not UTF-8, and a value outside of what Python can hold
    (a timestamp after the year 9999).
    """
    _check(message_class, memoryview(data))
    try:
        return message_class.parse(data)
    except (ValueError, OverflowError) as error:
        raise MessageInvalid(f"{message_class.__name__}: {error}") from error


class Fields:
    """The fields of a message that `scan` returns; others are skipped."""

    def __init__(self, wire_types: Mapping[int, int]) -> None:
        """`wire_types` has `VARINT` or `LENGTH` for each number."""
        self.wire_types = wire_types
        self.short_keys = {
            number << 3 | LENGTH: number
            for number, wire_type in wire_types.items()
            if wire_type == LENGTH and number < 1 << 4
        }
        """Keys of one byte -> number, of what has a length."""


def scan(data: bytes, fields: Fields) -> list[tuple[int, Any]]:
    """Return number and value (`int`, or `bytes` for text, bytes and messages) of each known field.

    For hot paths: a generated class takes 20 times as long. Other fields, which a newer version may
    have added, are skipped. Raises `MessageInvalid` as `parse` does, except for text.
    """
    found: list[tuple[int, Any]] = []
    position, end, short_keys = 0, len(data), fields.short_keys
    while position < end:
        number = short_keys.get(data[position], 0)
        start = position + 2
        if number and start < end:  # nearly all there is; `_scan_one` would take twice as long
            size = data[start - 1]
            if size >= 0x80:
                size += (data[start] - 1) << 7  # a number of three bytes becomes too large here
                start += 1
            if size < 1 << 14 and start + size <= end:
                position = start + size
                found.append((number, data[start:position]))
                continue
        position = _scan_one(data, position, fields.wire_types, found)
    return found


def _scan_one(
    data: bytes, position: int, wire_types: Mapping[int, int], found: list[tuple[int, Any]]
) -> int:
    """Note the field at `position`, if it is known, and return where the next one begins."""
    end = len(data)
    key, position = _varint(data, position)
    number, wire_type = key >> 3, key & 7
    value: Any = None
    match wire_type:
        case 0:
            value, position = _varint(data, position)
        case 2:
            size, start = _varint(data, position)
            position = start + size
            value = data[start:position]
        case 1 | 5:
            position += _FIXED_BYTES[wire_type]
        case _:
            raise MessageInvalid(f"protobuf: wire type {wire_type}")
    if position > end or number == 0:
        raise MessageInvalid("protobuf: cut off, or not protobuf")
    if number in wire_types:
        if wire_types[number] != wire_type:
            raise MessageInvalid(f"protobuf: field {number} has wire type {wire_type}")
        found.append((number, value))
    return position


def uint_field(number: int, value: int) -> bytes:
    """Return a number's field; the default, 0, is not written."""
    return bytes((number << 3,)) + varint(value) if value else b""


def length_field(number: int, value: bytes) -> bytes:
    """Return the field of a text, bytes or message, also of an empty one."""
    size = len(value)
    if size < 0x80:
        return bytes((number << 3 | LENGTH, size)) + value
    return bytes((number << 3 | LENGTH,)) + varint(size) + value


def varint(number: int) -> bytes:
    """Return a number of up to 64 bits as protobuf writes it."""
    if number < 0x80:
        return bytes((number,))
    digits = bytearray()
    while number >= 0x80:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def _check(message_class: type[betterproto2.Message], data: memoryview) -> None:
    schema = _schema(message_class)
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        start = position
        match wire_type:
            case 0:
                _, position = _varint(data, position)
            case 1:
                position += 8
            case 2:
                length, start = _varint(data, position)
                position = start + length
            case 5:
                position += 4
            case _:
                raise MessageInvalid(f"{message_class.__name__}: wire type {wire_type}")
        if position > len(data) or number == 0:
            raise MessageInvalid(f"{message_class.__name__}: cut off, or not protobuf")
        if number in schema:
            expected, inner = schema[number]
            if wire_type != expected:
                raise MessageInvalid(
                    f"{message_class.__name__}: field {number} has wire type {wire_type}"
                )
            if inner is not None:
                _check(inner, data[start:position])


def _varint(data: memoryview | bytes, position: int) -> tuple[int, int]:
    value = 0
    # 10 bytes of 7 bits hold 64 bits.
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise MessageInvalid("protobuf: cut off in a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise MessageInvalid("protobuf: a number of more than 64 bits")


@cache
def _schema(message_class: type[betterproto2.Message]) -> _Schema:
    """Read numbers and types off a generated class; our files have no maps and no packed fields."""
    # betterproto2 declares its class property as if it could not be read from the class.
    metadata = message_class._betterproto  # type: ignore[arg-type]
    schema: _Schema = {}
    for name, field in metadata.meta_by_field_name.items():
        inner = None
        if field.proto_type == betterproto2.TYPE_MESSAGE:
            inner = field.unwrap() if field.unwrap else metadata.cls_by_field[name]
        schema[field.number] = (_WIRE_TYPES[field.proto_type], inner)
    return schema
