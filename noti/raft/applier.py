"""Carries out what is committed, and knows how far that has come.

It never carries out more than a slice at once, as a long replay must not starve the rest of the
node.
"""

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import assert_never

import structlog
from prometheus_client import Gauge

from noti.completion import OnDone
from noti.raft.core.events import RestoreSnapshot
from noti.raft.core.messages import Entry, EntryKind
from noti.raft.ports import StateMachine
from noti.raft.snapshot_taker import SnapshotTaker

log = structlog.get_logger("noti.raft")

APPLY_SLICE = 32
"""Entries applied before other tasks get a turn: a replay after a restart must not starve them."""

_commit_index = Gauge("noti_raft_commit_index", "Index of the last committed entry")


class Applier:
    """The state machine and its place in the log."""

    def __init__(self, state: StateMachine, index: int, snapshots: SnapshotTaker) -> None:
        """`index` is that of the last entry which the state machine holds."""
        self.index = index
        """In the middle of a long replay it is behind the core's."""
        self._state = state
        self._snapshots = snapshots
        self.waiting: deque[Entry | RestoreSnapshot] = deque()
        """What is still to be carried out."""
        self._when_applied: list[tuple[int, int, OnDone[int]]] = []
        """A heap of (index, order of the calls, whom to answer)."""
        self._numbers = itertools.count()

    @property
    def waiting_bytes(self) -> float:
        """How much is to be carried out, in the first slice of it; a whole state is without end."""
        first = itertools.islice(self.waiting, APPLY_SLICE)
        return sum([one.size_bytes if isinstance(one, Entry) else math.inf for one in first])

    def when_applied(self, index: int, on_done: OnDone[int]) -> None:
        """Complete with `index` in the turn in which it is applied, or now if it is."""
        if self.index >= index:
            on_done(index)
        else:
            heapq.heappush(self._when_applied, (index, next(self._numbers), on_done))

    def apply_some(self, applied: Callable[[Entry], None]) -> None:
        """Carry out a slice, with a call of `applied` after each entry."""
        for _ in range(min(APPLY_SLICE, len(self.waiting))):
            match self.waiting.popleft():
                case Entry() as entry:
                    if entry.kind is EntryKind.COMMAND:
                        self._state.apply(entry.data, entry.index)
                    self.index = entry.index
                    self._snapshots.count(len(entry.record))
                    applied(entry)
                case RestoreSnapshot(snapshot, state):
                    self._state.restore(state)
                    self.index = snapshot.index
                    self._snapshots.replaced(snapshot.size_bytes)
                    log.info("state replaced by the leader's snapshot", index=snapshot.index)
                case other:
                    assert_never(other)
        _commit_index.set(self.index)
        while self._when_applied and self._when_applied[0][0] <= self.index:
            index, _, on_done = heapq.heappop(self._when_applied)
            on_done(index)
        self._snapshots.begin_if_due(self.index)
