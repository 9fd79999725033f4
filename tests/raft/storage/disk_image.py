"""What a disk holds of one Raft core, as values.

Enters: what the core wants to be durable. Leaves: what a restart would find. Never: bytes, files.
"""

from dataclasses import dataclass, field

from noti.raft.core.events import EntriesRead, Persist, PersistSnapshot, ReadEntries
from noti.raft.core.log import Tail
from noti.raft.core.messages import Entry, EntryKind, HardState, Snapshot
from noti.raft.core.outline import Outline


@dataclass
class DiskImage:
    """What survives a crash of one node."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = field(default_factory=list)
    replaced: dict[int, Entry] = field(default_factory=dict)
    """Entries in whose place another leader's were written: their bytes are still there."""

    def carry_out(self, order: Persist | PersistSnapshot) -> None:
        if isinstance(order, Persist):
            self.write(order)
        else:
            self.install(order.snapshot)

    def write(self, order: Persist) -> None:
        if order.hard_state is not None:
            self.hard_state = order.hard_state
        if order.entries:
            first = order.entries[0].index
            self.replaced |= {entry.index: entry for entry in self.entries if entry.index >= first}
            self.entries = [entry for entry in self.entries if entry.index < first]
            self.entries.extend(order.entries)

    def install(self, snapshot: Snapshot) -> None:
        keeps = any(
            entry.index == snapshot.index and entry.term == snapshot.term for entry in self.entries
        )
        self.entries = [e for e in self.entries if e.index > snapshot.index] if keeps else []
        self.snapshot = snapshot

    def read(self, order: ReadEntries, *, stale: bool = False) -> EntriesRead:
        """Return what a reader gets; when `stale`, of an entry that was replaced the older one."""
        found: list[Entry] = []
        size = 0
        for entry in self.entries:
            if not order.first <= entry.index <= order.last:
                continue
            size += entry.size_bytes
            if found and size > order.bytes_max:
                break
            found.append(self.replaced.get(entry.index, entry) if stale else entry)
        whole = bool(found) and found[0].index == order.first
        return EntriesRead(order.reader, tuple(found) if whole else ())

    def tail(self, held: int) -> Tail:
        """Return what a restart knows of the log, with the last `held` entries."""
        snapshot, entries = self.snapshot, self.entries
        covered = snapshot.index if snapshot else 0
        outline = Outline(covered, snapshot.term if snapshot else 0)
        if entries and entries[0].index <= covered:
            first = entries[0]
            outline = Outline() if first.index == 1 else Outline(first.index, first.term)
        for entry in entries:
            if entry.index > outline.last_index:
                outline.append(entry)
        here = [entry for entry in entries if entry.index > outline.base_index]
        changes = tuple(entry for entry in here if entry.kind is EntryKind.CONFIGURATION)
        return Tail(outline, changes, tuple(here[len(here) - min(held, len(here)) :]))

    def entry_at(self, index: int) -> Entry:
        """Return an entry that is there."""
        return self.entries[index - self.entries[0].index]

    def term_at(self, index: int) -> int | None:
        position = index - self.entries[0].index if self.entries else -1
        if 0 <= position < len(self.entries):
            return self.entries[position].term
        return self.snapshot.term if self.snapshot and self.snapshot.index == index else None

    def holds(self, index: int, term: int) -> bool:
        covered = self.snapshot is not None and self.snapshot.index >= index
        return covered or self.term_at(index) == term

    def last_index(self) -> int:
        if self.entries:
            return self.entries[-1].index
        return self.snapshot.index if self.snapshot else 0
