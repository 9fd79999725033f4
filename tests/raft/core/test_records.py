"""The codec of the log: what it makes it reads, and it reads nothing else."""

import contextlib
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import LocalError, MessageInvalid
from noti.raft.core import records
from noti.raft.core.messages import INDEX_MAX, Entry, EntryKind, HardState
from noti.raft.core.records import (
    ENTRY_DATA_BYTES_MAX,
    SegmentStart,
    decode_entry,
    encode_hard_state,
    encode_segment_start,
    new_entry,
    scan_records,
)
from tests import promises

numbers = st.integers(0, INDEX_MAX)
hard_states = st.builds(HardState, numbers, st.none() | st.text(min_size=1, max_size=60))


@st.composite
def runs_of_entries(draw: st.DrawFn) -> list[Entry]:
    first = draw(st.integers(1, INDEX_MAX - 10))
    parts = st.tuples(numbers, st.sampled_from(EntryKind), st.binary(max_size=100))
    return [new_entry(first + i, *part) for i, part in enumerate(draw(st.lists(parts, max_size=8)))]


@given(runs_of_entries())
def test_entries_come_back_as_they_were(entries: list[Entry]) -> None:
    assert [decode_entry(entry.record) for entry in entries] == entries


@given(numbers.filter(bool), numbers, st.sampled_from(EntryKind), st.binary(max_size=100))
def test_entry_carries_its_data_in_its_record(
    index: int, term: int, kind: EntryKind, data: bytes
) -> None:
    entry = new_entry(index, term, kind, data)
    assert (entry.index, entry.term, entry.kind) == (index, term, kind)
    assert (entry.data, entry.size_bytes) == (data, len(data))


@given(runs_of_entries(), hard_states, numbers, numbers, st.booleans())
def test_scan_finds_every_record_with_its_offset(
    entries: list[Entry], hard_state: HardState, sequence: int, base: int, fresh: bool
) -> None:
    start = SegmentStart(sequence, base, fresh, base % 2**32)
    parts = [encode_segment_start(start), encode_hard_state(hard_state)]
    parts += [entry.record for entry in entries]
    offsets = [sum(map(len, parts[:i])) for i in range(len(parts))]
    found = list(scan_records(b"".join(parts)))
    assert found == list(zip(offsets, [start, hard_state, *entries], strict=True))


@given(runs_of_entries().filter(bool), st.data())
def test_one_flipped_bit_in_entries_is_refused(entries: list[Entry], data: st.DataObject) -> None:
    damaged = flip_a_bit(entries[0].record, data)
    with pytest.raises(MessageInvalid):
        decode_entry(damaged)
    with pytest.raises(MessageInvalid):
        list(scan_records(damaged + entries[-1].record))


@given(runs_of_entries().filter(bool), st.data())
def test_cut_off_entries_are_refused(entries: list[Entry], data: st.DataObject) -> None:
    encoded = b"".join(entry.record for entry in entries)
    boundaries = {sum(len(e.record) for e in entries[:i]) for i in range(len(entries))}
    cut = data.draw(st.integers(0, len(encoded) - 1).filter(lambda n: n not in boundaries))
    with pytest.raises(MessageInvalid):
        list(scan_records(encoded[:cut]))


@given(st.binary(max_size=300))
def test_garbage_is_refused_and_never_crashes(garbage: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_entry(garbage)
    with contextlib.suppress(MessageInvalid):
        assert list(scan_records(garbage)) == []


@given(st.binary(min_size=1, max_size=60))
def test_garbage_with_a_right_checksum_is_refused_or_within_bounds(body: bytes) -> None:
    record = struct.pack("<II", len(body), zlib.crc32(body)) + body
    try:
        [(_, found)] = scan_records(record)
    except MessageInvalid:
        return
    match found:
        case Entry(index=index, term=term):
            assert 0 < index <= INDEX_MAX
            assert term <= INDEX_MAX
        case HardState(term):
            assert term <= INDEX_MAX
        case SegmentStart(sequence, base_index):
            assert max(sequence, base_index) <= INDEX_MAX


def test_other_record_is_not_an_entry() -> None:
    for other in (HardState(3, "a"), HardState(3, "n" * 40)):
        with pytest.raises(MessageInvalid):
            decode_entry(encode_hard_state(other))


def test_zero_length_is_not_a_record() -> None:
    with pytest.raises(MessageInvalid, match="invalid length 0"):
        list(scan_records(bytes(64)))


@promises.TOO_LARGE_NEVER_LOGGED
def test_largest_entry_fits_and_one_byte_more_is_refused() -> None:
    largest = new_entry(1, 1, EntryKind.COMMAND, bytes(ENTRY_DATA_BYTES_MAX))
    assert decode_entry(largest.record) == largest
    with pytest.raises(LocalError, match="more than"):
        new_entry(1, 1, EntryKind.COMMAND, bytes(ENTRY_DATA_BYTES_MAX + 1))


def sealed(fields: bytes) -> bytes:
    """Return a record whose checksum is right."""
    return struct.pack("<II", len(fields), zlib.crc32(fields)) + fields


@promises.VIOLATIONS_REJECTED
def test_record_over_the_limit_is_refused_although_its_checksum_is_right() -> None:
    fields = struct.pack("<BQQB", records.RecordType.ENTRY, 1, 1, EntryKind.COMMAND)
    largest = fields + bytes(ENTRY_DATA_BYTES_MAX)
    assert len(list(scan_records(sealed(largest)))) == 1
    with pytest.raises(MessageInvalid, match="invalid length"):
        list(scan_records(sealed(largest + b"x")))


@promises.VIOLATIONS_REJECTED
@pytest.mark.parametrize("number", [INDEX_MAX + 1, 2**64 - 1])
def test_numbers_beyond_any_log_are_refused_although_the_checksum_is_right(number: int) -> None:
    kind = records.RecordType
    wrong = [
        struct.pack("<BQQB", kind.ENTRY, number, 1, EntryKind.COMMAND),
        struct.pack("<BQQB", kind.ENTRY, 1, number, EntryKind.COMMAND),
        struct.pack("<BQB", kind.HARD_STATE, number, 0),
        struct.pack("<BHQQ?I", kind.SEGMENT_START, 2, number, 0, False, 0),
        struct.pack("<BHQQ?I", kind.SEGMENT_START, 2, 1, number, False, 0),
    ]
    for fields in wrong:
        with pytest.raises(MessageInvalid, match="beyond anything a log reaches"):
            list(scan_records(sealed(fields)))


def test_too_long_node_id_is_refused() -> None:
    with pytest.raises(LocalError, match="node id"):
        encode_hard_state(HardState(1, "x" * 256))


def test_unknown_version_of_the_log_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "FORMAT_VERSION", 9)
    newer = encode_segment_start(SegmentStart(1, 0, False))
    monkeypatch.undo()
    with pytest.raises(MessageInvalid, match="log format 9; this program reads 2"):
        list(scan_records(newer))


def test_segment_of_an_older_version_is_refused_with_its_version() -> None:
    fields = struct.pack("<BHQQ?", records.RecordType.SEGMENT_START, 1, 7, 40, True)
    with pytest.raises(MessageInvalid, match="log format 1; this program reads 2"):
        list(scan_records(sealed(fields)))


def flip_a_bit(encoded: bytes, data: st.DataObject) -> bytes:
    position = data.draw(st.integers(0, len(encoded) * 8 - 1))
    damaged = bytearray(encoded)
    damaged[position // 8] ^= 1 << position % 8
    return bytes(damaged)
