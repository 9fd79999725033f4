"""Reads the log back while the node runs."""

import pytest
import trio
import trio.testing

from noti.errors import StorageCorrupt
from noti.raft.core.events import EntriesRead, ReadEntries
from noti.raft.core.messages import EntryKind
from noti.raft.core.records import new_entry
from noti.raft.storage.log_reader import LogReader
from noti.raft.storage.segments import segment_name
from noti.raft.storage.wal import Wal
from noti.trio_clock import TrioClock
from tests.simulation.memory_disk import MemoryDisk

ENTRIES = tuple(new_entry(index, 1, EntryKind.COMMAND, b"x" * 100) for index in range(1, 9))


async def opened() -> tuple[MemoryDisk, LogReader]:
    disk = MemoryDisk()
    wal, _ = await Wal.open(disk, segment_bytes=65_536)
    await wal.append(ENTRIES, None)
    return disk, LogReader(wal, TrioClock())


async def answers(reader: LogReader) -> list[EntriesRead]:
    """Return what comes until nothing more does."""
    told: list[EntriesRead] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run, told.append)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return told


async def test_orders_are_answered_in_turn_each_with_what_it_asked_for() -> None:
    _, reader = await opened()
    reader.put(ReadEntries("n2", 3, 8, 250))
    reader.put(ReadEntries("n3", 1, 1, 10))
    assert await answers(reader) == [
        EntriesRead("n2", ENTRIES[2:4]),
        EntriesRead("n3", ENTRIES[:1]),
    ]


async def test_what_is_to_be_applied_waits_until_what_came_before_is() -> None:
    _, reader = await opened()
    reader.put(ReadEntries(None, 1, 2, 1000))
    assert await answers(reader) == []
    reader.all_is_applied()
    reader.all_is_applied()
    assert await answers(reader) == [EntriesRead(None, ENTRIES[:2])]


async def test_damage_is_nothing_for_a_follower_and_the_end_when_it_is_to_be_applied() -> None:
    disk, reader = await opened()
    disk.files[segment_name(1)][120] ^= 1
    reader.put(ReadEntries("n2", 1, 8, 1000))
    assert await answers(reader) == [EntriesRead("n2", ())]
    reader.put(ReadEntries(None, 1, 8, 1000))
    reader.all_is_applied()
    with pytest.RaisesGroup(pytest.RaisesExc(StorageCorrupt, match="there no more")):
        await answers(reader)
