"""Where on disk each entry is."""

from noti.raft.storage.extents import EXTENT_BYTES, Extents


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
