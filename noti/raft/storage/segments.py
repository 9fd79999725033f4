"""Lays batches of records out in a segment file, and tells a torn tail from damage.

A segment is a run of frames in a file of zeroes. One frame is one write: `magic | length | crc |
records | end mark`. The CRC starts from the segment's number and the frame's own offset, so a frame
that the disk put in a wrong place, or that survives from an older use of the blocks, is not valid
where it lies. Segments are chained: each begins with the CRC of the last frame of the one before,
so that frames which a disk lost from the end of a finished segment are missed.

Nothing on disk is overwritten: an entry that replaces another, and all after it, is a later frame.
So an extent says what its first entry is and ends where the next extent begins; what a segment
holds beyond that was replaced.

A crash can tear only the frame that was being written, which is the last one. A disk writes
512-byte sectors in any order, so what is left of a torn frame is some of its sectors (each old,
that is zero, or new), perhaps cut at a byte. So the bytes after the last valid frame are
- clean, if all are zero;
- damage, if a valid frame follows: a crash cannot tear a frame and leave a later one whole;
- damage, if they end in the end mark and no sector of them is all zero: everything was written,
  then changed;
- otherwise torn, to be zeroed: this frame was never acknowledged.
"""

import struct
import zlib
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace
from enum import Enum, auto

FRAME_MAGIC = b"nWAL"
END_MARK = b"\xc3end"
"""Last bytes of a frame: not zero, so they show that the end of a frame reached the disk."""

SECTOR_BYTES = 512
"""What a disk writes at once, at the least; larger sectors are whole numbers of these."""

_HEADER = struct.Struct("<4sII")
_PLACE = struct.Struct("<QQI")
FRAME_OVERHEAD_BYTES = _HEADER.size + len(END_MARK)

EXTENT_BYTES = 64 * 1024
"""What is read at least, to keep one note for many small frames: some thousand for all that is on
disk."""


@dataclass(slots=True)
class Segment:
    """One segment file of the log."""

    sequence: int
    size: int
    """Bytes in the file."""
    last_index: int
    """No entry in it, or before it, has a higher index."""
    name: str = field(init=False)
    """The file's."""

    def __post_init__(self) -> None:
        self.name = segment_name(self.sequence)


class TailState(Enum):
    """What follows the last valid frame of a segment."""

    CLEAN = auto()
    TORN = auto()
    DAMAGED = auto()


@dataclass(frozen=True, slots=True)
class Frame:
    """One valid frame."""

    offset: int
    """Where it begins in the file."""
    records: bytes
    checksum: int
    """Of its place and records; the next segment repeats that of the last frame."""


@dataclass(frozen=True, slots=True)
class Content:
    """What a segment file holds."""

    frames: tuple[Frame, ...]
    end: int
    """Offset after the last valid frame: where the next one goes."""
    tail: TailState
    written_end: int
    """Offset after the last byte that is not zero; `end` when the tail is clean."""


def segment_name(sequence: int) -> str:
    """Return the file name of a segment; names sort as numbers do."""
    return f"log-{sequence:020d}.wal"


def segment_sequence(name: str) -> int | None:
    """Return the number of a segment file, or None when the name is not one of a segment."""
    digits = name.removeprefix("log-").removesuffix(".wal")
    if digits.isascii() and digits.isdigit() and name == segment_name(int(digits)):
        return int(digits)
    return None


def encode_frame(sequence: int, offset: int, records: bytes) -> bytes:
    """Return the frame with `records` for exactly this offset of this segment."""
    header = _HEADER.pack(FRAME_MAGIC, len(records), _checksum(sequence, offset, records))
    return b"".join((header, records, END_MARK))


def checksum_of(frame: bytes) -> int:
    """Return the checksum in an encoded frame."""
    _, _, checksum = _HEADER.unpack_from(frame)
    return int(checksum)


def read_segment(sequence: int, data: bytes) -> Content:
    """Return the frames in the file `data` of segment number `sequence`, and how it ends."""
    frames: list[Frame] = []
    end = 0
    while (frame := _frame_at(sequence, data, end)) is not None:
        frames.append(frame)
        end += len(frame.records) + FRAME_OVERHEAD_BYTES
    written_end = max(end, len(data.rstrip(b"\0")))
    return Content(tuple(frames), end, _judge(sequence, data, end, written_end), written_end)


