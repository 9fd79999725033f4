"""A snapshot's file."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.raft.core.messages import INDEX_MAX, Snapshot
from noti.raft.storage import snapshot_file
from noti.raft.storage.snapshot_file import decode_snapshot, encode_snapshot

numbers = st.integers(0, INDEX_MAX)
pieces = st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6).map(tuple)
snapshots = st.builds(Snapshot, numbers, numbers, st.binary(max_size=50), pieces | st.just((b"",)))


def content_of(snapshot: Snapshot) -> bytes:
    return b"".join(encode_snapshot(snapshot))


def version_1(index: int, term: int, configuration: bytes, data: bytes) -> bytes:
    """Return the file as releases before 0.3 wrote it."""
    fields = struct.pack("<HQQIQ", 1, index, term, len(configuration), len(data))
    checked = fields + configuration + data
    return b"nSNP" + zlib.crc32(checked).to_bytes(4, "little") + checked


@given(snapshots)
def test_snapshot_comes_back_as_it_was(snapshot: Snapshot) -> None:
    assert decode_snapshot(content_of(snapshot)) == snapshot


@given(snapshots)
def test_file_of_an_older_release_is_read(snapshot: Snapshot) -> None:
    data = b"".join(snapshot.pieces)
    content = version_1(snapshot.index, snapshot.term, snapshot.configuration, data)
    found = decode_snapshot(content)
    assert b"".join(found.pieces) == data
    assert (found.index, found.term) == (snapshot.index, snapshot.term)
    assert found.configuration == snapshot.configuration


def test_large_state_of_an_older_release_comes_in_pieces_that_can_be_sent() -> None:
    found = decode_snapshot(version_1(1, 1, b"c", bytes(1_000_000)))
    assert len(found.pieces) == 4


@given(snapshots, st.data())
def test_one_flipped_bit_is_refused(snapshot: Snapshot, data: st.DataObject) -> None:
    old = version_1(snapshot.index, snapshot.term, b"c", b"".join(snapshot.pieces))
    for content in (content_of(snapshot), old):
        position = data.draw(st.integers(0, len(content) * 8 - 1))
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(MessageInvalid):
            decode_snapshot(bytes(damaged))


@given(snapshots, st.data())
def test_cut_off_or_longer_file_is_refused(snapshot: Snapshot, data: st.DataObject) -> None:
    old = version_1(snapshot.index, snapshot.term, b"c", b"".join(snapshot.pieces))
    for content in (content_of(snapshot), old):
        for other in (content[: data.draw(st.integers(0, len(content) - 1))], content + b"x"):
            with pytest.raises(MessageInvalid):
                decode_snapshot(other)


def test_missing_piece_and_piece_of_another_snapshot_are_refused() -> None:
    parts = list(encode_snapshot(Snapshot(7, 3, b"c", (b"one", b"two", b"three"))))
    others = list(encode_snapshot(Snapshot(8, 3, b"c", (b"one", b"two", b"three"))))
    for wrong in (parts[:2] + parts[3:], parts[:1] + parts[2:], parts[:2] + others[2:]):
        with pytest.raises(MessageInvalid, match="fails its checksum"):
            decode_snapshot(b"".join(wrong))


@given(st.binary(max_size=300))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_snapshot(garbage)
    with pytest.raises(MessageInvalid):
        decode_snapshot(b"nSNP" + garbage)


@pytest.mark.parametrize("number", [INDEX_MAX + 1, 2**64 - 1])
def test_number_beyond_anything_is_refused(number: int) -> None:
    for place in ((number, 1), (1, number)):
        with pytest.raises(MessageInvalid, match="beyond anything a log reaches"):
            decode_snapshot(content_of(Snapshot(*place, b"", (b"",))))


def test_unknown_version_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_file, "SNAPSHOT_VERSION", 9)
    newer = content_of(Snapshot(1, 1, b"", (b"",)))
    monkeypatch.undo()
    with pytest.raises(MessageInvalid, match="snapshot format 9; this program reads 1 and 2"):
        decode_snapshot(newer)
