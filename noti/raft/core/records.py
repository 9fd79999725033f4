"""Turns entries, hard state and snapshots into bytes and back.

Enters: values of `messages.py`; bytes from disk or from a peer. Leaves: bytes; checked values.
Never: I/O, clocks, files; trust in a length or a number that was read.

A record is `length | crc | type | fields`, little-endian. `length` counts what follows the CRC, and
the CRC-32 covers the same bytes. No record is empty, so a zero length in a pre-zeroed file means
that nothing was written there. The bytes of an entry are made once, by the leader: its log, the
wire and every follower's log hold the same ones.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from noti.errors import LocalError, MessageInvalid
from noti.raft.core.messages import INDEX_MAX, Entry, EntryKind, HardState, Snapshot

FORMAT_VERSION = 2
"""Version of the log's layout. A reader takes older ones too, and refuses newer ones."""

SNAPSHOT_VERSION = 1
"""Version of a snapshot file's layout; a reader refuses any other."""

RECORD_BYTES_MAX = 8 * 1024 * 1024
"""Largest record, header included. A command is a batch of small notifications, far below this; a
reader that sees more has read garbage, and this bounds what it will allocate for it."""

ENTRIES_BYTES_MAX = 64 * 1024 * 1024
"""Largest run of entries accepted from a peer: several of the largest records, and still no danger
to memory."""

NODE_ID_BYTES_MAX = 255
"""Node ids are short random text; a length that fits one byte cannot be inflated by damage."""

_HEADER = struct.Struct("<II")
_ENTRY = struct.Struct("<BQQB")
_HARD_STATE = struct.Struct("<BQB")
_SEGMENT_START = struct.Struct("<BHQQ?I")
_SEGMENT_START_1 = struct.Struct("<BHQQ?")
"""Before segments were chained."""
_SNAPSHOT = struct.Struct("<4sIHQQIQ")
_SNAPSHOT_MAGIC = b"nSNP"
_SNAPSHOT_CHECKED_FROM = 8
"""The snapshot's CRC covers everything after the magic and the CRC itself."""


class RecordType(IntEnum):
    """The first byte of a record's body."""

    ENTRY = 1
    HARD_STATE = 2
    SEGMENT_START = 3


ENTRY_DATA_BYTES_MAX = RECORD_BYTES_MAX - _HEADER.size - _ENTRY.size
"""Largest `Entry.data` that fits a record."""


@dataclass(frozen=True, slots=True)
class SegmentStart:
    """The first record of a segment file: where the segment belongs."""

    sequence: int
    """The number in the file's name: 1, 2, 3, … without gaps."""
    base_index: int
    """Index of the last entry of the log before this segment."""
    fresh: bool
    """The log begins anew after `base_index`, with a snapshot: older segments no longer count."""
    previous_checksum: int | None = 0
    """Checksum of the last frame of the segment before; 0 when there is none, or it no longer
    counts. None in segments of version 1, which do not tell."""


Record: TypeAlias = Entry | HardState | SegmentStart


def encode_entry(entry: Entry) -> bytes:
    """Return the record of one entry; raises `LocalError` when its data does not fit a record."""
    if len(entry.data) > ENTRY_DATA_BYTES_MAX:
        raise LocalError(
            f"entry {entry.index} has {len(entry.data)} bytes of data, "
            f"more than the {ENTRY_DATA_BYTES_MAX} that fit a log record"
        )
    fields = _ENTRY.pack(RecordType.ENTRY, entry.index, entry.term, entry.kind)
    header = _HEADER.pack(len(fields) + len(entry.data), zlib.crc32(entry.data, zlib.crc32(fields)))
    return b"".join((header, fields, entry.data))


def encode_entries(entries: Sequence[Entry]) -> bytes:
    """Return the records of entries, one after the other; raises as `encode_entry`."""
    return b"".join(map(encode_entry, entries))


def encode_hard_state(hard_state: HardState) -> bytes:
    """Return the record of a term and vote; raises `LocalError` when the node id is too long."""
    voted_for = (hard_state.voted_for or "").encode()
    if len(voted_for) > NODE_ID_BYTES_MAX:
        raise LocalError(f"a node id has at most {NODE_ID_BYTES_MAX} bytes, not {len(voted_for)}")
    fields = _HARD_STATE.pack(RecordType.HARD_STATE, hard_state.term, len(voted_for))
    return _encode_record(fields + voted_for)


def encode_segment_start(start: SegmentStart) -> bytes:
    """Return the record that opens a segment file."""
    fields = start.sequence, start.base_index, start.fresh, start.previous_checksum or 0
    return _encode_record(_SEGMENT_START.pack(RecordType.SEGMENT_START, FORMAT_VERSION, *fields))


def decode_entries(data: bytes) -> tuple[Entry, ...]:
    """Return the entries in `data`, as `encode_entries` made them, with consecutive indexes.

    Raises `MessageInvalid` when they are not exactly that, or more than `ENTRIES_BYTES_MAX`.
    """
    if len(data) > ENTRIES_BYTES_MAX:
        raise MessageInvalid(f"{len(data)} bytes of entries, at most {ENTRIES_BYTES_MAX} allowed")
    entries: list[Entry] = []
    for offset, record in scan_records(data):
        if not isinstance(record, Entry):
            raise MessageInvalid(f"the record at byte {offset} is not an entry")
        if entries and record.index != entries[-1].index + 1:
            raise MessageInvalid(f"entry {record.index} follows entry {entries[-1].index}")
        entries.append(record)
    return tuple(entries)


