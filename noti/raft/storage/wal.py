"""Keeps a node's log, hard state and snapshot in files that survive a crash at any moment.

Entries are written as the records that their leader encoded, and never looked into. Files:
`log-<number>.wal`, numbered without gaps, and `snapshot`. Rules that make every crash harmless:
- one call of `append` is one frame, one write and one sync (`segments.py` says how a torn one is
  recognised);
- nothing is overwritten: an entry with an index that exists already replaces it, and all after it,
  at replay;
- a new segment's first frame repeats the hard state, and only once it is durable may an older
  segment go;
- a snapshot is durable before any entry that it covers goes, and segments go oldest first.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import structlog
import trio
from prometheus_client import Gauge

from noti.errors import MessageInvalid, StorageFailed
from noti.raft.core.config import LOG_MEMORY_BYTES
from noti.raft.core.messages import Entry, HardState, Snapshot
from noti.raft.core.outline import Outline
from noti.raft.core.records import (
    SegmentStart,
    encode_hard_state,
    encode_segment_start,
    scan_records,
)
from noti.raft.storage.ports import Disk
from noti.raft.storage.recovery import SNAPSHOT_NAME, Recovered, Replay, TornTail, reject
from noti.raft.storage.segments import (
    FRAME_OVERHEAD_BYTES,
    Extent,
    Extents,
    Segment,
    checksum_of,
    encode_frame,
    read_frames,
    segment_name,
    segment_sequence,
)
from noti.raft.storage.snapshot_file import encode_snapshot

__all__ = ["SEGMENT_BYTES", "Recovered", "Wal"]

log = structlog.get_logger("noti.raft")

SEGMENT_BYTES = 8 * 1024 * 1024
"""Size of a segment. Filling one with zeroes holds up the commits behind it (tens of milliseconds
on a slow disk), so it is far below the 64 MB usual elsewhere; and it is what a log keeps on disk at
least."""


_disk_bytes = Gauge("noti_raft_log_disk_bytes", "Size of the log's files")


class DiskOperation:
    """A change of the log, made whether or not anybody waits for it; await it once, to do so.

    Unlike a coroutine it may be dropped, as happens when a node is stopped in that very turn.
    """

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`wait` is called when somebody waits."""
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, None]:
        """Return when it is over; raises what went wrong."""
        return self._wait().__await__()


