"""Rebuilds what a node remembers from the files of its log.

Enters: the snapshot file, then every segment file in order. Leaves: hard state, snapshot, the
log, and what to repair. Never: I/O; a repair of anything that a crash cannot explain; all entries
in memory, as they may be more than it holds.

Rules of replay: the last hard state counts; an entry replaces the entry with its index and all
after it; a segment must begin where the one before it ended, unless it says that the log begins
anew there.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import NoReturn

from noti.errors import MessageInvalid, StorageCorrupt
from noti.raft.core.config import LOG_MEMORY_BYTES
from noti.raft.core.log import Tail, size_of
from noti.raft.core.messages import Entry, EntryKind, HardState, Snapshot
from noti.raft.core.outline import Outline
from noti.raft.core.records import SegmentStart, scan_records
from noti.raft.storage.segments import (
    FRAME_OVERHEAD_BYTES,
    Extents,
    Frame,
    Segment,
    TailState,
    read_segment,
    segment_name,
)
from noti.raft.storage.snapshot_file import decode_snapshot

SNAPSHOT_NAME = "snapshot"


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a node knew when it stopped."""

    hard_state: HardState
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    """The last of the log, consecutive."""
    outline: Outline = field(default_factory=Outline, compare=False)
    """Of all of the log. Its base is at most the snapshot's index (0 without a snapshot)."""
    configurations: tuple[Entry, ...] = field(default=(), compare=False)
    """All entries of the log that hold one."""

    @property
    def tail(self) -> Tail:
        """The log, as a core takes it."""
        return Tail(self.outline, self.configurations, self.entries)


@dataclass(frozen=True, slots=True)
class TornTail:
    """What a crash left of a write that was never reported."""

    name: str
    offset: int
    size: int
    """Bytes to be zeroed from `offset`."""
    unfinished: bool
    """The segment holds nothing else: remove the file instead."""


