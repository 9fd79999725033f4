"""Turns entries and hard state into bytes and back.

Enters: what a log is to hold; bytes from disk or from a peer. Leaves: bytes; checked values.
Never: I/O, clocks, files; trust in a length or a number that was read; an entry encoded twice.

A record is `length | crc | type | fields`, little-endian. `length` counts what follows the CRC, and
the CRC-32 covers the same bytes. No record is empty, so a zero length in a pre-zeroed file means
that nothing was written there. The bytes of an entry are made once, by the leader: its log, the
wire and every follower's log hold the same ones.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from noti.errors import LocalError, MessageInvalid
from noti.raft.core.messages import (
    ENTRY_HEAD_BYTES,
    INDEX_MAX,
    Entry,
    EntryKind,
    HardState,
)

FORMAT_VERSION = 2
"""Version of the log's layout, in the first record of each segment; a reader takes no other."""

RECORD_BYTES_MAX = 8 * 1024 * 1024
"""Largest record, header included. A command is a batch of small notifications, far below this; a
reader that sees more has read damage, and this bounds what it will allocate for it."""

NODE_ID_BYTES_MAX = 255
"""Node ids are short random text; a length that fits one byte cannot be inflated by damage."""

_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<IIBQQB")
"""All that comes before the data, header and fields."""
_ENTRY_FIELDS = struct.Struct("<BQQB")
_HARD_STATE = struct.Struct("<BQB")
_SEGMENT_START = struct.Struct("<BHQQ?I")


class RecordType(IntEnum):
    """The first byte of a record's body."""

    ENTRY = 1
    HARD_STATE = 2
    SEGMENT_START = 3


assert _ENTRY.size == ENTRY_HEAD_BYTES
ENTRY_DATA_BYTES_MAX = RECORD_BYTES_MAX - ENTRY_HEAD_BYTES
"""Largest `Entry.data` that fits a record."""

_ENTRY_KINDS = {(RecordType.ENTRY.value, kind.value): kind for kind in EntryKind}
"""What an entry's record begins with -> its kind."""


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The first record of a segment file: where the segment belongs."""

    sequence: int
    """The number in the file's name: 1, 2, 3, … without gaps."""
    base_index: int
    """Index of the last entry of the log before this segment."""
    fresh: bool
    """The log begins anew after `base_index`, with a snapshot: older segments no longer count."""
    previous_checksum: int = 0
    """Checksum of the last frame of the segment before; 0 when there is none, or it no longer
    counts."""


Record: TypeAlias = Entry | HardState | SegmentStart


def new_entry(index: int, term: int, kind: EntryKind, data: bytes) -> Entry:
    """Return an entry with its record: the only place where one is encoded.

    Raises `LocalError` when the data does not fit a record.
    """
    if len(data) > ENTRY_DATA_BYTES_MAX:
        raise LocalError(
            f"entry {index} has {len(data)} bytes of data, "
            f"more than the {ENTRY_DATA_BYTES_MAX} that fit a log record"
        )
    fields = _ENTRY_FIELDS.pack(RecordType.ENTRY, index, term, kind)
    header = _HEADER.pack(len(fields) + len(data), zlib.crc32(data, zlib.crc32(fields)))
    return Entry(index, term, kind, b"".join((header, fields, data)), len(data))


def encode_hard_state(hard_state: HardState) -> bytes:
    """Return the record of a term and vote; raises `LocalError` when the node id is too long."""
    voted_for = (hard_state.voted_for or "").encode()
    if len(voted_for) > NODE_ID_BYTES_MAX:
        raise LocalError(f"a node id has at most {NODE_ID_BYTES_MAX} bytes, not {len(voted_for)}")
    fields = _HARD_STATE.pack(RecordType.HARD_STATE, hard_state.term, len(voted_for))
    return _encode_record(fields + voted_for)


