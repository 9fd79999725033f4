"""Frames in a segment file: valid only in their place, and chained to the segment before."""

import pytest

from noti.errors import StorageCorrupt
from noti.raft.core.messages import Entry, EntryKind, HardState
from noti.raft.core.records import SegmentStart, encode_hard_state, encode_segment_start, new_entry
from noti.raft.storage.recovery import Replay
from noti.raft.storage.segments import (
    EXTENT_BYTES,
    Extents,
    TailState,
    checksum_of,
    encode_frame,
    read_segment,
)


def entry(index: int) -> Entry:
    return new_entry(index, 1, EntryKind.COMMAND, b"command")


def segment(sequence: int, *batches: bytes, base: int = 0, previous: int = 0) -> bytes:
    """Return a segment file with a frame for its start, and one for each batch of records."""
    start = encode_segment_start(SegmentStart(sequence, base, False, previous))
    data = encode_frame(sequence, 0, start + encode_hard_state(HardState(1)))
    for records in batches:
        data += encode_frame(sequence, len(data), records)
    return data


def last_checksum(data: bytes, sequence: int) -> int:
    return read_segment(sequence, data).frames[-1].checksum


def test_frame_of_another_segment_is_not_taken_although_its_place_in_the_file_is_right() -> None:
    """A disk that wrote it to the wrong file."""
    ours = segment(1)
    theirs = encode_frame(2, len(ours), entry(1).record)
    content = read_segment(1, ours + theirs + bytes(100))
    assert (len(content.frames), content.tail) == (1, TailState.DAMAGED)


def test_frame_elsewhere_in_its_segment_is_not_taken() -> None:
    ours = segment(1)
    elsewhere = encode_frame(1, len(ours) + 8, entry(1).record)
    content = read_segment(1, ours + elsewhere + bytes(100))
    assert (len(content.frames), content.tail) == (1, TailState.DAMAGED)


def test_checksum_of_a_frame_is_the_one_that_is_read_back() -> None:
    frame = encode_frame(1, 0, entry(1).record)
    assert read_segment(1, frame).frames[0].checksum == checksum_of(frame)


def test_entries_with_a_gap_are_damage_although_all_checksums_are_right() -> None:
    replay = Replay()
    gap = segment(1, entry(1).record, entry(3).record)
    with pytest.raises(StorageCorrupt, match="entry 3 follows entry 1"):
        replay.feed_segment(1, gap, last=True)


def test_segment_that_begins_after_a_gap_is_damage() -> None:
    replay = Replay()
    first = segment(1, entry(1).record)
    replay.feed_segment(1, first, last=False)
    previous = last_checksum(first, 1)
    with pytest.raises(StorageCorrupt, match="after entry 2, but the log before it ends at 1"):
        replay.feed_segment(2, segment(2, base=2, previous=previous), last=True)


@pytest.mark.parametrize("wrong", [0, 7])
def test_segment_that_follows_another_end_is_damage(wrong: int) -> None:
    replay = Replay()
    replay.feed_segment(1, segment(1, entry(1).record), last=False)
    with pytest.raises(StorageCorrupt, match="continues another end of log-0"):
        replay.feed_segment(2, segment(2, base=1, previous=wrong), last=True)


def test_chain_goes_on_from_a_segment_whose_torn_tail_was_repaired() -> None:
    first = segment(1, entry(1).record)
    torn = first + encode_frame(1, len(first), entry(2).record)[:30] + bytes(600)
    replay = Replay()
    assert replay.feed_segment(1, torn, last=True) is not None
    assert replay.last_checksum == last_checksum(first, 1)


def test_segment_that_claims_to_be_another_is_damage() -> None:
    start = encode_segment_start(SegmentStart(2, 0, False))
    with pytest.raises(StorageCorrupt, match="the file holds segment 2"):
        Replay().feed_segment(1, encode_frame(1, 0, start), last=True)


def test_frames_that_follow_each_other_are_one_extent_until_it_is_large() -> None:
    extents = Extents()
    extents.add(1, 3, 1, 0, 1000)
    extents.add(4, 4, 1, 1000, 500)
    found = extents.find(3)
    assert found is not None
    assert (found[0].offset, found[0].size, found[1]) == (0, 1500, 5)
    extents.add(5, 5, 1, 1500, EXTENT_BYTES)
    extents.add(6, 6, 1, 1500 + EXTENT_BYTES, 10)
    found = extents.find(6)
    assert found is not None
    assert (found[0].offset, found[0].size, found[1]) == (1500 + EXTENT_BYTES, 10, 7)


def test_a_frame_without_entries_in_between_is_read_with_the_others() -> None:
    extents = Extents()
    extents.add(1, 1, 1, 0, 100)
    extents.add(2, 2, 1, 150, 100)
    found = extents.find(2)
    assert found is not None
    assert (found[0].offset, found[0].size) == (0, 250)


def test_a_segment_begins_an_extent() -> None:
    extents = Extents()
    extents.add(1, 1, 1, 0, 100)
    extents.add(2, 2, 2, 0, 100)
    first, second = extents.find(1), extents.find(2)
    assert first is not None
    assert second is not None
    assert (first[0].sequence, second[0].sequence) == (1, 2)


def test_replaced_entries_are_found_where_they_were_written_last() -> None:
    extents = Extents()
    extents.add(1, 9, 1, 0, 100)
    extents.add(5, 6, 1, 100, 100)
    older, newer = extents.find(4), extents.find(5)
    assert older is not None
    assert newer is not None
    assert (older[0].offset, older[1]) == (0, 5)
    assert (newer[0].offset, newer[1]) == (100, 7)
    assert extents.find(7) is None
    extents.add(1, 1, 1, 200, 100)
    first = extents.find(1)
    assert first is not None
    assert (first[0].offset, first[1]) == (200, 2)
    assert extents.find(2) is None


def test_what_went_with_its_segment_is_not_found() -> None:
    extents = Extents()
    assert extents.find(1) is None
    extents.add(1, 1, 1, 0, 100)
    extents.add(2, 2, 2, 0, 100)
    extents.drop_before(2)
    assert extents.find(1) is None
    assert extents.find(2) is not None
