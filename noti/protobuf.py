"""Parses protobuf bytes from outside, strictly: never a foreign exception, or half a payload.

betterproto2's own parser accepts a payload that was cut in the middle of a field, and puts a value
of the wrong wire type into a field as it is. Here, the wire format is checked first. Fields that a
newer version may have added are skipped, as protobuf demands.
"""

from collections.abc import Mapping
from functools import cache
from typing import Final, TypeAlias, TypeVar

import betterproto2

from noti.errors import MessageInvalid

M = TypeVar("M", bound=betterproto2.Message)

_VARINT, _FIXED_64, LENGTH, _FIXED_32 = 0, 1, 2, 5

_WIRE_TYPES: Final = {
    **dict.fromkeys(betterproto2.WIRE_VARINT_TYPES, _VARINT),
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


def length_keys(*numbers: int) -> Mapping[int, int]:
    """Return what `scan` looks for: fields with a length, of numbers below 16."""
    return {number << 3 | LENGTH: number for number in numbers}


def number_keys(*numbers: int) -> Mapping[int, int]:
    """Return what `scan` looks for beside that: integers and booleans."""
    return {number << 3 | _VARINT: number for number in numbers}


def number_in(value: bytes) -> int:
    """Return the integer in what `scan` found under one of `number_keys`; it is not negative."""
    return _varint(value, 0)[0]


_NONE: Final[Mapping[int, int]] = {}


def scan(
    data: bytes, keys: Mapping[int, int], numbers: Mapping[int, int] = _NONE
) -> list[tuple[int, bytes]]:
    """Return number and value of each field of `keys`, which hold text, bytes or messages.

    And of `numbers`, which few messages have: their values are for `number_in`.

    For hot paths: a generated class takes 20 times as long. Other fields, which a newer version may
    have added, are skipped. Raises `MessageInvalid` as `parse` does, except for text.
    """
    found: list[tuple[int, bytes]] = []
    position, end = 0, len(data)
    while position < end:
        number = keys.get(data[position], 0)
        start = position + 2
        if number and start < end:  # nearly all there is; what follows would take twice as long
            size = data[start - 1]
            if size >= 0x80:
                size += (data[start] - 1) << 7  # a number of three bytes becomes too large here
                start += 1
            if size < 1 << 14 and start + size <= end:
                position = start + size
                found.append((number, data[start:position]))
                continue
        key, position = _varint(data, position)
        start, position = _value(data, key & 7, position)
        if position > end or key >> 3 == 0:
            raise MessageInvalid("protobuf: cut off, or not protobuf")
        if key in keys:
            found.append((keys[key], data[start:position]))
        elif key in numbers:
            found.append((numbers[key], data[start:position]))
        elif key >> 3 in keys.values() or key >> 3 in numbers.values():
            raise MessageInvalid(f"protobuf: field {key >> 3} has wire type {key & 7}")
    return found


def length_field(number: int, value: bytes) -> bytes:
    """Return the field of a text, bytes or message, also of an empty one."""
    size = len(value)
    if size < 0x80:
        return bytes((number << 3 | LENGTH, size)) + value
    return bytes((number << 3 | LENGTH,)) + _digits(size) + value


def number_field(number: int, value: int) -> bytes:
    """Return the field of an integer that is not negative; none for 0, which a reader assumes."""
    return bytes((number << 3 | _VARINT,)) + _digits(value) if value else b""


def _digits(value: int) -> bytes:
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _check(message_class: type[betterproto2.Message], data: memoryview) -> None:
    schema = _schema(message_class)
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, wire_type = key >> 3, key & 7
        start, position = _value(data, wire_type, position)
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


def _value(data: memoryview | bytes, wire_type: int, position: int) -> tuple[int, int]:
    """Return where the value of a field begins and ends, maybe beyond the end of the data."""
    match wire_type:
        case 0:
            return position, _varint(data, position)[1]
        case 1:
            return position, position + 8
        case 2:
            size, start = _varint(data, position)
            return start, start + size
        case 5:
            return position, position + 4
        case _:
            raise MessageInvalid(f"protobuf: wire type {wire_type}")


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