def scan_records(data: bytes) -> Iterator[tuple[int, Record]]:
    """Yield every record in `data` with its offset; raises `MessageInvalid` where one is not whole
    and right."""
    offset = 0
    while offset < len(data):
        if offset + _HEADER.size > len(data):
            raise MessageInvalid(f"a record header at byte {offset} is cut off")
        length, crc = _HEADER.unpack_from(data, offset)
        start = offset + _HEADER.size
        end = start + length
        if not 0 < length <= RECORD_BYTES_MAX - _HEADER.size or end > len(data):
            raise MessageInvalid(f"the record at byte {offset} has an impossible length {length}")
        if zlib.crc32(memoryview(data)[start:end]) != crc:
            raise MessageInvalid(f"the record at byte {offset} fails its checksum")
        yield offset, _decode_record(data, start, end)
        offset = end


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """Return the content of a snapshot file."""
    fields = _SNAPSHOT.pack(
        _SNAPSHOT_MAGIC,
        0,
        SNAPSHOT_VERSION,
        snapshot.index,
        snapshot.term,
        len(snapshot.configuration),
        len(snapshot.data),
    )[_SNAPSHOT_CHECKED_FROM:]
    crc = zlib.crc32(snapshot.data, zlib.crc32(snapshot.configuration, zlib.crc32(fields)))
    start = _SNAPSHOT_MAGIC + crc.to_bytes(4, "little")
    return b"".join((start, fields, snapshot.configuration, snapshot.data))


def decode_snapshot(content: bytes) -> Snapshot:
    """Return the snapshot in a file's content; raises `MessageInvalid` when anything about it is
    wrong."""
    if len(content) < _SNAPSHOT.size:
        raise MessageInvalid("the snapshot is cut off")
    magic, crc, version, index, term, configuration_size, data_size = _SNAPSHOT.unpack_from(content)
    if magic != _SNAPSHOT_MAGIC:
        raise MessageInvalid("this is not a snapshot")
    if zlib.crc32(memoryview(content)[_SNAPSHOT_CHECKED_FROM:]) != crc:
        raise MessageInvalid("the snapshot fails its checksum")
    if version != SNAPSHOT_VERSION:
        raise MessageInvalid(f"snapshot format {version}; this program reads {SNAPSHOT_VERSION}")
    if len(content) != _SNAPSHOT.size + configuration_size + data_size:
        raise MessageInvalid("the snapshot does not have the size that it says")
    data_from = _SNAPSHOT.size + configuration_size
    return Snapshot(
        index=_bounded(index, "index"),
        term=_bounded(term, "term"),
        configuration=content[_SNAPSHOT.size : data_from],
        data=content[data_from:],
    )


def _encode_record(body: bytes) -> bytes:
    return _HEADER.pack(len(body), zlib.crc32(body)) + body


def _decode_record(data: bytes, start: int, end: int) -> Record:
    """Decode the body of a record whose checksum was right."""
    try:
        match data[start]:
            case RecordType.ENTRY:
                return _decode_entry(data, start, end)
            case RecordType.HARD_STATE:
                return _decode_hard_state(data, start, end)
            case RecordType.SEGMENT_START:
                return _decode_segment_start(data[start:end])
            case unknown:
                raise MessageInvalid(f"unknown record type {unknown}")
    except (struct.error, ValueError) as error:
        raise MessageInvalid(f"the record at byte {start} does not decode: {error}") from None


def _decode_entry(data: bytes, start: int, end: int) -> Entry:
    if end - start < _ENTRY.size:
        raise MessageInvalid("an entry is cut off")
    _, index, term, kind = _ENTRY.unpack_from(data, start)
    if index == 0:
        raise MessageInvalid("an entry has index 0")
    return Entry(
        index=_bounded(index, "index"),
        term=_bounded(term, "term"),
        kind=EntryKind(kind),
        data=bytes(data[start + _ENTRY.size : end]),
    )


def _decode_hard_state(data: bytes, start: int, end: int) -> HardState:
    if end - start < _HARD_STATE.size:
        raise MessageInvalid("a hard state is cut off")
    _, term, size = _HARD_STATE.unpack_from(data, start)
    voted_for = data[start + _HARD_STATE.size : end]
    if len(voted_for) != size:
        raise MessageInvalid("a node id does not have the size that it says")
    return HardState(_bounded(term, "term"), voted_for.decode() or None)


def _decode_segment_start(fields: bytes) -> SegmentStart:
    previous: int | None = None
    version = int.from_bytes(fields[1:3], "little")
    if version == 1:
        _, _, sequence, base_index, fresh = _SEGMENT_START_1.unpack(fields)
    elif version == FORMAT_VERSION:
        _, _, sequence, base_index, fresh, previous = _SEGMENT_START.unpack(fields)
    else:
        raise MessageInvalid(f"log format {version}; this program reads 1 to {FORMAT_VERSION}")
    return SegmentStart(
        _bounded(sequence, "sequence"), _bounded(base_index, "base index"), bool(fresh), previous
    )


def _bounded(value: int, what: str) -> int:
    if value > INDEX_MAX:
        raise MessageInvalid(f"{what} {value} is beyond anything a log reaches")
    return value
