"""The log as the core sees it: the outline of all of it, its newest entries, and what is read back.

Enters: entries and snapshots; what the disk held. Leaves: terms, slices, conflicts, orders to read.
Never: disk, encoding, decisions about commit.

Memory holds the entries that are not on disk yet, and of the others the newest, up to a bound in
bytes; older ones are on disk, and what is needed of them is read back (`Reading`). Terms and
configurations of all of them are here.

Invariants: indexes have no gap; terms never fall; nothing at or below the snapshot is ever changed.
Some entries below the newest snapshot are kept for followers that lag.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from noti.raft.core.config import LOG_KEEP_BYTES, LOG_MEMORY_BYTES, RaftConfig
from noti.raft.core.events import ReadEntries, SaveSnapshot
from noti.raft.core.membership import Configuration, decode_configuration, encode_configuration
from noti.raft.core.messages import INDEX_MAX, Entry, EntryKind, NodeId, Snapshot
from noti.raft.core.outline import Outline

ENTRY_OVERHEAD_BYTES = 250
"""What an entry takes beside its data (measured on CPython 3.11): without it, a million of empty
ones would be taken for nothing."""


def size_of(entry: Entry) -> int:
    """Return what an entry takes in memory, bytes."""
    return entry.size_bytes + ENTRY_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Tail:
    """A log that is on disk, of which memory gets no more than the end."""

    outline: Outline
    """Of all of it. Its base is not above the snapshot, and its last index not below."""
    configurations: tuple[Entry, ...]
    """All of its entries that hold one."""
    entries: tuple[Entry, ...]
    """The last of its entries."""


class RaftLog:
    """Entries after a base point, and the configurations found in them."""

    def __init__(
        self,
        snapshot: Snapshot | None,
        entries: Sequence[Entry] | Tail,
        *,
        memory_bytes: int = LOG_MEMORY_BYTES,
    ) -> None:
        """Rebuild from disk, without entries that the snapshot covers.

        They stay when they come as the `Tail` of all that are on disk.
        """
        self._memory_bytes = memory_bytes
        self._reset(snapshot)
        covered = self._outline.base_index
        if isinstance(entries, Tail):
            self._follow(entries.outline.copy())
            self.held_from = self._outline.last_index + 1 - len(entries.entries)
            self._held.update((entry.index, entry) for entry in entries.entries)
            self.held_bytes = sum(map(size_of, entries.entries))
            self._note_configurations([e for e in entries.configurations if e.index > covered])
            self._look_at_end()
        else:
            self.append([entry for entry in entries if entry.index > covered])

    def _reset(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self._follow(Outline(snapshot.index, snapshot.term) if snapshot else Outline())
        self._held: dict[int, Entry] = {}
        """Entries by index, without a gap up to the last."""
        self.held_from = self._outline.last_index + 1
        """Index of the first entry in memory (one above the last when none is)."""
        self.held_bytes = 0
        """What the entries in memory take."""
        self._base_configuration = (
            decode_configuration(snapshot.configuration) if snapshot else Configuration()
        )
        self._configurations: list[tuple[int, Configuration]] = []
        self._look_at_end()

    def _follow(self, outline: Outline) -> None:
        self._outline = outline
        self.term_at = outline.term_at
        """Return the term of the entry at an index, several times for each message.

        None when it is compacted away or not there yet.
        """

    def _look_at_end(self) -> None:
        """Set what is asked for with every message, after a change."""
        self.last_index = self._outline.last_index
        """Index of the last entry, or of the snapshot."""
        self.last_term = self._outline.last_term
        """Its term."""
        newest = self._configurations[-1] if self._configurations else (0, self._base_configuration)
        self.configuration_index, self.configuration = newest
        """The newest configuration in the log, committed or not (thesis 4.1), and the index of its
        entry; 0 when it came with a snapshot."""

    @property
    def first_index(self) -> int:
        """Index of the first entry still here or on disk (one above the last when none is)."""
        return self._outline.base_index + 1

    @property
    def snapshot_index(self) -> int:
        """Index of the newest snapshot; 0 when there is none."""
        return self.snapshot.index if self.snapshot else 0

    @property
    def size_bytes(self) -> int:
        """Data of the entries here or on disk, about, and of some that are gone."""
        return self._outline.size_bytes

    def configuration_at(self, index: int) -> Configuration:
        """Return the configuration in force at `index`."""
        for position, configuration in reversed(self._configurations):
            if position <= index:
                return configuration
        return self._base_configuration

    def slice(self, first: int, last: int, *, bytes_max: int) -> tuple[Entry, ...]:
        """Return entries `first`..`last`, which memory holds, up to `bytes_max` of data.

        At least one, if there is one.
        """
        assert first >= self.held_from, "what was let go must be read back"
        size = 0
        taken: list[Entry] = []
        for index in range(first, min(last, self.last_index) + 1):
            entry = self._held[index]
            size += entry.size_bytes
            if taken and size > bytes_max:
                break
            taken.append(entry)
        return tuple(taken)

    def holds_too_much(self) -> bool:
        """Whether memory should let something go."""
        return self.held_bytes > self._memory_bytes

    def let_go(self, durable: int) -> None:
        """Forget the oldest entries that are on disk, as long as memory holds too much."""
        while self.holds_too_much() and self.held_from <= durable:
            self._drop(self.held_from)
            self.held_from += 1

    def _drop(self, index: int) -> None:
        self.held_bytes -= size_of(self._held.pop(index))

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
            self._outline.append(entry)
            self._held[entry.index] = entry
            self.held_bytes += size_of(entry)
            self.last_index, self.last_term = entry.index, entry.term
            if entry.kind is EntryKind.CONFIGURATION:
                self._note_configurations([entry])
                self._look_at_end()

    def _note_configurations(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._configurations.append((entry.index, decode_configuration(entry.data)))

    def truncate_from(self, index: int) -> None:
        """Forget the entry at `index` and all after it, and the configurations in them."""
        for gone in range(max(index, self.held_from), self.last_index + 1):
            self._drop(gone)
        self._outline.truncate_from(index)
        self.held_from = min(self.held_from, index)
        while self._configurations and self._configurations[-1][0] >= index:
            self._configurations.pop()
        self._look_at_end()

    def last_index_with_term_at_most(self, index: int, term: int) -> int:
        """Return the highest index <= `index` whose term is <= `term`: where to probe next.

        Skips a whole wrong term in one round trip (etcd's hint; Raft 5.3, last paragraphs).
        """
        return self._outline.last_index_with_term_at_most(index, term)

    def snapshot_of(self, index: int, pieces: tuple[bytes, ...]) -> Snapshot:
        """Return our own state at `index` with what the log says of it: term and configuration."""
        term = self.term_at(index)
        assert term is not None, "an applied entry is always in the log"
        return Snapshot(index, term, encode_configuration(self.configuration_at(index)), pieces)

    def save(self, index: int, pieces: tuple[bytes, ...], config: RaftConfig) -> SaveSnapshot:
        """Take over our own state at `index`, and return the order for what then may go."""
        snapshot = self.snapshot_of(index, pieces)
        self.compact(snapshot, keep_entries=config.keep_entries, keep_bytes=config.keep_bytes)
        return SaveSnapshot(snapshot, drop_through=self.first_index - 1)

    def compact(
        self, snapshot: Snapshot, *, keep_entries: int, keep_bytes: int = LOG_KEEP_BYTES
    ) -> None:
        """Take over a snapshot of our own state, and keep the last `keep_entries` below it.

        They are kept as long as the whole log has no more than about `keep_bytes`.
        """
        assert snapshot.index <= self.last_index
        assert self.snapshot is None or snapshot.index >= self.snapshot.index
        outline = self._outline
        wanted = max(snapshot.index - keep_entries, outline.base_of_last(keep_bytes))
        new_base = max(outline.base_index, min(snapshot.index, wanted))
        for gone in range(self.held_from, new_base + 1):
            self._drop(gone)
        self.held_from = max(self.held_from, new_base + 1)
        outline.rebase(new_base)
        self._base_configuration = decode_configuration(snapshot.configuration)
        self._configurations = [
            (index, configuration)
            for index, configuration in self._configurations
            if index > snapshot.index
        ]
        self.snapshot = snapshot
        self._look_at_end()

    def install(self, snapshot: Snapshot) -> None:
        """Replace the log by a leader's snapshot, but keep a suffix that continues the snapshot."""
        if self.term_at(snapshot.index) == snapshot.term and snapshot.index <= self.last_index:
            self.compact(snapshot, keep_entries=0)
            return
        self._reset(snapshot)


class Reading:
    """Has entries read back that memory let go: for followers that lag, and for a long replay.

    Nobody has two reads under way, so a follower costs no more memory than one message. Meanwhile
    the log may be truncated, compacted, or replaced by a snapshot. Index and term name an entry of
    Raft, whichever node leads: what still has the term that the log has there is it. All but the
    base: the log knows its term and nothing of the entry before, which a message has to name.
    """

    def __init__(
        self, log: RaftLog, *, bytes_max: int, order: Callable[[ReadEntries], None]
    ) -> None:
        """Read up to `bytes_max` of data at once, and at least one entry."""
        self._log = log
        self._bytes_max = bytes_max
        self._order = order
        self._under_way: dict[NodeId | None, int] = {}
        """For whom, and from which index on."""

    def want(self, reader: NodeId | None, first: int) -> None:
        """Order entries from `first` on, which memory does not hold.

        Does nothing while some are on their way to this reader.
        """
        if reader not in self._under_way:
            self._under_way[reader] = first
            last = self._log.held_from - 1
            self._order(ReadEntries(reader, first, last, self._bytes_max))

    def take(self, reader: NodeId | None, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return those of the entries that came which are still in the log, without a gap.

        None when the disk does not have them any more.
        """
        index = self._under_way.pop(reader)
        if index < self._log.first_index:
            return ()
        good = 0
        for entry in entries:
            if entry.index != index + good or self._log.term_at(entry.index) != entry.term:
                break
            good += 1
        return tuple(entries[:good])

    def due(self, first: int, last: int, read: Sequence[Entry] | None) -> tuple[Entry, ...]:
        """Return what to apply: entries `first` to `last`, or as many as are at hand.

        At hand is what is in memory or just `read`; none if they have to be ordered first.
        """
        if read:
            return tuple(e for e in read if e.index <= last) if read[0].index == first else ()
        if first >= self._log.held_from:
            return self._log.slice(first, last, bytes_max=INDEX_MAX)
        self.want(None, first)
        return ()