def read_frames(sequence: int, offset: int, data: bytes) -> tuple[Frame, ...] | None:
    """Return the frames in `data`, a part of segment number `sequence` that begins at `offset`.

    None unless it is nothing but whole and valid frames.
    """
    frames: list[Frame] = []
    at = 0
    while at < len(data):
        frame = _frame_at(sequence, data, at, offset)
        if frame is None:
            return None
        frames.append(frame)
        at += len(frame.records) + FRAME_OVERHEAD_BYTES
    return tuple(frames)


def _judge(sequence: int, data: bytes, end: int, written_end: int) -> TailState:
    if written_end == end:
        return TailState.CLEAN
    if _valid_frame_follows(sequence, data, end + 1):
        return TailState.DAMAGED
    whole = data.endswith(END_MARK, end, written_end)
    if whole and not _has_zero_sector(data, end, written_end):
        return TailState.DAMAGED
    return TailState.TORN


def _valid_frame_follows(sequence: int, data: bytes, start: int) -> bool:
    candidate = data.find(FRAME_MAGIC, start)
    while candidate >= 0:
        if _frame_at(sequence, data, candidate) is not None:
            return True
        candidate = data.find(FRAME_MAGIC, candidate + 1)
    return False


def _has_zero_sector(data: bytes, start: int, end: int) -> bool:
    """Whether a sector between `start` and `end` is all zero.

    The first and last may be parts of a sector.
    """
    while start < end:
        sector_end = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if data.count(0, start, sector_end) == sector_end - start:
            return True
        start = sector_end
    return False


def _frame_at(sequence: int, data: bytes, offset: int, data_offset: int = 0) -> Frame | None:
    """Return the frame at `offset` of `data`, which is at `data_offset` of its segment."""
    if offset + FRAME_OVERHEAD_BYTES > len(data):
        return None
    magic, length, crc = _HEADER.unpack_from(data, offset)
    start = offset + _HEADER.size
    if magic != FRAME_MAGIC or start + length + len(END_MARK) > len(data):
        return None
    records = data[start : start + length]
    # The end mark is not compared: it helps to judge an invalid frame and proves nothing about a
    # valid one.
    place = data_offset + offset
    return Frame(place, records, crc) if _checksum(sequence, place, records) == crc else None


def _checksum(sequence: int, offset: int, records: bytes) -> int:
    return zlib.crc32(records, zlib.crc32(_PLACE.pack(sequence, offset, len(records))))


@dataclass(frozen=True, slots=True)
class Extent:
    """Whole frames, one after the other, in one segment."""

    first_index: int
    """Of the entries in it; they follow each other without a gap."""
    sequence: int
    """Number of the segment."""
    offset: int
    size: int


class Extents:
    """All that are on disk, in the order of the entries."""

    def __init__(self) -> None:
        """Begin with nothing on disk."""
        self._extents: list[Extent] = []
        self._last_index = 0

    def add(self, first_index: int, last_index: int, sequence: int, offset: int, size: int) -> None:
        """Note a frame with these entries.

        It replaces those that have its indexes, or higher ones.
        """
        follows = first_index == self._last_index + 1
        if not follows:
            del self._extents[bisect_left(self._extents, first_index, key=_first_index) :]
        self._last_index = last_index
        newest = self._extents[-1] if self._extents else None
        if newest and follows and newest.sequence == sequence and newest.size < EXTENT_BYTES:
            self._extents[-1] = replace(newest, size=offset + size - newest.offset)
        else:
            self._extents.append(Extent(first_index, sequence, offset, size))

    def drop_before(self, sequence: int) -> None:
        """Forget what is in older segments than this."""
        self._extents = [e for e in self._extents if e.sequence >= sequence]

    def find(self, index: int) -> tuple[Extent, int] | None:
        """Return the extent with the entry at `index`, and the index after its last entry.

        None when the entry is not on disk.
        """
        position = bisect_right(self._extents, index, key=_first_index) - 1
        if position < 0 or index > self._last_index:
            return None
        following = self._extents[position + 1 : position + 2]
        end = following[0].first_index if following else self._last_index + 1
        return self._extents[position], end


def _first_index(extent: Extent) -> int:
    return extent.first_index
