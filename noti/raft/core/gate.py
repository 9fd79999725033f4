"""Persist before speaking: holds messages back until what they say is on disk.

Enters: new entries, the hard state, messages to send, a leader's snapshot, completions.
Leaves: orders to persist, messages that may leave, up to where the log is on disk, since when the
disk hangs. Never: I/O; decides nothing about consensus.

Batches are numbered 1, 2, 3, … in the order in which the driver must carry them out. A message
waits for the batch that holds the term and vote it speaks with (Raft figure 2: "updated on stable
storage before responding"). What an append answer vouches for is limited by `durable` instead, so
that heartbeats never wait for a disk.

A cloud volume can give neither success nor error for a minute. Nothing but time shows that: the
disk hangs when it owes an answer and has given none for two election timeouts.
"""

import math
from collections import deque
from collections.abc import Sequence

from noti.raft.core.events import Persist, PersistSnapshot, RestoreSnapshot
from noti.raft.core.messages import Entry, HardState, Message, NodeId

PATIENCE_ELECTION_TIMEOUTS = 2.0
"""A sync that takes as long as an election is slow; one that takes two holds everybody up for
longer than a change of leader would."""


class Gate:
    """What is on its way to disk, and what waits for it."""

    def __init__(self, saved: HardState, *, durable: int, election_timeout_s: float) -> None:
        """Start with the hard state and the log, up to `durable`, that the disk holds."""
        self.durable = durable
        """The log is on our disk up to here."""
        self.installing: RestoreSnapshot | None = None
        """A leader's snapshot on its way to the disk."""
        self.hung_since: float | None = None
        """Since when an answer is missing, once that is too long; None while the disk works."""
        self.look_at = math.inf
        """When `look` has something to find out."""
        self._saved = saved
        self._hard_state_batch = 0
        self._batch = 0
        self._persisted = 0
        self._snapshot_batch = 0
        self._entries: list[Entry] = []
        self._ends: deque[tuple[int, int]] = deque()  # batch, index of its last entry
        self._waiting: deque[tuple[int, NodeId, Message]] = deque()
        self._patience_s = PATIENCE_ELECTION_TIMEOUTS * election_timeout_s

    def add_entries(self, entries: Sequence[Entry]) -> None:
        """Entries were appended to the log and must go to disk."""
        self._entries.extend(entries)

    def drop_entries_from(self, index: int) -> None:
        """Entries from `index` on were truncated away.

        Those not yet ordered need not go to disk. Those on their way will be overwritten by a later
        batch, so their completion says nothing: even if the same entries came back meanwhile, the
        overwriting one is between them and the disk (the ABA race of asynchronous writes).
        """
        self._entries = [entry for entry in self._entries if entry.index < index]
        self._ends = deque(end for end in self._ends if end[1] < index)
        self.durable = min(self.durable, index - 1)

    def admit(
        self, to: NodeId, message: Message, term: int, voted_for: NodeId | None, *, hold: bool
    ) -> bool:
        """Return whether a message with this term and vote behind it may leave now.

        Otherwise it is kept until it may.

        With `hold` it waits for the hard state's batch even if that is already on its way.
        """
        changed = term != self._saved.term or voted_for != self._saved.voted_for
        needed = self._batch + 1 if changed else self._hard_state_batch
        if needed <= self._persisted and not hold:
            return True
        self._waiting.append((needed, to, message))
        return False

    def order(self, term: int, voted_for: NodeId | None, now: float) -> Sequence[Persist]:
        """Return what must go to disk since the last order: one batch, or none."""
        changed = term != self._saved.term or voted_for != self._saved.voted_for
        if not changed and not self._entries:
            return ()
        self._expect(now)
        if changed:
            self._saved = HardState(term, voted_for)
            self._hard_state_batch = self._batch
        if self._entries:
            self._ends.append((self._batch, self._entries[-1].index))
        entries, self._entries = tuple(self._entries), []
        return (Persist(self._batch, self._saved if changed else None, entries),)

    def install(self, whole: RestoreSnapshot, now: float) -> PersistSnapshot:
        """Return the order for a leader's snapshot; what else waits must be ordered before."""
        self._expect(now)
        self._snapshot_batch, self.installing = self._batch, whole
        return PersistSnapshot(self._batch, whole.snapshot)

    def persisted(self, batch: int, now: float) -> list[tuple[NodeId, Message]]:
        """Note a completion; return the messages that may leave."""
        assert batch <= self._batch
        if batch >= self._persisted:  # one that was reported says that the next one gets on
            self._persisted = batch
            self.hung_since = None
            self.look_at = math.inf if batch == self._batch else now + self._patience_s
        while self._ends and self._ends[0][0] <= batch:
            self.durable = max(self.durable, self._ends.popleft()[1])
        ready = []
        while self._waiting and self._waiting[0][0] <= batch:
            _, to, message = self._waiting.popleft()
            ready.append((to, message))
        return ready

    def installed(self, batch: int) -> RestoreSnapshot | None:
        """Return the snapshot that is on disk by this batch, once."""
        if self.installing is None or batch < self._snapshot_batch:
            return None
        whole, self.installing = self.installing, None
        return whole

    def look(self, now: float) -> None:
        """Judge the disk, unless nobody was here to receive its answer.

        A process that was stopped for a while finds out late, and the answer may lie ready.
        """
        if now < self.look_at:
            return
        if now - self.look_at > self._patience_s / 2:
            self.look_at = now + self._patience_s
        else:
            self.hung_since, self.look_at = self.look_at - self._patience_s, math.inf

    def _expect(self, now: float) -> None:
        """Number a batch, and wait for the disk's answer, unless that is waited for already."""
        if self._batch == self._persisted:
            self.look_at = now + self._patience_s
        self._batch += 1
