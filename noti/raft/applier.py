"""Carries out what is committed, and knows how far that has come.

Enters: committed entries, a leader's snapshots, in order. Leaves: changes of the state machine;
a call to whoever waits for an index; snapshots, when it is time for one.
Never: waits; more than a slice at once, as a long replay must not starve the rest of the node.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol, assert_never

import structlog
from prometheus_client import Gauge

from noti.raft.core.events import SnapshotTaken
from noti.raft.core.messages import Entry, EntryKind, Snapshot

log = structlog.get_logger("noti.raft")

APPLY_SLICE = 32
"""Entries applied before other tasks get a turn: a replay after a restart must not starve them."""
SNAPSHOT_EVERY_ENTRIES = 10_000
SNAPSHOT_EVERY_BYTES = 32 * 1024 * 1024
"""When the log is compacted: a restart then replays at most a second or so."""

_commit_index = Gauge("noti_raft_commit_index", "Index of the last committed entry")


class StateMachine(Protocol):
    """What committed commands change. All of it is synchronous: applying never waits."""

    def apply(self, command: bytes) -> None:
        """Carry out one committed command."""

    def snapshot(self) -> bytes:
        """Return the whole state."""

    def restore(self, data: bytes) -> None:
        """Replace the whole state."""


class Applier:
    """The state machine and its place in the log."""

    def __init__(
        self,
        state: StateMachine,
        index: int,
        *,
        snapshot_every_entries: int,
        snapshot_every_bytes: int,
    ) -> None:
        """`index` is that of the last entry which the state machine holds."""
        self.index = index
        """In the middle of a long replay it is behind the core's."""
        self._state = state
        self._snapshot_every_entries = snapshot_every_entries
        self._snapshot_every_bytes = snapshot_every_bytes
        self._waiting: deque[Entry | Snapshot] = deque()
        self._when_applied: list[tuple[int, int, Callable[[], None]]] = []
        """A heap of (index, order of the calls, what to call)."""
        self._numbers = itertools.count()
        self._entries = 0
        self._bytes = 0
        """Carried out since the last snapshot."""

    @property
    def is_behind(self) -> bool:
        """Whether something is still to be carried out."""
        return bool(self._waiting)

    def put(self, committed: Iterable[Entry | Snapshot]) -> None:
        """Take what comes next."""
        self._waiting.extend(committed)

    def when_applied(self, index: int, then: Callable[[], None]) -> None:
        """Call `then` in the turn in which `index` is applied, or now if it is."""
        if self.index >= index:
            then()
        else:
            heapq.heappush(self._when_applied, (index, next(self._numbers), then))

    def apply_some(self, applied: Callable[[Entry], None]) -> SnapshotTaken | None:
        """Carry out a slice, with a call of `applied` after each entry; return a new snapshot."""
        for _ in range(min(APPLY_SLICE, len(self._waiting))):
            match self._waiting.popleft():
                case Entry() as entry:
                    if entry.kind is EntryKind.COMMAND:
                        self._state.apply(entry.data)
                    self.index = entry.index
                    self._entries += 1
                    self._bytes += entry.size_bytes
                    applied(entry)
                case Snapshot(index=index, data=data):
                    self._state.restore(data)
                    self.index = index
                    log.info("state replaced by the leader's snapshot", index=index)
                case other:
                    assert_never(other)
        _commit_index.set(self.index)
        while self._when_applied and self._when_applied[0][0] <= self.index:
            heapq.heappop(self._when_applied)[2]()
        if (
            self._entries < self._snapshot_every_entries
            and self._bytes < self._snapshot_every_bytes
        ):
            return None
        self._entries = self._bytes = 0
        return SnapshotTaken(self.index, self._state.snapshot())