@dataclass(slots=True)
class Replay:
    """Feed it the snapshot and all segments in order, then ask for `recovered`."""

    snapshot: Snapshot | None = None
    hard_state: HardState = field(default_factory=HardState)
    segments: list[Segment] = field(default_factory=list)
    """Segments that count, oldest first."""
    obsolete: list[Segment] = field(default_factory=list)
    """Segments that a fresh one made superfluous, oldest first."""
    end: int = 0
    """Where the next frame goes in the last segment."""
    last_checksum: int = 0
    """Of the last frame; the next segment repeats it."""
    memory_bytes: int = LOG_MEMORY_BYTES
    """How much of the entries to keep."""
    extents: Extents = field(default_factory=Extents)
    """Where the entries are."""
    _outline: Outline = field(default_factory=Outline)
    """Of the log that is on disk; the term of its base may not be known."""
    _held: deque[Entry] = field(default_factory=deque)
    """The newest entries."""
    _held_bytes: int = 0
    _configurations: list[Entry] = field(default_factory=list)

    def feed_snapshot(self, content: bytes) -> None:
        """Take the snapshot file; raises `StorageCorrupt`."""
        try:
            self.snapshot = decode_snapshot(content)
        except MessageInvalid as error:
            reject(SNAPSHOT_NAME, 0, str(error))

    def feed_segment(self, sequence: int, data: bytes, *, last: bool) -> TornTail | None:
        """Take the content of one segment file; return what must be repaired.

        Raises `StorageCorrupt`.
        """
        name = segment_name(sequence)
        previous = self.segments[-1] if self.segments else None
        if previous is not None and sequence != previous.sequence + 1:
            reject(segment_name(previous.sequence + 1), 0, "the segment is missing")
        content = read_segment(sequence, data)
        if content.tail is TailState.DAMAGED or (content.tail is TailState.TORN and not last):
            reject(name, content.end, "damaged bytes that no crash leaves behind")
        if not content.frames:
            may_be_unfinished = last and (previous or (sequence == 1 and not self.snapshot))
            if not may_be_unfinished:
                reject(name, 0, "the segment is empty")
            return TornTail(name, 0, content.written_end, unfinished=True)
        for position, frame in enumerate(content.frames):
            self._take_frame(sequence, len(data), frame, first=position == 0)
            self.last_checksum = frame.checksum
        self.end = content.end
        if content.tail is TailState.TORN:
            return TornTail(name, content.end, content.written_end - content.end, unfinished=False)
        return None

    def recovered(self) -> Recovered:
        """Return what all files together say.

        Raises `StorageCorrupt` when something between them is missing.
        """
        snapshot_index = self.snapshot.index if self.snapshot else 0
        if self.snapshot and not self.segments:
            reject(segment_name(1), 0, "there is a snapshot, and all segments are missing")
        base = self._outline.base_index
        if base > snapshot_index:
            reject(
                self.segments[0].name,
                0,
                f"entries {snapshot_index + 1} to {base} are in no older segment or snapshot",
            )
        if self.snapshot and self.log_is_stale():
            outline = Outline(self.snapshot.index, self.snapshot.term)
            return Recovered(self.hard_state, self.snapshot, (), outline)
        outline = self._outline.copy()
        if 0 < base < snapshot_index:
            outline.rebase(base + 1)  # the first entry of which the term is known
        changes = tuple(self._configurations)
        return Recovered(self.hard_state, self.snapshot, tuple(self._held), outline, changes)

    def log_is_stale(self) -> bool:
        """Whether the log lacks the snapshot's last entry, so that all of it is superseded.

        That is how a crash leaves it between the two steps of installing a leader's snapshot.
        """
        snapshot = self.snapshot
        if snapshot is None or snapshot.index == self._outline.base_index:
            return False
        return self._outline.term_at(snapshot.index) != snapshot.term

    def _take_frame(self, sequence: int, size: int, frame: Frame, *, first: bool) -> None:
        name = segment_name(sequence)
        first_entry: int | None = None
        try:
            for position, (_, record) in enumerate(scan_records(frame.records)):
                if isinstance(record, SegmentStart) != (first and position == 0):
                    reject(name, frame.offset, "a segment must begin, and only once, at its start")
                match record:
                    case SegmentStart():
                        self._take_start(record, Segment(sequence, size, record.base_index))
                    case HardState():
                        self.hard_state = record
                    case Entry():
                        self._take_entry(name, frame.offset, record)
                        first_entry = min(first_entry or record.index, record.index)
        except MessageInvalid as error:
            reject(name, frame.offset, str(error))
        if first_entry is not None:
            frame_bytes = len(frame.records) + FRAME_OVERHEAD_BYTES
            place = (sequence, frame.offset, frame_bytes)
            self.extents.add(first_entry, self._last_index, *place)

    def _take_start(self, start: SegmentStart, segment: Segment) -> None:
        if start.sequence != segment.sequence:
            reject(segment.name, 0, f"the file holds segment {start.sequence}")
        if start.fresh:
            self.obsolete += self.segments
            self.segments.clear()
        elif self.segments and start.base_index != self._last_index:
            reject(
                segment.name,
                0,
                f"the segment continues after entry {start.base_index}, "
                f"but the log before it ends at {self._last_index}",
            )
        elif self.segments and start.previous_checksum != self.last_checksum:
            reject(
                segment.name,
                0,
                f"the segment continues another end of {self.segments[-1].name}: "
                "writes at its end were lost, or it was replaced",
            )
        if not self.segments:
            self._begin(start.base_index)
        self.segments.append(segment)

    def _take_entry(self, name: str, offset: int, entry: Entry) -> None:
        if entry.index > self._last_index + 1:
            reject(name, offset, f"entry {entry.index} follows entry {self._last_index}")
        if entry.index <= self._outline.base_index:
            self._begin(entry.index - 1)
        while self._held and self._held[-1].index >= entry.index:
            self._held_bytes -= size_of(self._held.pop())
        while self._configurations and self._configurations[-1].index >= entry.index:
            self._configurations.pop()
        self._outline.truncate_from(entry.index)
        self._outline.append(entry)
        self._held.append(entry)
        self._held_bytes += size_of(entry)
        while self._held_bytes > self.memory_bytes:
            self._held_bytes -= size_of(self._held.popleft())
        if entry.kind is EntryKind.CONFIGURATION:
            self._configurations.append(entry)
        segment = self.segments[-1]
        segment.last_index = max(segment.last_index, entry.index)

    def _begin(self, base_index: int) -> None:
        """Begin the log anew; the term of its base is known only if it is the snapshot's."""
        known = self.snapshot is not None and self.snapshot.index == base_index
        self._outline = Outline(base_index, self.snapshot.term if known and self.snapshot else 0)
        self._held.clear()
        self._held_bytes = 0
        self._configurations.clear()

    @property
    def _last_index(self) -> int:
        return self._outline.last_index


def reject(name: str, offset: int, reason: str) -> NoReturn:
    """Raise `StorageCorrupt` about a place in a file, with what to do."""
    raise StorageCorrupt(
        f"{name} at byte {offset}: {reason}; delete this node's data directory and let the node "
        "join again as a new one (an older copy has forgotten what this node acknowledged)"
    )
