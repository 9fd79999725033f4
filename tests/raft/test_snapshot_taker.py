"""When a snapshot is taken, and of what."""

from collections.abc import Iterator

import pytest
import trio
import trio.testing

from noti.raft.snapshot_taker import SnapshotTaker
from noti.trio_clock import TrioClock


class Letters:
    """A state machine that keeps what it was told, and encodes a letter in a piece."""

    def __init__(self) -> None:
        self.letters = b""
        self.encoded = 0

    def apply(self, command: bytes, log_index: int = 0) -> None:
        self.letters += command

    def snapshot_pieces(self) -> Iterator[bytes]:
        for letter in self.letters:
            self.encoded += 1
            yield bytes([letter])

    def restore(self, state: object) -> None:
        assert isinstance(state, bytes)
        self.letters = state


@pytest.fixture
def state() -> Letters:
    state = Letters()
    state.apply(b"abc")
    return state


def taker(state: Letters, *, every_bytes: int = 100, last_bytes: int = 0) -> SnapshotTaker:
    return SnapshotTaker(state, TrioClock(), every_bytes=every_bytes, last_bytes=last_bytes)


async def test_snapshot_is_of_the_moment_in_which_it_was_begun(state: Letters) -> None:
    snapshots = taker(state)
    snapshots.count(100)
    snapshots.begin_if_due(7)
    state.apply(b"later")
    snapshots.count(100)
    snapshots.begin_if_due(8)
    assert await snapshots.next() == (7, (b"a", b"b", b"c"))


async def test_others_get_a_turn_after_each_piece(state: Letters) -> None:
    state.apply(bytes(100))
    snapshots = taker(state)
    snapshots.count(100)
    snapshots.begin_if_due(7)
    seen: list[int] = []

    async def look() -> None:
        while True:
            seen.append(state.encoded)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        await snapshots.next()
        nursery.cancel_scope.cancel()
    assert len(set(seen)) > 30, "about each is seen, in whatever order tasks take turns"


async def test_next_one_is_due_after_as_much_log_as_the_last_one_had(state: Letters) -> None:
    state.apply(bytes(200))
    snapshots = taker(state)
    snapshots.count(100)
    snapshots.begin_if_due(1)
    await snapshots.next()
    snapshots.count(202)
    snapshots.begin_if_due(2)
    assert state.encoded == 203, "203 bytes are needed"
    snapshots.count(1)
    snapshots.begin_if_due(3)
    assert (await snapshots.next())[0] == 3


async def test_recovered_snapshot_counts_as_the_last_one(state: Letters) -> None:
    snapshots = taker(state, last_bytes=500)
    snapshots.count(499)
    snapshots.begin_if_due(1)
    assert state.encoded == 0
    snapshots.count(1)
    snapshots.begin_if_due(2)
    assert (await snapshots.next())[0] == 2


async def test_snapshot_that_a_leaders_overtakes_is_given_up(state: Letters) -> None:
    snapshots = taker(state)
    snapshots.count(100)
    snapshots.begin_if_due(7)
    async with trio.open_nursery() as nursery:
        taken: list[int] = []

        async def take() -> None:
            taken.append((await snapshots.next())[0])

        nursery.start_soon(take)
        await trio.lowlevel.checkpoint()
        snapshots.replaced(1000)
        await trio.testing.wait_all_tasks_blocked()
        assert taken == []
        snapshots.count(1000)
        snapshots.begin_if_due(20)
        await trio.testing.wait_all_tasks_blocked(0.01)
    assert taken == [20]
