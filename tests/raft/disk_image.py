"""What a disk holds of one Raft core, as values.

Enters: what the core wants to be durable. Leaves: what a restart would find. Never: bytes, files.
"""

from dataclasses import dataclass, field

from noti.raft.events import Persist, PersistSnapshot
from noti.raft.messages import Entry, HardState, Snapshot


@dataclass
class DiskImage:
    """What survives a crash of one node."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = field(default_factory=list)

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
            self.entries = [entry for entry in self.entries if entry.index < first]
            self.entries.extend(order.entries)

    def install(self, snapshot: Snapshot) -> None:
        keeps = any(
            entry.index == snapshot.index and entry.term == snapshot.term for entry in self.entries
        )
        self.entries = [e for e in self.entries if e.index > snapshot.index] if keeps else []
        self.snapshot = snapshot

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
