"""Knows which part of which segment to read for an entry of the log.

Nothing on disk is overwritten: an entry that replaces another, and all after it, is a later frame.
So an extent says what its first entry is and ends where the next extent begins; what a segment
holds beyond that was replaced.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace

EXTENT_BYTES = 64 * 1024
"""What is read at least, to keep one note for many small frames: some thousand for all that is on
disk."""


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
        """Note a frame with these entries; it replaces those that have its indexes, or higher
        ones."""
        follows = first_index == self._last_index + 1
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
        """Return the extent with the entry at `index`, and the index after its last entry; None
        when the entry is not on disk."""
        position = bisect_right(self._extents, index, key=_first_index) - 1
        if position < 0 or index > self._last_index:
            return None
        following = self._extents[position + 1 : position + 2]
        end = following[0].first_index if following else self._last_index + 1
        return self._extents[position], end


def _first_index(extent: Extent) -> int:
    return extent.first_index
