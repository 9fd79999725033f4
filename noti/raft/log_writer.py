"""Carries out the core's orders to the log, one after the other.

Enters: orders, at any time. Leaves: news of each batch that is durable, to whoever asked for it.
Never: decides what is written, keeps an order back, writes two things at once.

Whatever was ordered while a write was on its way is the next write.
"""

from collections import deque
from collections.abc import Callable
from typing import TypeAlias, assert_never

import trio
from prometheus_client import Histogram

from noti.ports import Clock
from noti.raft.events import Persist, Persisted, PersistSnapshot, SaveSnapshot
from noti.raft.messages import Entry, HardState
from noti.raft.wal import Wal

Order: TypeAlias = Persist | PersistSnapshot | SaveSnapshot

_write_s = Histogram(
    "noti_raft_log_write_seconds",
    "Time of one durable write to the log",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)


class LogWriter:
    """The only one who writes to the log while the node runs."""

    def __init__(self, wal: Wal, clock: Clock) -> None:
        """Prepare; orders wait until `run`."""
        self._wal = wal
        self._clock = clock
        self._orders: deque[Order] = deque()
        self._ordered = trio.Event()

    def put(self, order: Order) -> None:
        """Take an order; never waits."""
        self._orders.append(order)
        self._ordered.set()

    async def run(self, done: Callable[[Persisted], None]) -> None:
        """Write until cancelled; `done` is called in the turn in which a batch became durable.

        Raises `StorageFailed`. *Cancellation* forgets what was not written yet.
        """
        while True:
            while not self._orders:
                self._ordered = trio.Event()
                await self._ordered.wait()
            started = self._clock.now()
            persisted = await self._carry_out(self._orders.popleft())
            _write_s.observe(self._clock.now() - started)
            if persisted is not None:
                done(persisted)

    async def _carry_out(self, order: Order) -> Persisted | None:
        match order:
            case Persist():
                batch, hard_state, entries = self._join(order)
                await self._wal.append(entries, hard_state)
                return Persisted(batch)
            case PersistSnapshot(batch, snapshot):
                await self._wal.install_snapshot(snapshot)
                return Persisted(batch)
            case SaveSnapshot(snapshot, drop_through):
                await self._wal.save_snapshot(snapshot, keep_after=drop_through)
                return None
            case _:
                assert_never(order)

    def _join(self, order: Persist) -> tuple[int, HardState | None, list[Entry]]:
        """Make one write of all that waits, as long as the entries follow each other."""
        batch, hard_state, entries = order.batch, order.hard_state, list(order.entries)
        while self._orders:
            following = self._orders[0]
            if not isinstance(following, Persist):
                break
            follows = following.entries[:1]
            if entries and follows and follows[0].index != entries[-1].index + 1:
                break
            self._orders.popleft()
            batch = following.batch
            hard_state = following.hard_state or hard_state
            entries.extend(following.entries)
        return batch, hard_state, entries
