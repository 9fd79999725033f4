"""The log on disk: whatever was acknowledged is there after any crash, and nothing else."""

import random
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from noti.errors import StorageCorrupt, StorageFailed
from noti.raft.core.messages import Entry, EntryKind, HardState, Snapshot
from noti.raft.core.records import new_entry
from noti.raft.storage.disk import open_disk
from noti.raft.storage.recovery import SNAPSHOT_NAME, Recovered
from noti.raft.storage.segments import END_MARK, read_segment, segment_name
from noti.raft.storage.wal import Wal
from tests import promises
from tests.simulation.memory_disk import MemoryDisk

SEGMENT_BYTES = 2048
"""Small, so that a short workload crosses segments."""

FIRST = segment_name(1)


def entry(index: int, term: int = 1, size: int = 20) -> Entry:
    return new_entry(index, term, EntryKind.COMMAND, bytes([index % 250 + 1]) * size)


def snapshot(index: int, term: int = 1) -> Snapshot:
    return Snapshot(index, term, b"configuration", (b"state at ", b"%d" % index))


async def reopen(disk: MemoryDisk) -> tuple[Wal, Recovered]:
    return await Wal.open(disk, segment_bytes=SEGMENT_BYTES)


async def written(*batches: Sequence[Entry]) -> tuple[MemoryDisk, Wal]:
    disk = MemoryDisk()
    wal, _ = await reopen(disk)
    for batch in batches:
        await wal.append(batch, HardState(1, "a"))
    return disk, wal


# Ordinary life


async def test_new_log_is_empty() -> None:
    wal, recovered = await reopen(MemoryDisk())
    assert recovered == Recovered(HardState(), None, ())
    assert wal.last_index == 0


async def test_entries_and_hard_state_come_back() -> None:
    disk, wal = await written([entry(1), entry(2)], [entry(3)])
    await wal.append([], HardState(7, None))
    wal, recovered = await reopen(disk)
    assert recovered == Recovered(HardState(7, None), None, (entry(1), entry(2), entry(3)))
    assert wal.last_index == 3


async def test_empty_append_writes_nothing() -> None:
    disk, wal = await written([entry(1)])
    before = disk.operations
    await wal.append([], None)
    assert disk.operations == before


@promises.ONE_WRITE_ONE_SYNC
async def test_one_append_is_one_write() -> None:
    disk, wal = await written([entry(1)])
    before = disk.operations
    await wal.append([entry(i) for i in range(2, 12)], HardState(2, "b"))
    assert disk.operations == before + 1


async def test_entry_with_a_known_index_replaces_it_and_all_after_it() -> None:
    disk, wal = await written([entry(1), entry(2), entry(3), entry(4)])
    await wal.append([entry(2, term=2)], None)
    assert wal.last_index == 2
    await wal.append([entry(3, term=2)], None)
    _, recovered = await reopen(disk)
    assert recovered.entries == (entry(1), entry(2, term=2), entry(3, term=2))


async def test_gap_and_change_below_the_snapshot_are_refused() -> None:
    disk, wal = await written([entry(1), entry(2)])
    with pytest.raises(AssertionError):
        await wal.append([entry(4)], None)
    await wal.save_snapshot(snapshot(2), keep_after=2)
    with pytest.raises(AssertionError):
        await wal.append([entry(2, term=2)], None)
    await wal.append([entry(3)], None)  # a refusal changes nothing
    _, recovered = await reopen(disk)
    assert recovered.entries[-1] == entry(3)


async def test_full_segment_is_followed_by_another_that_repeats_the_hard_state() -> None:
    disk, wal = await written(*[[entry(i, size=100)] for i in range(1, 60)])
    segments = await disk.names()
    assert len(segments) > 3
    assert all(len(disk.files[name]) == SEGMENT_BYTES for name in segments)
    await wal.save_snapshot(snapshot(59), keep_after=59)
    assert await disk.names() == [segments[-1], SNAPSHOT_NAME]
    _, recovered = await reopen(disk)
    assert recovered.hard_state == HardState(1, "a")
    assert recovered.snapshot == snapshot(59)


