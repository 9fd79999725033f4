"""Snapshots in pieces."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.raft.core.messages import Snapshot, SnapshotChunk
from noti.raft.core.snapshot import SNAPSHOT_BYTES_MAX, SnapshotAssembly, cut_snapshot
from tests import promises

SNAPSHOT = Snapshot(7, 3, b"configuration", b"0123456789")


def pieces(snapshot: Snapshot = SNAPSHOT, chunk_bytes: int = 4) -> list[SnapshotChunk]:
    return list(cut_snapshot(snapshot, sender="n1", term=5, chunk_bytes=chunk_bytes))


def join(chunks: list[SnapshotChunk]) -> list[Snapshot]:
    assembly = SnapshotAssembly(lambda _: None)
    return [whole for chunk in chunks if (whole := assembly.add(chunk)) is not None]


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
    assembly = SnapshotAssembly(lambda _: None)
    assert assembly.add(first) is None
    assert assembly.add(replace(first, offset=4)) is None


def test_cleared_assembly_starts_anew() -> None:
    assembly = SnapshotAssembly(lambda _: None)
    one, two, three = pieces()
    assembly.add(one)
    assembly.add(two)
    assembly.clear()
    assert assembly.add(three) is None


@pytest.mark.parametrize("chunk_bytes", [1, 4, 100])
def test_state_that_does_not_decode_is_objected_to_with_the_piece_that_makes_it_whole(
    chunk_bytes: int,
) -> None:
    judged: list[bytes] = []

    def flaw(state: bytes) -> str:
        judged.append(state)
        return "nonsense"

    assembly = SnapshotAssembly(flaw)
    *first, last = pieces(chunk_bytes=chunk_bytes)
    for chunk in first:
        assert assembly.objection(chunk) is None
        assembly.add(chunk)
    assert assembly.objection(last) == "a snapshot at 7 that does not decode: nonsense"
    assert judged == [SNAPSHOT.data]


def test_nothing_is_objected_to_a_piece_that_makes_nothing_whole() -> None:
    assembly = SnapshotAssembly(lambda _: "nonsense")
    first, second, last = pieces()
    assert assembly.objection(last) is None, "of a snapshot whose begin is not here"
    assembly.add(first)
    assert assembly.objection(last) is None, "one is missing"
    assert assembly.objection(second) is None