class Wal:
    """The log on disk. Made by `open`, used by one task.

    Cancellation: a call that was cancelled may or may not have happened, so every later call raises
    `StorageFailed`; open the log again to find out. The same after any error.
    """

    def __init__(self, disk: Disk, segment_bytes: int) -> None:
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._segments: list[Segment] = []
        self._end = 0
        """Where the next frame goes in the last segment."""
        self._last_checksum = 0
        """Of the last frame."""
        self._hard_state = HardState()
        self._base_index = 0
        """Index of the snapshot."""
        self._outline = Outline()
        """Of the entries that are durable."""
        self._extents = Extents()
        self._frame = (0, 0, 0)
        """The last one that was written: number of its segment, offset, size."""
        self._in_doubt = False
        self._snapshot_in_doubt = False

    @classmethod
    async def open(
        cls,
        disk: Disk,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        must_exist: bool = False,
        memory_bytes: int = LOG_MEMORY_BYTES,
    ) -> tuple["Wal", Recovered]:
        """Read the log, repair what a crash left unfinished, and return it with what it says.

        Of the entries it says the last ones, as many as `memory_bytes` take.

        With `must_exist` an empty disk is damage: the node would come back as the same one, having
        forgotten its votes. Raises `StorageCorrupt` on damage that a crash cannot explain,
        `StorageFailed` when the disk fails. Cancellation: open again; every repair can be repeated.
        """
        wal = cls(disk, segment_bytes)
        replay = await wal._replay(memory_bytes)
        if must_exist and not replay.segments and replay.snapshot is None:
            reject(segment_name(1), 0, "the log of this node is missing")
        recovered = replay.recovered()
        wal._segments = replay.segments
        wal._end = replay.end
        wal._last_checksum = replay.last_checksum
        wal._hard_state = recovered.hard_state
        if recovered.snapshot is not None:
            wal._base_index = recovered.snapshot.index
        wal._outline = recovered.outline.copy()
        wal._extents = replay.extents
        await wal._remove(replay.obsolete)
        if not wal._segments or replay.log_is_stale():
            await wal._begin_anew()
        return wal, recovered

    @property
    def last_index(self) -> int:
        """Index of the last durable entry, or of the snapshot when there is none after it."""
        return self._outline.last_index

    def append(self, entries: Sequence[Entry], hard_state: HardState | None) -> DiskOperation:
        """Begin to make entries and hard state durable together.

        Await what it returns to know that they are.

        Entries are consecutive. They may begin below the end of the log: what was there from that
        index on is gone. Raises `StorageFailed` when the disk fails.
        """
        if not entries and hard_state is None:
            return DiskOperation(trio.lowlevel.checkpoint)
        batch = b"".join([entry.record for entry in entries])
        hard_state_record = b"" if hard_state is None else encode_hard_state(hard_state)
        self._check_sequence(entries)
        self._begin_change()
        # Hard state first: at no point of a replay does the log hold a term that the node has
        # not seen.
        written = self._write(hard_state_record, batch, hard_state or self._hard_state)

        async def wait() -> None:
            await written
            self._hard_state = hard_state or self._hard_state
            if entries:
                self._outline.truncate_from(entries[0].index)
                for entry in entries:
                    self._outline.append(entry)
                self._extents.add(entries[0].index, entries[-1].index, *self._frame)
                active = self._segments[-1]
                active.last_index = max(active.last_index, entries[-1].index)
            self._in_doubt = False

        return DiskOperation(wait)

    async def save_snapshot(self, snapshot: Snapshot, *, keep_after: int) -> None:
        """Make this node's own snapshot durable, then drop segments that are not needed any more.

        These hold only entries up to `keep_after`.

        The log must reach the snapshot. One that is not newer than the last changes nothing.
        Raises `StorageFailed`.
        """
        with self._changing():
            saving = self.begin_saving(snapshot, keep_after=keep_after)
            while await saving.step():
                pass

    def begin_saving(self, snapshot: Snapshot, *, keep_after: int) -> "SnapshotSaving":
        """As `save_snapshot`, in steps, between which and during which entries may be appended."""
        return SnapshotSaving(self, self._disk, snapshot, keep_after)

    async def install_snapshot(
        self, snapshot: Snapshot, *, got_on: Callable[[], None] = lambda: None
    ) -> None:
        """Make a leader's snapshot durable in place of the log up to it (Raft figure 13, 5 to 7).

        Entries after it stay if the log agrees with it, otherwise the whole log goes. One that is
        not newer than the last changes nothing. Nothing else is written meanwhile, so `got_on` is
        called after each piece. Raises `StorageFailed`.
        """
        if snapshot.index <= self._base_index:
            return
        with self._changing():
            if self._contains(snapshot):
                saving = self.begin_saving(snapshot, keep_after=snapshot.index)
                while await saving.step():
                    got_on()
                return
            offset = 0
            for part in encode_snapshot(snapshot):
                await self._disk.stage(SNAPSHOT_NAME, offset, part)
                offset += len(part)
                got_on()
            await self._disk.publish(SNAPSHOT_NAME)
            # From here on a restart finds a log that lacks the snapshot's last entry, and does the
            # rest itself.
            self._base_index = snapshot.index
            self._outline = Outline(snapshot.index, snapshot.term)
            await self._begin_anew()

    async def read(self, first: int, last: int, bytes_max: int) -> tuple[Entry, ...]:
        """Return durable entries from `first` on, up to `last` or `bytes_max` of data.

        At least one; none if they were dropped. May be called while something is written.

        What was truncated meanwhile may be among them. Raises `StorageCorrupt` when the disk does
        not hold what was written, `StorageFailed`.
        """
        found: list[Entry] = []
        size = 0
        while (place := self._extents.find(first)) is not None:
            extent, end = place
            for entry in await self._read_extent(extent):
                if entry.index != first or first > last or first >= end:
                    continue
                size += entry.size_bytes
                if found and size > bytes_max:
                    return tuple(found)
                found.append(entry)
                first += 1
            if first < end or first > last or size >= bytes_max:
                break
        return tuple(found)

    async def _read_extent(self, extent: Extent) -> list[Entry]:
        name = segment_name(extent.sequence)
        try:
            data = await self._disk.read_part(name, extent.offset, extent.size)
        except FileNotFoundError:
            return []  # a snapshot came first
        frames = read_frames(extent.sequence, extent.offset, data)
        if frames is None or len(data) != extent.size:
            reject(name, extent.offset, "what was written there is there no more")
        try:
            records = [record for frame in frames for _, record in scan_records(frame.records)]
        except MessageInvalid as error:
            reject(name, extent.offset, str(error))
        return [record for record in records if isinstance(record, Entry)]

    def _contains(self, snapshot: Snapshot) -> bool:
        return self._outline.term_at(snapshot.index) == snapshot.term

    def _check_sequence(self, entries: Sequence[Entry]) -> None:
        for position, entry in enumerate(entries):
            assert entry.index == entries[0].index + position, "entries are consecutive"
        if entries:
            assert entries[0].index <= self._outline.last_index + 1, "entries leave no gap"
            assert entries[0].index > self._base_index, "what a snapshot covers never changes"

    @contextmanager
    def _changing(self) -> Iterator[None]:
        self._begin_change()
        yield
        self._in_doubt = False

    @contextmanager
    def _changing_beside(self) -> Iterator[None]:
        """Guard a change of the files that may be made while entries are appended."""
        self._check_ended_well(self._snapshot_in_doubt)
        self._snapshot_in_doubt = True
        yield
        self._snapshot_in_doubt = False

    def _begin_change(self) -> None:
        """Guard a change of the files: if it does not end well, nobody knows what they hold."""
        self._check_ended_well(self._in_doubt)
        self._in_doubt = True

    @staticmethod
    def _check_ended_well(in_doubt: bool) -> None:
        if in_doubt:
            raise StorageFailed("an earlier write to the log did not end well; open it again")

    def _write(
        self, hard_state_record: bytes, batch: bytes, hard_state: HardState
    ) -> Awaitable[None]:
        records = hard_state_record + batch
        active = self._segments[-1]
        if self._end + len(records) + FRAME_OVERHEAD_BYTES > active.size:
            base_index = self.last_index
            return DiskOperation(
                lambda: self._start_segment(base_index, hard_state, batch, fresh=False)
            )
        frame = encode_frame(active.sequence, self._end, records)
        operation = self._disk.write(active.name, self._end, frame)
        self._frame = (active.sequence, self._end, len(frame))
        self._end += len(frame)
        self._last_checksum = checksum_of(frame)
        return operation

    async def _start_segment(
        self, base_index: int, hard_state: HardState, batch: bytes, *, fresh: bool
    ) -> None:
        """Make a segment and use it from now on.

        It is as large as its first frame if that is larger than usual.
        """
        sequence = self._segments[-1].sequence + 1 if self._segments else 1
        previous = 0 if fresh else self._last_checksum
        start = encode_segment_start(SegmentStart(sequence, base_index, fresh, previous))
        frame = encode_frame(sequence, 0, start + encode_hard_state(hard_state) + batch)
        segment = Segment(sequence, max(self._segment_bytes, len(frame)), base_index)
        await self._disk.create(segment.name, segment.size)
        await self._disk.write(segment.name, 0, frame)
        self._segments.append(segment)
        self._frame = (sequence, 0, len(frame))
        self._end = len(frame)
        _disk_bytes.set(sum(segment.size for segment in self._segments))
        self._last_checksum = checksum_of(frame)

    async def _begin_anew(self) -> None:
        """Start a segment that follows the snapshot, and drop all others."""
        older = self._segments.copy()
        await self._start_segment(self._base_index, self._hard_state, b"", fresh=True)
        await self._remove(older)
        self._segments = self._segments[-1:]
        self._extents.drop_before(self._segments[0].sequence)

    async def _drop_oldest(self, keep_after: int) -> bool:
        """Drop the oldest segment if it holds no entry above `keep_after`; return if there was one.

        Never the one in use.
        """
        oldest = self._segments[0]
        if len(self._segments) == 1 or oldest.last_index > keep_after:
            return False
        await self._remove([oldest])
        self._segments.remove(oldest)
        _disk_bytes.set(sum(segment.size for segment in self._segments))
        self._extents.drop_before(self._segments[0].sequence)
        return True

    async def _remove(self, segments: Sequence[Segment]) -> None:
        for segment in segments:  # oldest first: whatever a crash leaves has no gap
            await self._disk.remove(segment.name)

    async def _replay(self, memory_bytes: int) -> Replay:
        names = await self._disk.names()
        sequences = sorted(s for name in names if (s := segment_sequence(name)) is not None)
        replay = Replay(memory_bytes=memory_bytes)
        if SNAPSHOT_NAME in names:
            replay.feed_snapshot(await self._disk.read(SNAPSHOT_NAME))
        for sequence in sequences:
            data = await self._disk.read(segment_name(sequence))
            torn = replay.feed_segment(sequence, data, last=sequence == sequences[-1])
            if torn is not None:
                await self._repair(torn)
        return replay

    async def _repair(self, torn: TornTail) -> None:
        log.warning(
            "repaired a write that a crash cut off; it was never acknowledged",
            file=torn.name,
            offset=torn.offset,
            bytes=torn.size,
        )
        if torn.unfinished:
            await self._disk.remove(torn.name)
        else:
            await self._disk.write(torn.name, torn.offset, bytes(torn.size))


