"""Has entries read back that memory let go: for followers that lag, and for a long replay.

Enters: who needs entries from where on; what the disk held. Leaves: orders to read; entries that
are still those of the log. Never: a second read for somebody whose first is under way, so that a
follower costs no more memory than one message; trust in what was read.

While a read is under way the log may be truncated, compacted, or replaced by a snapshot. Index and
term name an entry of Raft, whichever node leads: what still has the term that the log has there is
it. All but the base: the log knows its term and nothing of the entry before, which a message has to
name.
"""

from collections.abc import Callable, Sequence

from noti.raft.core.events import ReadEntries
from noti.raft.core.log import RaftLog
from noti.raft.core.messages import INDEX_MAX, Entry, NodeId


class Reading:
    """What is on its way back from the disk."""

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
        """Order entries from `first` on, which memory does not hold, unless some are on their
        way to this reader."""
        if reader not in self._under_way:
            self._under_way[reader] = first
            last = self._log.held_from - 1
            self._order(ReadEntries(reader, first, last, self._bytes_max))

    def take(self, reader: NodeId | None, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Return those of the entries that came which are still in the log, without a gap; none
        when the disk does not have them any more."""
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
        """Return what to apply: entries `first` to `last`, or as many as are at hand, in memory or
        just `read`; none if they have to be ordered first."""
        if read:
            return tuple(e for e in read if e.index <= last) if read[0].index == first else ()
        if first >= self._log.held_from:
            return self._log.slice(first, last, bytes_max=INDEX_MAX)
        self.want(None, first)
        return ()
