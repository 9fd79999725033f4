"""What becomes one write to the log."""

import trio
import trio.testing

from noti.raft.core.events import Persist, Persisted, PersistSnapshot, SaveSnapshot
from noti.raft.core.messages import Entry, EntryKind, HardState, Snapshot
from noti.raft.core.records import new_entry
from noti.raft.storage.log_writer import WRITE_BYTES_MAX, LogWriter
from noti.raft.storage.wal import Wal
from noti.trio_clock import TrioClock
from tests.simulation.memory_disk import MemoryDisk


def entries(first: int, last: int, size: int) -> tuple[Entry, ...]:
    return tuple(new_entry(i, 1, EntryKind.COMMAND, bytes(size)) for i in range(first, last + 1))


async def written(*orders: Persist) -> tuple[int, list[Persisted], tuple[Entry, ...]]:
    """Return how many changes of the disk the orders took, what was told, and what is on disk."""
    disk = MemoryDisk()
    wal, _ = await Wal.open(disk)
    before = disk.operations
    writer = LogWriter(wal, TrioClock())
    told: list[Persisted] = []
    for order in orders:
        writer.orders.append(order)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, told.append)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    _, recovered = await Wal.open(disk)
    assert recovered.hard_state == HardState(1, "a")
    return disk.operations - before, told, recovered.entries


async def test_all_that_waits_is_one_write() -> None:
    first, second = entries(1, 3, 10), entries(4, 9, 10)
    orders = Persist(1, HardState(1, "a"), first), Persist(2, None, second)
    assert await written(*orders) == (1, [Persisted(2)], first + second)


async def test_large_order_is_several_writes_and_durable_after_the_last() -> None:
    many = entries(1, 5, WRITE_BYTES_MAX // 2)
    assert await written(Persist(1, HardState(1, "a"), many)) == (3, [Persisted(1)], many)


async def test_orders_that_are_durable_are_reported_before_a_large_one_behind_them_is() -> None:
    first, second = entries(1, 1, WRITE_BYTES_MAX // 2), entries(2, 3, WRITE_BYTES_MAX // 2)
    changes, told, found = await written(
        Persist(1, HardState(1, "a"), first), Persist(2, None, second)
    )
    assert (changes, told, found) == (2, [Persisted(1), Persisted(2)], first + second)


async def test_entry_larger_than_a_write_is_written_alone() -> None:
    one, two = entries(1, 1, WRITE_BYTES_MAX + 1), entries(2, 2, 1)
    changes, told, found = await written(Persist(1, HardState(1, "a"), one), Persist(2, None, two))
    assert (changes, told, found) == (2, [Persisted(1), Persisted(2)], one + two)


async def test_entries_are_written_while_a_snapshot_is_saved(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryDisk(sleep=trio.sleep, latency_s=(0.01, 0.01))
    wal, _ = await Wal.open(disk)
    writer = LogWriter(wal, TrioClock())
    durable_at: dict[int, float] = {}

    def note(news: Persisted) -> None:
        durable_at[news.batch] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, note)
        nursery.start_soon(writer.save_snapshots)
        writer.orders.append(Persist(1, HardState(1, "a"), entries(1, 10, 10)))
        await trio.sleep(0.1)
        pieces = (b"piece",) * 100
        writer.orders.append(SaveSnapshot(Snapshot(10, 1, b"", pieces), drop_through=0))
        writer.flush(trio.current_time())
        for number in range(2, 12):
            begun_at = trio.current_time()
            writer.orders.append(Persist(number, None, entries(9 + number, 9 + number, 10)))
            writer.flush(begun_at)
            await trio.sleep(0.1)
            assert durable_at[number] - begun_at < 0.05
        assert "snapshot" not in disk.files
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    _, recovered = await Wal.open(disk)
    assert recovered.snapshot == Snapshot(10, 1, b"", pieces)


async def test_long_installation_shows_that_the_disk_works(
    autojump_clock: trio.testing.MockClock,
) -> None:
    disk = MemoryDisk(sleep=trio.sleep, latency_s=(0.01, 0.01))
    wal, _ = await Wal.open(disk)
    writer = LogWriter(wal, TrioClock())
    told: list[Persisted] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(writer.run, told.append)
        writer.orders.append(Persist(7, HardState(1, "a"), ()))
        writer.orders.append(PersistSnapshot(8, Snapshot(10, 1, b"", (b"piece",) * 100)))
        await trio.sleep(0.5)
        assert told.count(Persisted(7)) > 20
        assert Persisted(8) not in told
        await trio.sleep(10)
        assert told[-1] == Persisted(8)
        nursery.cancel_scope.cancel()
