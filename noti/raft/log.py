"""The log as the core sees it: in memory, from the last snapshot on.

Enters: entries and snapshots. Leaves: terms, slices, conflicts. Never: disk, encoding, decisions
about commit.

Invariants: `entries[i].index == first_index + i`; terms never fall; nothing at or below the
snapshot is ever changed. A few entries below the newest snapshot may be kept for followers that
lag.
"""

from collections.abc import Sequence

from noti.raft.membership import Configuration, decode_configuration, encode_configuration
from noti.raft.messages import Entry, EntryKind, NodeId, Snapshot


class RaftLog:
    """Entries after a base point, and the configurations found in them."""

    def __init__(self, snapshot: Snapshot | None, entries: Sequence[Entry]) -> None:
        """Rebuild from disk; entries that the snapshot covers are dropped."""
        self._reset(snapshot)
        self.append([entry for entry in entries if entry.index > self._base_index])

    def _reset(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self._entries: list[Entry] = []
        self._base_index = snapshot.index if snapshot else 0
        self._base_term = snapshot.term if snapshot else 0
        self._base_configuration = (
            decode_configuration(snapshot.configuration) if snapshot else Configuration()
        )
        self._configurations: list[tuple[int, Configuration]] = []

    @property
    def first_index(self) -> int:
        """Index of the first entry still held (one above the last when none is)."""
        return self._base_index + 1

    @property
    def last_index(self) -> int:
        """Index of the last entry, or of the snapshot."""
        return self._base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        """Term of the last entry, or of the snapshot."""
        return self._entries[-1].term if self._entries else self._base_term

    @property
    def configuration(self) -> Configuration:
        """The newest configuration in the log, committed or not (thesis 4.1)."""
        return self._configurations[-1][1] if self._configurations else self._base_configuration

    @property
    def configuration_index(self) -> int:
        """Index of the newest configuration's entry; 0 when it came with a snapshot."""
        return self._configurations[-1][0] if self._configurations else 0

    def configuration_at(self, index: int) -> Configuration:
        """Return the configuration in force at `index`."""
        for position, configuration in reversed(self._configurations):
            if position <= index:
                return configuration
        return self._base_configuration

    def term_at(self, index: int) -> int | None:
        """Return the term of the entry at `index`.

        None when it is compacted away or not there yet.
        """
        if self._base_index < index <= self.last_index:
            return self._entries[index - self._base_index - 1].term
        return self._base_term if index == self._base_index else None

    def slice(self, first: int, last: int, bytes_max: int) -> tuple[Entry, ...]:
        """Return entries `first`..`last`, at least one if there is one, else up to `bytes_max` of
        data.
        """
        assert first > self._base_index
        end = min(last, self.last_index)
        size = 0
        taken: list[Entry] = []
        for entry in self._entries[first - self._base_index - 1 : end - self._base_index]:
            size += len(entry.data)
            if taken and size > bytes_max:
                break
            taken.append(entry)
        return tuple(taken)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate with that last entry may get our vote (Raft 5.4.1).

        A node that knows no configuration has no vote to give: it might belong to another cluster.
        """
        return bool(self.configuration.voters) and (last_term, last_index) >= (
            self.last_term,
            self.last_index,
        )

    def may_campaign(self, node_id: NodeId, commit: int) -> bool:
        """Whether a node votes, or did so before a change that is not known to be committed.

        Without the second, a leader that crashes while it removes itself can leave a log that is
        the longest, that nobody else can vote against, and that nobody may campaign with (thesis
        4.2.2, figure 4.6).
        """
        if self.configuration.is_voter(node_id):
            return True
        before = self.configuration_at(self.configuration_index - 1)
        return self.configuration_index > commit and before.is_voter(node_id)

    def news_in(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Return a leader's entries from the first on that is not here, or is here otherwise."""
        for position, entry in enumerate(entries):
            if entry.index >= self.first_index and self.term_at(entry.index) != entry.term:
                return entries[position:]
        return ()

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries directly after the last one."""
        for entry in entries:
            assert entry.index == self.last_index + 1, "log entries must be contiguous"
            assert entry.term >= self.last_term, "terms never fall along the log"
            self._entries.append(entry)
            if entry.kind is EntryKind.CONFIGURATION:
                self._configurations.append((entry.index, decode_configuration(entry.data)))

    def truncate_from(self, index: int) -> None:
        """Forget the entry at `index` and all after it, and the configurations in them."""
        assert index > self._base_index
        del self._entries[index - self._base_index - 1 :]
        while self._configurations and self._configurations[-1][0] >= index:
            self._configurations.pop()

    def last_index_with_term_at_most(self, index: int, term: int) -> int:
        """Return the highest index <= `index` whose term is <= `term`: where to probe next.

        Skips a whole wrong term in one round trip (etcd's hint; Raft 5.3, last paragraphs).
        """
        index = min(index, self.last_index)
        while index > self._base_index and (self.term_at(index) or 0) > term:
            index -= 1
        return index

    def snapshot_of(self, index: int, data: bytes) -> Snapshot:
        """Return our own state at `index` with what the log says of it: term and configuration."""
        term = self.term_at(index)
        assert term is not None, "an applied entry is always in the log"
        return Snapshot(index, term, encode_configuration(self.configuration_at(index)), data)

    def compact(self, snapshot: Snapshot, keep_entries: int) -> None:
        """Take over a snapshot of our own state, keeping the last `keep_entries` below it."""
        assert snapshot.index <= self.last_index
        assert self.snapshot is None or snapshot.index >= self.snapshot.index
        new_base = max(self._base_index, snapshot.index - keep_entries)
        new_base_term = self.term_at(new_base)
        assert new_base_term is not None
        del self._entries[: new_base - self._base_index]
        self._base_index, self._base_term = new_base, new_base_term
        self._base_configuration = decode_configuration(snapshot.configuration)
        self._configurations = [
            (index, configuration)
            for index, configuration in self._configurations
            if index > snapshot.index
        ]
        self.snapshot = snapshot

    def install(self, snapshot: Snapshot) -> None:
        """Replace the log by a leader's snapshot, keeping the suffix if it continues the
        snapshot.
        """
        if self.term_at(snapshot.index) == snapshot.term and snapshot.index <= self.last_index:
            self.compact(snapshot, keep_entries=0)
            return
        self._reset(snapshot)
