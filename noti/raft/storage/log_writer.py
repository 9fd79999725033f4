"""Carries out the core's orders to the log, one after the other.

It reports each batch that is durable, and never writes two things at once. What was ordered while a
write was on its way is the next write, up to a bound in bytes: a write is copied on its way to the
disk, and is read back whole.

Only this node's own snapshot, which nobody waits for, goes to disk beside all that, a piece at a
time and slower than the disk could, so that entries never wait for more than a piece.
"""

from collections import deque
from collections.abc import Callable
from typing import TypeAlias, assert_never

import trio
from prometheus_client import Histogram

from noti.ports import Clock
from noti.raft.core.events import Persist, Persisted, PersistSnapshot, SaveSnapshot
from noti.raft.core.messages import Entry, HardState, Snapshot
from noti.raft.storage.wal import DiskOperation, Wal

WRITE_BYTES_MAX = 1024 * 1024
"""Entry data in one write, or one entry. With this much, a sync is a small part of the cost."""

SAVING_PAUSE = 9.0
"""How long to leave the disk to entries after each piece of a snapshot, at least: so many times as
long as the piece took …"""
SAVING_PAUSE_S = 0.01
"""… and this, 25 MB/s: a piece is handed to the kernel at once, and the disk has to keep up."""

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
        self.orders: deque[Order] = deque()
        """What waits for its turn; append to it, then `flush`."""
        self._writing: tuple[DiskOperation, Persisted | None] | None = None
        self._started_at = 0.0
        self._running = False
        self._work = trio.Event()
        self._done: Callable[[Persisted], None] = lambda news: None
        self._reported = 0
        """The last batch that was reported."""
        self._to_save: SaveSnapshot | None = None
        """The newest snapshot of this node that is not being saved yet."""
        self._save = trio.Event()
        self._snapshot_file = trio.Lock()
        """Held by whoever writes a part of a snapshot."""

    def flush(self, now: float) -> None:
        """Begin with what was ordered, unless a write is on its way; never waits.

        Here and not in the task, as it spares a turn of the scheduler. Raises `StorageFailed`.
        """
        while self._running and self._writing is None and self.orders:
            order = self.orders.popleft()
            if isinstance(order, SaveSnapshot):
                self._to_save = order
                self._save.set()
                continue
            self._started_at = now
            self._writing = self._begin(order)
            self._work.set()

    async def run(self, done: Callable[[Persisted], None]) -> None:
        """Write until cancelled; `done` is called in the turn in which a batch became durable.

        Also with a batch that was reported before, when a long write gets on. Raises
        `StorageFailed`. *Cancellation* forgets what was not written yet.
        """
        self._done = done
        self._running = True
        try:
            while True:
                if self.orders:
                    self.flush(self._clock.now())
                while self._writing is None:
                    self._work = trio.Event()
                    await self._work.wait()
                operation, news = self._writing
                await operation
                _write_s.observe(self._clock.now() - self._started_at)
                self._writing = None
                if news is not None:
                    self._reported = news.batch
                    done(news)
        finally:
            self._running = False

    async def save_snapshots(self) -> None:
        """Save this node's own snapshots until cancelled, beside `run`; raises `StorageFailed`.

        *Cancellation* leaves the snapshot before, or this one.
        """
        while True:
            await self._save.wait()
            self._save = trio.Event()
            if (order := self._to_save) is None:
                continue
            self._to_save = None
            saving = self._wal.begin_saving(order.snapshot, keep_after=order.drop_through)
            more = True
            while more:
                begun_at = self._clock.now()
                async with self._snapshot_file:
                    more = await saving.step()
                now = self._clock.now()
                pause_s = max(SAVING_PAUSE_S, SAVING_PAUSE * (now - begun_at))
                await self._clock.sleep_until(now + pause_s)

    async def _install(self, snapshot: Snapshot) -> None:
        async with self._snapshot_file:
            await self._wal.install_snapshot(
                snapshot, got_on=lambda: self._done(Persisted(self._reported))
            )

    def _begin(self, order: Persist | PersistSnapshot) -> tuple[DiskOperation, Persisted | None]:
        match order:
            case Persist():
                batch, hard_state, entries = self._join(order)
                news = None if batch is None else Persisted(batch)
                return self._wal.append(entries, hard_state), news
            case PersistSnapshot(batch, snapshot):
                return DiskOperation(lambda: self._install(snapshot)), Persisted(batch)
            case _:
                assert_never(order)

    def _join(self, order: Persist) -> tuple[int | None, HardState | None, list[Entry]]:
        """Make one write of all that waits and goes together.

        Its entries follow each other and are not too much. It is without a batch number when the
        order is not finished by it.
        """
        batch: int | None = None
        hard_state: HardState | None = None
        entries: list[Entry] = []
        room = WRITE_BYTES_MAX
        while True:
            hard_state = order.hard_state or hard_state
            for position, entry in enumerate(order.entries):
                room -= entry.size_bytes
                if room < 0 and entries:
                    rest = Persist(order.batch, None, order.entries[position:])
                    self.orders.appendleft(rest)
                    return batch, hard_state, entries
                entries.append(entry)
            batch = order.batch
            following = self.orders[0] if self.orders else None
            if not isinstance(following, Persist):
                return batch, hard_state, entries
            follows = following.entries[:1]
            if entries and follows and follows[0].index != entries[-1].index + 1:
                return batch, hard_state, entries
            self.orders.popleft()
            order = following
