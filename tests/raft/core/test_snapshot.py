"""Snapshots in pieces."""

import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.raft.core.events import RestoreSnapshot
from noti.raft.core.messages import Snapshot, SnapshotChunk
from noti.raft.core.snapshot import SNAPSHOT_BYTES_MAX, SnapshotAssembly, cut_snapshot
from tests import promises

SNAPSHOT = Snapshot(7, 3, b"configuration", b"0123456789")


def pieces(snapshot: Snapshot = SNAPSHOT, chunk_bytes: int = 4) -> list[SnapshotChunk]:
    return list(cut_snapshot(snapshot, sender="n1", term=5, chunk_bytes=chunk_bytes))


def join(chunks: list[SnapshotChunk]) -> list[Snapshot]:
    assembly = SnapshotAssembly(bytes)
    return [whole for chunk in chunks if (whole := take(assembly, chunk)) is not None]


def take(assembly: SnapshotAssembly, chunk: SnapshotChunk) -> Snapshot | None:
    """Do as the core does; return the snapshot that the piece made whole."""
    assert assembly.find_invalid(chunk) is None
    whole = assembly.add(chunk)
    assert whole is None or whole.state == whole.snapshot.data, "decoded by `bytes`"
    return None if whole is None else whole.snapshot


@given(st.binary(max_size=64), st.integers(1, 80))
def test_pieces_join_to_what_was_cut(data: bytes, chunk_bytes: int) -> None:
    snapshot = Snapshot(7, 3, b"configuration", data)
    chunks = pieces(snapshot, chunk_bytes)
    assert all(len(chunk.data) <= chunk_bytes for chunk in chunks)
    assert join(chunks) == [snapshot]


def test_empty_snapshot_is_one_piece() -> None:
    assert len(pieces(replace(SNAPSHOT, data=b""))) == 1


@pytest.mark.parametrize("missing", [0, 1])
def test_missing_piece_drops_the_whole(missing: int) -> None:
    chunks = pieces()
    del chunks[missing]
    assert join(chunks) == []


def test_repeated_piece_drops_the_whole_and_a_new_start_recovers() -> None:
    one, two, three = pieces()
    assert join([one, two, two, three]) == []
    assert join([one, two, two, one, two, three]) == [SNAPSHOT]


def test_two_snapshots_in_a_row_are_two_snapshots() -> None:
    newer = replace(SNAPSHOT, index=9, data=b"abcdefgh")
    assert join([*pieces(), *pieces(newer)]) == [SNAPSHOT, newer]


@promises.LOG_COMPACTED
@pytest.mark.parametrize(
    "change", [{"sender": "n2"}, {"index": 8}, {"snapshot_term": 4}, {"total": 11}]
)
def test_pieces_of_different_snapshots_never_mix(change: dict[str, object]) -> None:
    one, two, three = pieces()
    assert join([one, replace(two, **change), three]) == []  # type: ignore[arg-type]


def test_more_bytes_than_announced_are_refused() -> None:
    one, two, three = pieces()
    assert join([one, two, replace(three, data=b"89too much")]) == []


def test_announced_size_beyond_all_reason_is_refused() -> None:
    first = replace(pieces()[0], total=SNAPSHOT_BYTES_MAX + 1)
    assembly = SnapshotAssembly(bytes)
    assert take(assembly, first) is None
    assert take(assembly, replace(first, offset=4)) is None


def test_cleared_assembly_starts_anew() -> None:
    assembly = SnapshotAssembly(bytes)
    one, two, three = pieces()
    take(assembly, one)
    take(assembly, two)
    assembly.clear()
    assert take(assembly, three) is None


@pytest.mark.parametrize("chunk_bytes", [1, 4, 100])
def test_state_that_does_not_decode_is_invalid_with_the_piece_that_makes_it_whole(
    chunk_bytes: int,
) -> None:
    decoded: list[bytes] = []

    def decode(state: bytes) -> object:
        decoded.append(state)
        raise MessageInvalid("nonsense")

    assembly = SnapshotAssembly(decode)
    *first, last = pieces(chunk_bytes=chunk_bytes)
    for chunk in first:
        assert take(assembly, chunk) is None
    assert assembly.find_invalid(last) == "a snapshot at 7 that does not decode: nonsense"
    assert decoded == [SNAPSHOT.data]


def test_snapshot_is_decoded_once_however_many_pieces_it_comes_in() -> None:
    decoded: list[bytes] = []

    def decode(state: bytes) -> object:
        decoded.append(state)
        return "the state"

    assembly = SnapshotAssembly(decode)
    wholes = []
    for chunk in pieces():
        assert assembly.find_invalid(chunk) is None
        wholes.append(assembly.add(chunk))
    assert wholes == [None, None, RestoreSnapshot(SNAPSHOT, "the state")]
    assert decoded == [SNAPSHOT.data]


def test_snapshot_in_one_piece_is_whole_although_a_new_term_cleared_the_pieces() -> None:
    assembly = SnapshotAssembly(bytes)
    [one] = pieces(chunk_bytes=100)
    assert assembly.find_invalid(one) is None
    assembly.clear()
    assert assembly.add(one) == RestoreSnapshot(SNAPSHOT, SNAPSHOT.data)


def test_nothing_is_decoded_for_a_piece_that_makes_nothing_whole() -> None:
    def decode(_: bytes) -> object:
        raise MessageInvalid("nonsense")

    assembly = SnapshotAssembly(decode)
    first, second, last = pieces()
    assert assembly.find_invalid(last) is None, "of a snapshot whose begin is not here"
    assembly.add(first)
    assert assembly.find_invalid(last) is None, "one is missing"
    assert assembly.find_invalid(second) is None


def test_piece_is_looked_at_without_a_copy_of_those_before() -> None:
    """Otherwise a snapshot of many pieces takes time by the square of its size."""
    piece_bytes, count = 64 * 1024, 32
    snapshot = Snapshot(7, 3, b"configuration", bytes(piece_bytes * count))
    chunks = pieces(snapshot, piece_bytes)
    assembly = SnapshotAssembly(bytes)
    tracemalloc.start()
    try:
        for chunk in chunks[:-1]:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            assert take(assembly, chunk) is None
            assert tracemalloc.get_traced_memory()[1] - before < piece_bytes // 2
    finally:
        tracemalloc.stop()
    assert take(assembly, chunks[-1]) == snapshot
