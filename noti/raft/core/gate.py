"""Persist before speaking: holds messages back until what they say is on disk.

Enters: new entries, the hard state, messages to send, completions. Leaves: persist orders and
messages that may leave. Never: I/O; decides nothing about consensus.

Batches are numbered 1, 2, 3, … in the order in which the driver must carry them out. A message
waits for the batch that holds the term and vote it speaks with (Raft figure 2: "updated on stable
storage before responding"). What an append answer vouches for is limited by `durable_index`
instead, so that heartbeats never wait for a disk.
"""

from collections import deque
from collections.abc import Sequence

from noti.raft.core.events import Persist
from noti.raft.core.messages import Entry, HardState, Message, NodeId


class Gate:
    """What is on its way to disk, and what waits for it."""

    def __init__(self, saved: HardState) -> None:
        """Start with the hard state that the disk holds."""
        self._saved = saved
        self._hard_state_batch = 0
        self._batch = 0
        self._persisted = 0
        self._entries: list[Entry] = []
        self._ends: deque[tuple[int, int]] = deque()  # batch, index of its last entry
        self._waiting: deque[tuple[int, NodeId, Message]] = deque()

    @property
    def ordered(self) -> int:
        """The newest batch that must go to disk."""
        return self._batch

    @property
    def done(self) -> int:
        """The newest batch that is on disk."""
        return self._persisted

    def hard_state(self, term: int, voted_for: NodeId | None) -> HardState:
        """Return these two as one; the same object as before while they are what the disk has, or
        will have: it is asked for with every message.
        """
        if self._saved.term == term and self._saved.voted_for == voted_for:
            return self._saved
        return HardState(term, voted_for)

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

    def admit(self, to: NodeId, message: Message, hard_state: HardState, *, hold: bool) -> bool:
        """Return whether the message may leave now; otherwise keep it until it may.

        With `hold` it waits for the hard state's batch even if that is already on its way.
        """
        changed = hard_state is not self._saved and hard_state != self._saved
        needed = self._batch + 1 if changed else self._hard_state_batch
        if needed <= self._persisted and not hold:
            return True
        self._waiting.append((needed, to, message))
        return False

    def next_batch(self) -> int:
        """Number a batch that the caller orders itself (a snapshot)."""
        self._batch += 1
        return self._batch

    def order(self, hard_state: HardState) -> Sequence[Persist]:
        """Return what must go to disk since the last order: one batch, or none."""
        changed = hard_state is not self._saved and hard_state != self._saved
        if not changed and not self._entries:
            return ()
        self._batch += 1
        if changed:
            self._saved = hard_state
            self._hard_state_batch = self._batch
        if self._entries:
            self._ends.append((self._batch, self._entries[-1].index))
        entries, self._entries = tuple(self._entries), []
        return (Persist(self._batch, hard_state if changed else None, entries),)

    def persisted(self, batch: int) -> tuple[int, list[tuple[NodeId, Message]]]:
        """Note a completion; return up to which index it put entries on disk (0: none that are
        still in the log), and messages that may leave.
        """
        assert batch <= self._batch
        self._persisted = max(self._persisted, batch)
        end = 0
        while self._ends and self._ends[0][0] <= batch:
            end = self._ends.popleft()[1]
        ready = []
        while self._waiting and self._waiting[0][0] <= batch:
            _, to, message = self._waiting.popleft()
            ready.append((to, message))
        return end, ready
