"""Packs and unpacks what nodes forward to their leader.

Enters: forwarded requests and answers; bytes. Leaves: bytes; requests and answers, fully checked.
Never: the meaning of a command.
"""

from typing import Any

import msgpack

from noti.errors import MessageInvalid
from noti.raft.core.messages import INDEX_MAX, ForwardOutcome

NUMBERS_MAX = 65_536
"""Requests in one message; senders stay far below."""


def pack(value: object) -> bytes:
    """Return tuples and lists of numbers and bytes as msgpack."""
    packed: bytes = msgpack.packb(value)
    return packed


def unpack_proposals(data: bytes) -> tuple[tuple[int, bytes], ...]:
    """Return (number, command) pairs; raises `MessageInvalid`."""
    pairs = _unpack(data)
    if not all(
        isinstance(pair, list)
        and len(pair) == 2
        and _is_number(pair[0])
        and isinstance(pair[1], bytes)
        for pair in pairs
    ):
        raise MessageInvalid("forwarded proposals are not pairs of number and command")
    return tuple((number, command) for number, command in pairs)


def unpack_reads(data: bytes) -> tuple[int, ...]:
    """Return numbers; raises `MessageInvalid`."""
    numbers = _unpack(data)
    if not all(_is_number(number) for number in numbers):
        raise MessageInvalid("forwarded reads are not numbers")
    return tuple(numbers)


def unpack_outcomes(data: bytes) -> tuple[tuple[int, ForwardOutcome, int], ...]:
    """Return (number, outcome, index) triples; raises `MessageInvalid`."""
    triples = _unpack(data)
    if not all(
        isinstance(triple, list) and len(triple) == 3 and all(map(_is_number, triple))
        for triple in triples
    ):
        raise MessageInvalid("forwarded outcomes are not triples of numbers")
    try:
        return tuple((number, ForwardOutcome(outcome), index) for number, outcome, index in triples)
    except ValueError:
        raise MessageInvalid("an outcome that this version does not know") from None


def _unpack(data: bytes) -> list[Any]:
    if not data:
        return []
    try:
        value = msgpack.unpackb(data, max_array_len=NUMBERS_MAX)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageInvalid(f"a forwarded batch does not decode: {error}") from None
    if not isinstance(value, list):
        raise MessageInvalid("a forwarded batch is not a list")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INDEX_MAX
