"""What the log on disk gives back while a node runs, and what memory gets of it at the start."""

import pytest
import trio

from noti.errors import StorageCorrupt
from noti.raft.core.log import ENTRY_OVERHEAD_BYTES, RaftLog
from noti.raft.core.messages import HardState
from noti.raft.storage.wal import Wal
from tests.raft.storage.test_wal import FIRST, SEGMENT_BYTES, entry, reopen, snapshot, written
from tests.simulation.memory_disk import MemoryDisk


async def test_durable_entries_are_read_back_whatever_segment_they_are_in() -> None:
    entries = [entry(index, size=100) for index in range(1, 40)]
    disk, wal = await written(*([one] for one in entries))
    assert sum(name.startswith("log-") for name in disk.files) > 2
    again, _ = await reopen(disk)
    for log in (wal, again):
        assert await log.read(1, 39, 10**6) == tuple(entries)
        assert await log.read(5, 7, 10**6) == tuple(entries[4:7])
        assert await log.read(20, 39, 350) == tuple(entries[19:22])
        assert await log.read(20, 39, 1) == tuple(entries[19:20])
        assert await log.read(40, 50, 10**6) == ()


async def test_what_another_leader_replaced_is_never_read_back() -> None:
    disk, wal = await written([entry(1), entry(2), entry(3), entry(4)])
    await wal.append([entry(3, term=2)], HardState(2, "b"))
    again, _ = await reopen(disk)
    for log in (wal, again):
        assert await log.read(1, 9, 10**6) == (entry(1), entry(2), entry(3, term=2))
        assert await log.read(4, 9, 10**6) == ()


async def test_what_was_compacted_is_not_read_back() -> None:
    _, wal = await written(*([entry(index, size=100)] for index in range(1, 40)))
    await wal.save_snapshot(snapshot(30), keep_after=20)
    assert await wal.read(1, 39, 10**6) == ()
    assert (await wal.read(21, 39, 10**6))[0] == entry(21, size=100)
    await wal.install_snapshot(snapshot(50, term=2))
    assert await wal.read(31, 50, 10**6) == ()


async def test_read_sees_a_write_that_comes_meanwhile_or_does_not() -> None:
    disk, wal = await written([entry(1)], [entry(2)])
    slow = MemoryDisk(files=disk.files, sleep=trio.sleep, latency_s=(0.01, 0.01))
    wal, _ = await Wal.open(slow, segment_bytes=SEGMENT_BYTES)
    async with trio.open_nursery() as nursery:
        for index in range(3, 9):
            nursery.start_soon(wal.read, 1, 9, 10**6)
            await wal.append([entry(index)], None)
    assert (await wal.read(1, 9, 10**6))[-1] == entry(8)


async def test_damage_is_not_read_back() -> None:
    disk, wal = await written([entry(1, size=100)])
    disk.files[FIRST][-SEGMENT_BYTES + 120] ^= 1
    with pytest.raises(StorageCorrupt, match="there no more"):
        await wal.read(1, 1, 10**6)


@pytest.mark.parametrize("memory_bytes", [0, 700, 10**6])
async def test_memory_gets_the_last_entries_and_what_is_known_of_all(memory_bytes: int) -> None:
    disk, _ = await written(*([entry(index, size=100)] for index in range(1, 11)))
    _, recovered = await Wal.open(disk, segment_bytes=SEGMENT_BYTES, memory_bytes=memory_bytes)
    held = min(10, memory_bytes // (100 + ENTRY_OVERHEAD_BYTES))
    assert [e.index for e in recovered.entries] == list(range(11 - held, 11))
    assert (recovered.outline.base_index, recovered.outline.last_index) == (0, 10)
    log = RaftLog(None, recovered.tail, memory_bytes=memory_bytes)
    assert (log.first_index, log.held_from, log.last_index) == (1, 11 - held, 10)


async def test_log_below_the_snapshot_is_there_for_others_after_a_restart() -> None:
    disk, wal = await written(*([entry(index, size=100)] for index in range(1, 40)))
    await wal.save_snapshot(snapshot(30), keep_after=20)
    wal, recovered = await reopen(disk)
    outline = recovered.outline
    assert 1 < outline.base_index <= 20
    assert outline.term_at(outline.base_index) == 1
    found = await wal.read(outline.base_index + 1, 39, 10**6)
    assert [e.index for e in found] == list(range(outline.base_index + 1, 40))