async def test_batch_larger_than_a_segment_gets_a_segment_of_its_size() -> None:
    large = entry(2, size=10 * SEGMENT_BYTES)
    disk, _ = await written([entry(1)], [large], [entry(3)])
    assert len(disk.files[segment_name(2)]) > 10 * SEGMENT_BYTES
    assert len(disk.files[segment_name(3)]) == SEGMENT_BYTES
    _, recovered = await reopen(disk)
    assert recovered.entries == (entry(1), large, entry(3))


async def test_compaction_keeps_what_it_was_asked_to_keep() -> None:
    disk, wal = await written(*[[entry(i, size=100)] for i in range(1, 60)])
    await wal.save_snapshot(snapshot(50), keep_after=30)
    wal, recovered = await reopen(disk)
    assert 1 < recovered.entries[0].index <= 31
    assert [e.index for e in recovered.entries] == list(range(recovered.entries[0].index, 60))
    await wal.append([entry(60)], None)
    _, recovered = await reopen(disk)
    assert recovered.entries[-1] == entry(60)


async def test_older_snapshot_changes_nothing() -> None:
    disk, wal = await written([entry(1), entry(2), entry(3)])
    await wal.save_snapshot(snapshot(2), keep_after=0)
    before = disk.operations
    await wal.save_snapshot(snapshot(1), keep_after=1)
    await wal.install_snapshot(snapshot(2))
    assert disk.operations == before


@pytest.mark.parametrize("index", [1, 4, 5])
async def test_leaders_snapshot_that_is_not_newer_changes_nothing(index: int) -> None:
    disk, wal = await written([entry(i) for i in range(1, 9)])
    await wal.save_snapshot(snapshot(5), keep_after=5)
    before = disk.operations
    await wal.install_snapshot(snapshot(index, term=2))
    assert disk.operations == before
    assert (await reopen(disk))[1].snapshot == snapshot(5)


async def test_installed_snapshot_that_the_log_agrees_with_keeps_the_suffix() -> None:
    disk, wal = await written([entry(1), entry(2), entry(3)])
    await wal.install_snapshot(snapshot(2))
    assert wal.last_index == 3
    _, recovered = await reopen(disk)
    assert recovered.entries[-1] == entry(3)


@pytest.mark.parametrize("installed", [snapshot(2, term=5), snapshot(100, term=5)])
async def test_installed_snapshot_that_the_log_lacks_discards_it(installed: Snapshot) -> None:
    disk, wal = await written(*[[entry(i, size=100)] for i in range(1, 60)])
    await wal.install_snapshot(installed)
    assert wal.last_index == installed.index
    assert len(await disk.names()) == 2
    _, recovered = await reopen(disk)
    assert recovered == Recovered(HardState(1, "a"), installed, ())
    follower = entry(installed.index + 1, term=5)
    await wal.append([follower], None)
    _, recovered = await reopen(disk)
    assert recovered.entries == (follower,)


async def test_two_snapshots_in_a_row_are_installed() -> None:
    disk, wal = await written([entry(1)])
    await wal.install_snapshot(snapshot(10, term=2))
    await wal.install_snapshot(snapshot(20, term=3))
    _, recovered = await reopen(disk)
    assert recovered == Recovered(HardState(1, "a"), snapshot(20, term=3), ())


async def test_log_on_a_real_disk_comes_back(tmp_path: Path) -> None:
    async with open_disk(tmp_path) as disk:
        wal, _ = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
        for index in range(1, 40):
            await wal.append([entry(index, size=100)], HardState(index, "a"))
        await wal.save_snapshot(snapshot(20), keep_after=20)
    async with open_disk(tmp_path) as disk:
        _, recovered = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
    assert recovered.hard_state == HardState(39, "a")
    assert recovered.snapshot == snapshot(20)
    assert recovered.entries[-1] == entry(39, size=100)