def encode_segment_start(start: SegmentStart) -> bytes:
    """Return the record that opens a segment file."""
    fields = start.sequence, start.base_index, start.fresh, start.previous_checksum
    return _encode_record(_SEGMENT_START.pack(RecordType.SEGMENT_START, FORMAT_VERSION, *fields))


def decode_entry(record: bytes) -> Entry:
    """Return the entry with this record.

    Raises `MessageInvalid` when anything about it is wrong.
    """
    if not ENTRY_HEAD_BYTES <= len(record) <= RECORD_BYTES_MAX:
        raise MessageInvalid(f"the record of an entry has {len(record)} bytes")
    length, crc, record_type, index, term, kind = _ENTRY.unpack_from(record)
    if length != len(record) - _HEADER.size:
        raise MessageInvalid("the record does not have the length that it states")
    if zlib.crc32(memoryview(record)[_HEADER.size :]) != crc:
        raise MessageInvalid("the record fails its checksum")
    known = _ENTRY_KINDS.get((record_type, kind))
    if known is None:
        raise MessageInvalid(f"a record of type {record_type}, kind {kind}, is no entry")
    if not 0 < index <= INDEX_MAX or term > INDEX_MAX:
        raise MessageInvalid(f"index {index}, term {term} is beyond anything a log reaches")
    return Entry(index, term, known, record, len(record) - ENTRY_HEAD_BYTES)


def scan_records(data: bytes) -> Iterator[tuple[int, Record]]:
    """Yield every record in `data` with its offset.

    Raises `MessageInvalid` where one is not whole and right.
    """
    offset = 0
    while offset < len(data):
        if offset + _HEADER.size > len(data):
            raise MessageInvalid(f"a record header at byte {offset} is cut off")
        length, _ = _HEADER.unpack_from(data, offset)
        end = offset + _HEADER.size + length
        if not 0 < length <= RECORD_BYTES_MAX - _HEADER.size or end > len(data):
            raise MessageInvalid(f"the record at byte {offset} has an invalid length {length}")
        try:
            record = _decode_record(data[offset:end])
        except (struct.error, UnicodeDecodeError, MessageInvalid) as error:
            raise MessageInvalid(f"the record at byte {offset}: {error}") from None
        yield offset, record
        offset = end


def _encode_record(body: bytes) -> bytes:
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def _decode_record(record: bytes) -> Record:
    """Decode a record that has the length that it states."""
    if record[_HEADER.size] == RecordType.ENTRY:
        return decode_entry(record)
    _, crc = _HEADER.unpack_from(record)
    body = record[_HEADER.size :]
    if zlib.crc32(body) != crc:
        raise MessageInvalid("it fails its checksum")
    match body[0]:
        case RecordType.HARD_STATE:
            return _decode_hard_state(body)
        case RecordType.SEGMENT_START:
            return _decode_segment_start(body)
        case unknown:
            raise MessageInvalid(f"unknown record type {unknown}")


def _decode_hard_state(body: bytes) -> HardState:
    _, term, size = _HARD_STATE.unpack_from(body)
    voted_for = body[_HARD_STATE.size :]
    if len(voted_for) != size:
        raise MessageInvalid("a node id does not have the size that it states")
    return HardState(_bounded(term, "term"), voted_for.decode() or None)


def _decode_segment_start(body: bytes) -> SegmentStart:
    version = int.from_bytes(body[1:3], "little")
    if version != FORMAT_VERSION:
        raise MessageInvalid(f"log format {version}; this program reads {FORMAT_VERSION}")
    _, _, sequence, base_index, fresh, previous = _SEGMENT_START.unpack(body)
    return SegmentStart(
        _bounded(sequence, "sequence"), _bounded(base_index, "base index"), fresh, previous
    )


def _bounded(value: int, what: str) -> int:
    if value > INDEX_MAX:
        raise MessageInvalid(f"{what} {value} is beyond anything a log reaches")
    return value