class SnapshotSaving:
    """A snapshot of this node on its way to the disk; made by `Wal.begin_saving`.

    Each step is one change of the disk. The snapshot that was there stays until all of the new one
    is durable, and the log until then. A crash between any two steps leaves the older snapshot with
    the whole log, or the newer one with more of the log than it needs.
    """

    def __init__(self, wal: Wal, disk: Disk, snapshot: Snapshot, keep_after: int) -> None:
        self._wal = wal
        self._disk = disk
        self._snapshot = snapshot
        self._keep_after = min(keep_after, snapshot.index)
        self._parts = encode_snapshot(snapshot)
        self._offset = 0
        self._published = False

    async def step(self) -> bool:
        """Do a part; return whether there may be more to do.

        Nothing is done once there is a snapshot that is not older. Raises `StorageFailed`.
        *Cancellation*: as of every call of the log.
        """
        with self._wal._changing_beside():
            if self._published:
                newest = self._wal._base_index == self._snapshot.index
                return newest and await self._wal._drop_oldest(self._keep_after)
            if self._snapshot.index <= self._wal._base_index:
                return False
            part = next(self._parts, None)
            if part is None:
                await self._publish()
            else:
                await self._disk.stage(SNAPSHOT_NAME, self._offset, part)
                self._offset += len(part)
            return True

    async def _publish(self) -> None:
        assert self._wal._contains(self._snapshot), (
            "a snapshot is taken of entries that are in the log"
        )
        await self._disk.publish(SNAPSHOT_NAME)
        self._published = True
        self._wal._base_index = self._snapshot.index
        self._wal._outline.rebase(self._snapshot.index)