def test_killed_process_left_all_that_it_acknowledged(tmp_path: Path) -> None:
    program = (
        "import sys, trio, pathlib; from noti.raft.storage.disk import open_disk\n"
        "from noti.raft.storage.wal import Wal\n"
        "from noti.raft.core.messages import EntryKind\n"
        "from noti.raft.core.records import new_entry\n"
        "async def main():\n"
        "    async with open_disk(pathlib.Path(sys.argv[1])) as disk:\n"
        "        wal, _ = await Wal.open(disk, segment_bytes=2048)\n"
        "        while True:\n"
        "            index = wal.last_index + 1\n"
        "            await wal.append([new_entry(index, 1, EntryKind.COMMAND, b'x' * 100)], None)\n"
        "            print(index, flush=True)\n"
        "trio.run(main)\n"
    )
    for _ in range(3):
        command = [sys.executable, "-c", program, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged = [int(process.stdout.readline()) for _ in range(100)]
            process.kill()
            acknowledged += map(int, process.stdout.read().split())
        found = trio.run(recovered_indexes, tmp_path)
        # More may be there than we know: on its way to the disk, or its line on the way to us.
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= acknowledged[-1]


async def recovered_indexes(directory: Path) -> list[int]:
    async with open_disk(directory) as disk:
        _, recovered = await Wal.open(disk, segment_bytes=SEGMENT_BYTES)
    return [entry.index for entry in recovered.entries]


# Failure and cancellation


async def test_after_a_failed_write_the_log_refuses_everything() -> None:
    disk, wal = await written([entry(1)])
    disk.fail_next()
    with pytest.raises(StorageFailed, match="told to fail"):
        await wal.append([entry(2)], None)
    with pytest.raises(StorageFailed, match="open it again"):
        await wal.append([entry(2)], None)
    with pytest.raises(StorageFailed, match="open it again"):
        await wal.install_snapshot(snapshot(9))


async def test_cancelled_append_makes_the_log_refuse_everything() -> None:
    _, wal = await written([entry(1)])
    with trio.CancelScope() as scope:
        scope.cancel()
        await wal.append([entry(2)], None)
    assert scope.cancelled_caught
    with pytest.raises(StorageFailed, match="open it again"):
        await wal.append([entry(2)], None)


# Torn tails and damage


@promises.TORN_END_REPAIRED
async def test_last_batch_torn_at_any_byte_is_repaired() -> None:
    disk, wal = await written([entry(1)], [entry(2)])
    before = bytes(disk.files[FIRST])
    await wal.append([entry(3), entry(4, size=700)], HardState(9, "z"))
    after = bytes(disk.files[FIRST])
    start, end = len(before.rstrip(b"\0")), len(after.rstrip(b"\0"))
    for cut in range(start, end - len(END_MARK)):
        torn = MemoryDisk(files={FIRST: after[:cut] + before[cut:]})
        wal, recovered = await reopen(torn)
        assert recovered == Recovered(HardState(1, "a"), None, (entry(1), entry(2)))
        assert torn.files[FIRST] == before  # zeroed, so that the next batch has nothing behind it
        await wal.append([entry(3)], None)
        _, recovered = await reopen(torn)
        assert recovered.entries == (entry(1), entry(2), entry(3))


async def test_last_batch_that_lacks_only_its_end_mark_is_whole() -> None:
    disk, wal = await written([entry(1)], [entry(2)])
    end = len(disk.files[FIRST].rstrip(b"\0"))
    for missing in range(1, len(END_MARK) + 1):
        disk.files[FIRST][end - missing] = 0
        wal, recovered = await reopen(disk)
        assert recovered.entries == (entry(1), entry(2))
    await wal.append([entry(3)], None)
    _, recovered = await reopen(disk)
    assert recovered.entries == (entry(1), entry(2), entry(3))


async def test_last_batch_with_any_sector_missing_is_repaired() -> None:
    disk, wal = await written([entry(1)], [entry(2)])
    before = bytes(disk.files[FIRST])
    await wal.append([entry(3, size=1500)], HardState(9, "z"))
    after = bytes(disk.files[FIRST])
    sectors = range(0, SEGMENT_BYTES, 512)
    for kept in range(2 ** len(sectors) - 1):
        mixed = b"".join(
            (after if kept >> number & 1 else before)[sector : sector + 512]
            for number, sector in enumerate(sectors)
        )
        if mixed == after:
            continue
        _, recovered = await reopen(torn := MemoryDisk(files={FIRST: mixed}))
        assert recovered.entries == (entry(1), entry(2))
        assert torn.files[FIRST] == before


async def test_repair_that_is_cut_off_is_repaired_again() -> None:
    disk, wal = await written([entry(1)])
    before = bytes(disk.files[FIRST])
    await wal.append([entry(2, size=1500)], None)
    torn = bytes(disk.files[FIRST][:1200]) + bytes(SEGMENT_BYTES - 1200)
    for seed in range(40):
        disk = MemoryDisk(files={FIRST: torn}, rng=random.Random(seed))
        disk.fail_next()
        with pytest.raises(StorageFailed):
            await reopen(disk)
        disk = disk.crash()
        _, recovered = await reopen(disk)
        assert recovered.entries == (entry(1),)
        assert disk.files[FIRST] == before


@promises.TORN_END_REPAIRED
async def test_any_flipped_bit_is_refused_with_file_and_offset() -> None:
    disk, wal = await written([entry(1)], [entry(2)])
    offset = len(disk.files[FIRST].rstrip(b"\0"))
    await wal.append([entry(3)], None)
    middle_end = len(disk.files[FIRST].rstrip(b"\0"))
    await wal.append([entry(4)], None)
    await wal.append([entry(5)], None)
    # Up to the end mark of the last frame; the mark itself is covered by no checksum and harmless.
    last_end = len(disk.files[FIRST].rstrip(b"\0"))
    for position in range(last_end * 8):
        damaged = MemoryDisk(files=disk.files)
        damaged.files[FIRST][position // 8] ^= 1 << position % 8
        if is_in_end_mark(bytes(disk.files[FIRST]), position // 8):
            _, recovered = await reopen(damaged)
            assert len(recovered.entries) == 5
            continue
        with pytest.raises(StorageCorrupt) as raised:
            await reopen(damaged)
        assert str(raised.value).startswith(f"{FIRST} at byte ")
        if offset <= position // 8 < middle_end:
            assert str(raised.value).startswith(f"{FIRST} at byte {offset}: ")
            assert "delete this node's data directory" in str(raised.value)
        assert bytes(damaged.files[FIRST]) != bytes(disk.files[FIRST])  # left for examination


def is_in_end_mark(data: bytes, position: int) -> bool:
    return any(data.startswith(END_MARK, position - i) for i in range(len(END_MARK)))


async def test_valid_batch_after_a_hole_is_damage_and_no_torn_tail() -> None:
    disk, wal = await written([entry(1)])
    start = len(disk.files[FIRST].rstrip(b"\0"))
    await wal.append([entry(2, size=600)], None)
    end = len(disk.files[FIRST].rstrip(b"\0"))
    await wal.append([entry(3)], None)
    disk.files[FIRST][start:end] = bytes(end - start)
    with pytest.raises(StorageCorrupt, match=f"{FIRST} at byte {start}"):
        await reopen(disk)


async def test_batch_at_a_place_that_is_not_its_own_is_refused() -> None:
    disk, _ = await written([entry(1)], [entry(2)], [entry(2)])
    used = disk.files[FIRST].rstrip(b"\0")
    size = (len(used) - used.index(b"nWAL", 1)) // 3  # three batches of equal size
    disk.files[FIRST][len(used) : len(used) + size] = used[-size:]  # a misdirected write
    with pytest.raises(StorageCorrupt, match=f"{FIRST} at byte {len(used)}"):
        await reopen(disk)


async def test_torn_tail_in_an_older_segment_is_damage() -> None:
    disk, _ = await written(*[[entry(i, size=100)] for i in range(1, 30)])
    end = len(disk.files[FIRST].rstrip(b"\0"))
    disk.files[FIRST][end - 50 :] = bytes(SEGMENT_BYTES - end + 50)
    with pytest.raises(StorageCorrupt, match=f"{FIRST} at byte "):
        await reopen(disk)


@promises.TORN_END_REPAIRED
@pytest.mark.parametrize("lost_writes", [1, 2, 3])
async def test_write_that_an_older_segment_lost_is_damage_although_no_entry_is_missing(
    lost_writes: int,
) -> None:
    """A disk that said "written" and did not write: what the lost writes replaced comes back."""
    disk, wal = await written([entry(i) for i in range(1, 6)])
    for term in (2, 3, 4):
        await wal.append([entry(5, term)], HardState(term, "a"))
    assert set(disk.files) == {FIRST}
    await wal.append([entry(6, term=4, size=SEGMENT_BYTES - 100)], None)
    assert set(disk.files) == {FIRST, segment_name(2)}
    data = disk.files[FIRST]
    lost_from = read_segment(1, bytes(data)).frames[-lost_writes].offset
    data[lost_from:] = bytes(len(data) - lost_from)
    with pytest.raises(StorageCorrupt, match=f"{segment_name(2)} at byte 0"):
        await reopen(disk)


@pytest.mark.parametrize("missing", [1, 2, 3])
async def test_missing_segment_is_refused(missing: int) -> None:
    disk, _ = await written(*[[entry(i, size=100)] for i in range(1, 60)])
    assert len(disk.files) > 3
    del disk.files[segment_name(missing)]
    with pytest.raises(StorageCorrupt, match=r"missing|are in no older segment"):
        await reopen(disk)


async def test_swapped_segments_are_refused() -> None:
    disk, _ = await written(*[[entry(i, size=100)] for i in range(1, 60)])
    one, two = segment_name(1), segment_name(2)
    disk.files[one], disk.files[two] = disk.files[two], disk.files[one]
    with pytest.raises(StorageCorrupt, match=f"{one} at byte 0"):
        await reopen(disk)


async def test_damaged_or_missing_snapshot_is_refused() -> None:
    disk, wal = await written(*[[entry(i, size=100)] for i in range(1, 60)])
    await wal.save_snapshot(snapshot(59), keep_after=59)
    damaged = MemoryDisk(files=disk.files)
    damaged.files[SNAPSHOT_NAME][-1] ^= 1
    with pytest.raises(StorageCorrupt, match="snapshot at byte 0: the snapshot fails its checksum"):
        await reopen(damaged)
    del disk.files[SNAPSHOT_NAME]
    with pytest.raises(StorageCorrupt, match="are in no older segment or snapshot"):
        await reopen(disk)


async def test_snapshot_without_any_segment_is_refused() -> None:
    disk, wal = await written([entry(1)])
    await wal.save_snapshot(snapshot(1), keep_after=1)
    del disk.files[FIRST]
    with pytest.raises(StorageCorrupt, match="all segments are missing"):
        await reopen(disk)


async def test_other_files_in_the_directory_do_not_matter() -> None:
    disk, _ = await written([entry(1)])
    await disk.replace("identity", b"somebody else's")
    await disk.replace("log-1.wal", b"not one of ours")
    _, recovered = await reopen(disk)
    assert recovered.entries == (entry(1),)


# A crash at every operation


@dataclass(frozen=True)
class Model:
    """What the log must hold."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: tuple[Entry, ...] = ()
    """From index `first` on."""
    first: int = 1
    kept_after: int = 0
    """Entries above this must be on disk, also those that the snapshot covers."""

    @property
    def base(self) -> int:
        return self.snapshot.index if self.snapshot else 0

    @property
    def last(self) -> int:
        return max(self.base, self.first + len(self.entries) - 1)

    def after_append(self, entries: tuple[Entry, ...], hard_state: HardState | None) -> "Model":
        kept = self.entries[: entries[0].index - self.first] if entries else self.entries
        return replace(self, entries=kept + entries, hard_state=hard_state or self.hard_state)

    def contains(self, wanted: Snapshot) -> bool:
        position = wanted.index - self.first
        return 0 <= position < len(self.entries) and self.entries[position].term == wanted.term

    def after_save(self, saved: Snapshot, keep_after: int) -> "Model":
        return replace(self, snapshot=saved, kept_after=max(self.kept_after, keep_after))

    def after_install(self, installed: Snapshot) -> "Model":
        if self.contains(installed):
            return self.after_save(installed, installed.index)
        first = installed.index + 1
        return Model(self.hard_state, installed, (), first, installed.index)

    def allows(self, recovered: Recovered) -> bool:
        """Whether this is what a restart may find: all that counts, and nothing invented."""
        if (recovered.hard_state, recovered.snapshot) != (self.hard_state, self.snapshot):
            return False
        if not recovered.entries:
            return self.last <= self.kept_after
        found_first = recovered.entries[0].index
        position = found_first - self.first
        return (
            found_first <= self.kept_after + 1
            and position >= 0
            and recovered.entries == self.entries[position:]
        )


class Workload:
    """Random changes of a log, and the model of what was acknowledged."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.done = Model()
        self.attempted = self.done
        self.term = 1

    async def run(self, disk: MemoryDisk, steps: int) -> None:
        wal, recovered = await reopen(disk)
        assert self.done.allows(recovered) or self.attempted.allows(recovered), recovered
        if not self.done.allows(recovered):
            self.done = self.attempted
        self.attempted = self.done
        for _ in range(steps):
            await self.step(wal)
            self.done = self.attempted
            assert wal.last_index == self.done.last

    async def step(self, wal: Wal) -> None:
        match self.rng.choices(["append", "vote", "save", "install"], [10, 2, 2, 1])[0]:
            case "append":
                await self.append(wal)
            case "vote":
                self.term += 1
                hard_state = HardState(self.term, self.rng.choice([None, "a", "b"]))
                self.attempted = self.done.after_append((), hard_state)
                await wal.append((), hard_state)
            case "save" if self.done.last > self.done.base:
                index = self.rng.randint(self.done.base + 1, self.done.last)
                term = self.done.entries[index - self.done.first].term
                keep_after = self.rng.randint(0, index)
                saved = snapshot(index, term)
                self.attempted = self.done.after_save(saved, keep_after)
                await wal.save_snapshot(saved, keep_after=keep_after)
            case "install":
                self.term += 1
                index = self.rng.randint(self.done.base + 1, self.done.last + 20)
                installed = snapshot(index, self.rng.choice([1, self.term]))
                self.attempted = self.done.after_install(installed)
                await wal.install_snapshot(installed)
            case _:
                pass  # nothing to save a snapshot of

    async def append(self, wal: Wal) -> None:
        first = self.done.last + 1
        hard_state = None
        if self.rng.random() < 0.3:
            self.term += 1
            first = self.rng.randint(self.done.base + 1, self.done.last + 1)
            hard_state = HardState(self.term, "c")
        count = self.rng.randint(1, 5)
        size = self.rng.choice([0, 10, 200, 700, 3000])
        entries = tuple(entry(first + i, self.term, size) for i in range(count))
        self.attempted = self.done.after_append(entries, hard_state)
        await wal.append(entries, hard_state)


@pytest.mark.parametrize("seed", range(6))
async def test_crash_at_every_operation_loses_and_invents_nothing(seed: int) -> None:
    counting = MemoryDisk()
    await Workload(seed).run(counting, steps=40)
    assert counting.operations > 40
    for crash_at in range(counting.operations):
        for luck in range(2):
            workload = Workload(seed)
            disk = MemoryDisk(rng=random.Random(luck))
            disk.fail_next(after=crash_at)
            with pytest.raises(StorageFailed):
                await workload.run(disk, steps=40)
            await workload.run(disk.crash(), steps=10)


@pytest.mark.parametrize("seed", range(30))
async def test_crash_after_crash_also_in_recovery_loses_and_invents_nothing(seed: int) -> None:
    workload = Workload(seed)
    disk = MemoryDisk(rng=random.Random(seed))
    crashes = 0
    for _ in range(60):
        disk.fail_next(after=workload.rng.randint(0, 12))
        try:
            await workload.run(disk, steps=8)
        except StorageFailed:
            crashes += 1
        disk = disk.crash()
    await workload.run(disk, steps=0)
    assert crashes > 20


@promises.COMMITTED_SURVIVES
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), crash_at=st.integers(0, 80), luck=st.integers(0, 2**32))
def test_crash_anywhere_in_any_workload_loses_and_invents_nothing(
    seed: int, crash_at: int, luck: int
) -> None:
    async def crash_and_go_on() -> None:
        workload = Workload(seed)
        disk = MemoryDisk(rng=random.Random(luck))
        disk.fail_next(after=crash_at)
        with suppress(StorageFailed):
            await workload.run(disk, steps=40)
        disk = disk.crash()
        await workload.run(disk, steps=20)
        await workload.run(disk, steps=0)

    trio.run(crash_and_go_on)


@promises.SNAPSHOT_WHOLE
async def test_install_snapshot_is_all_or_nothing_at_every_operation() -> None:
    batches = [[entry(i, size=100)] for i in range(1, 60)]
    old = Model(HardState(1, "a"), None, tuple(e for b in batches for e in b))
    for installed in (snapshot(30), snapshot(30, term=8), snapshot(90, term=8)):
        new = old.after_install(installed)
        outcomes = set()
        for crash_at in range(9):
            for luck in range(6):
                disk, _ = await written(*batches)
                disk = MemoryDisk(files=disk.files, rng=random.Random(luck))
                wal, _ = await reopen(disk)
                disk.fail_next(after=crash_at)
                with suppress(StorageFailed):
                    await wal.install_snapshot(installed)
                disk = disk.crash()
                wal, recovered = await reopen(disk)
                assert new.allows(recovered) or old.allows(recovered)
                outcomes.add(new.allows(recovered))
                follower = entry(wal.last_index + 1, term=9)
                await wal.append([follower], None)
                _, recovered = await reopen(disk)
                assert recovered.entries[-1] == follower
        assert outcomes == {False, True}


@promises.SNAPSHOT_WHOLE
async def test_crash_anywhere_while_a_snapshot_is_saved_beside_appends_harms_nothing() -> None:
    batches = [[entry(i, size=100)] for i in range(1, 60)]
    saved = replace(snapshot(30), pieces=(b"one", b"two", b"three", b"four"))
    disk, _ = await written(*batches)
    files = disk.copy()
    outcomes = set()
    for crash_at in range(40):
        for luck in range(4):
            disk = MemoryDisk(files=files, rng=random.Random(luck))
            wal, _ = await reopen(disk)
            disk.fail_next(after=crash_at)
            done = attempted = Model(HardState(1, "a"), None, tuple(e for b in batches for e in b))
            with suppress(StorageFailed):
                saving = wal.begin_saving(saved, keep_after=20)
                more = True
                while more:
                    added = entry(wal.last_index + 1, size=100)
                    attempted = done.after_append((added,), None)
                    written_beside = wal.append((added,), None)
                    more = await saving.step()
                    await written_beside
                    done = attempted
            disk = disk.crash()
            wal, recovered = await reopen(disk)
            before = done.allows(recovered) or attempted.allows(recovered)
            after = [model.after_save(saved, 20) for model in (done, attempted)]
            assert before or any(model.allows(recovered) for model in after), recovered
            outcomes.add(before)
            follower = entry(wal.last_index + 1)
            await wal.append([follower], None)
            _, recovered = await reopen(disk)
            assert recovered.entries[-1] == follower
    assert outcomes == {False, True}


async def test_leaders_snapshot_ends_the_saving_of_an_older_one() -> None:
    disk, wal = await written(*[[entry(i, size=100)] for i in range(1, 60)])
    saving = wal.begin_saving(snapshot(30), keep_after=20)
    assert await saving.step()
    await wal.install_snapshot(snapshot(90, term=2))
    assert not await saving.step()
    assert (await reopen(disk))[1].snapshot == snapshot(90, term=2)
