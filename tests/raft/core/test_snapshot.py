"""Snapshots in pieces."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.raft.core.events import RestoreSnapshot
from noti.raft.core.messages import Snapshot, SnapshotChunk
from noti.raft.core.snapshot import (
    SNAPSHOT_BYTES_MAX,
    SnapshotAssembly,
    WholeDecoder,
    chunks_of,
    split,
)
from tests import promises

SNAPSHOT = Snapshot(7, 3, b"configuration", (b"0123", b"4567", b"89"))


def pieces(snapshot: Snapshot = SNAPSHOT) -> list[SnapshotChunk]:
    return list(chunks_of(snapshot, sender="n1", term=5))


def new_assembly(decode: Callable[[bytes], object] = bytes) -> SnapshotAssembly:
    return SnapshotAssembly(partial(WholeDecoder, decode))


def join(chunks: list[SnapshotChunk]) -> list[Snapshot]:
    assembly = new_assembly()
    return [whole for chunk in chunks if (whole := take(assembly, chunk)) is not None]


def take(assembly: SnapshotAssembly, chunk: SnapshotChunk) -> Snapshot | None:
    """Do as the core does; return the snapshot that the piece made whole."""
    assert assembly.find_invalid(chunk, 5) is None
    whole = assembly.take()
    assert whole is None or whole.state == b"".join(whole.snapshot.pieces), "decoded by `bytes`"
    return None if whole is None else whole.snapshot


@given(st.binary(max_size=64), st.integers(1, 80))
def test_pieces_join_to_what_was_split(data: bytes, piece_bytes: int) -> None:
    snapshot = Snapshot(7, 3, b"configuration", split(data, piece_bytes))
    chunks = pieces(snapshot)
    assert all(len(chunk.data) <= piece_bytes for chunk in chunks)
    assert join(chunks) == [snapshot]


def test_empty_snapshot_is_one_piece() -> None:
    assert split(b"") == (b"",)
    assert len(pieces(replace(SNAPSHOT, pieces=(b"",)))) == 1


def test_sending_goes_on_from_the_first_piece_that_was_not_sent() -> None:
    _, two, three = pieces()
    assert list(chunks_of(SNAPSHOT, sender="n1", term=5, offset=4)) == [two, three]
    assert list(chunks_of(SNAPSHOT, sender="n1", term=5, offset=10)) == []


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
    newer = replace(SNAPSHOT, index=9, pieces=(b"abcd", b"efgh"))
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
    assembly = new_assembly()
    assert take(assembly, first) is None
    assert take(assembly, replace(first, offset=4)) is None


def test_cleared_assembly_starts_anew() -> None:
    assembly = new_assembly()
    one, two, three = pieces()
    take(assembly, one)
    take(assembly, two)
    assembly.clear()
    assert take(assembly, three) is None


@pytest.mark.parametrize("piece_bytes", [1, 4, 100])
def test_state_that_does_not_decode_is_invalid_with_the_piece_that_makes_it_whole(
    piece_bytes: int,
) -> None:
    decoded: list[bytes] = []

    def decode(state: bytes) -> object:
        decoded.append(state)
        raise MessageInvalid("nonsense")

    assembly = new_assembly(decode)
    *first, last = pieces(replace(SNAPSHOT, pieces=split(b"0123456789", piece_bytes)))
    for chunk in first:
        assert take(assembly, chunk) is None
    assert assembly.find_invalid(last, 5) == "a snapshot at 7 that does not decode: nonsense"
    assert assembly.take() is None
    assert decoded == [b"0123456789"]


class RefusesThePiece:
    """A decoder that does not like one piece."""

    def feed(self, piece: bytes) -> None:
        if piece == b"4567":
            raise MessageInvalid("nonsense")

    def finish(self) -> object:
        return "never"


def test_piece_that_does_not_decode_is_invalid_at_once_and_drops_those_before() -> None:
    assembly = SnapshotAssembly(RefusesThePiece)
    one, two, three = pieces()
    assert assembly.find_invalid(one, 5) is None
    assert assembly.size == 4
    assert assembly.find_invalid(two, 5) == "a snapshot at 7 that does not decode: nonsense"
    assert assembly.size == 0
    assert assembly.find_invalid(three, 5) is None
    assert assembly.take() is None


def test_state_is_decoded_piece_by_piece_as_they_come() -> None:
    fed: list[bytes] = []

    class Decoder(WholeDecoder):
        def feed(self, piece: bytes) -> None:
            fed.append(piece)
            super().feed(piece)

    assembly = SnapshotAssembly(Decoder)
    for count, chunk in enumerate(pieces(), start=1):
        assert assembly.find_invalid(chunk, 5) is None
        assert fed == list(SNAPSHOT.pieces[:count])
    assert assembly.take() == RestoreSnapshot(SNAPSHOT, b"0123456789")


def test_first_piece_of_a_new_term_outlives_the_end_of_the_old_one() -> None:
    assembly = new_assembly()
    one, two, three = pieces()
    assert assembly.find_invalid(one, 4) is None
    assembly.clear(5)
    assert take(assembly, two) is None
    assembly.clear(6)
    assert take(assembly, three) is None


def test_piece_of_a_term_that_is_over_is_not_even_decoded() -> None:
    assembly = SnapshotAssembly(RefusesThePiece)
    for chunk in pieces():
        assert assembly.find_invalid(chunk, 6) is None
    assert assembly.size == 0


def test_empty_pieces_that_lead_nowhere_are_not_collected() -> None:
    assembly = new_assembly()
    one, *_ = pieces()
    take(assembly, one)
    for _ in range(3):
        take(assembly, replace(one, offset=4, data=b""))
    assert assembly.size == 0


def test_piece_is_taken_in_without_a_copy_of_those_before() -> None:
    """Otherwise a snapshot of many pieces takes time by the square of its size."""
    piece_bytes, count = 64 * 1024, 32
    snapshot = Snapshot(7, 3, b"configuration", split(bytes(piece_bytes * count), piece_bytes))
    chunks = pieces(snapshot)
    assembly = new_assembly()
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
