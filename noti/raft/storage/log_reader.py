"""Reads entries back that the core's memory let go, one order after the other.

It never reads entries to apply while older ones wait to be applied: the disk may be faster than the
state machine, and what it yields would pile up.
"""

from collections import deque
from collections.abc import Callable

import structlog
import trio
from prometheus_client import Counter

from noti.errors import StorageCorrupt
from noti.ports import Clock
from noti.raft.core.events import EntriesRead, ReadEntries
from noti.raft.core.messages import Entry
from noti.raft.storage.wal import Wal
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.raft")

_entries_read = Counter("noti_raft_log_entries_read_total", "Log entries read back from disk")
_bytes_read = Counter("noti_raft_log_read_bytes_total", "Data of log entries read back from disk")


class LogReader:
    """The only one who reads the log while the node runs."""

    def __init__(self, wal: Wal, clock: Clock) -> None:
        """Prepare; orders wait until `run`."""
        self._wal = wal
        self._orders: deque[ReadEntries] = deque()
        self.to_apply: ReadEntries | None = None
        self._work = trio.Event()
        self._throttled = ThrottledLog(clock.now)

    def put(self, order: ReadEntries) -> None:
        """Take an order; never waits."""
        if order.reader is None:
            self.to_apply = order
        else:
            self._orders.append(order)
            self._work.set()

    def all_is_applied(self) -> None:
        """Go on with what is to be applied next, if that was ordered; never waits."""
        if self.to_apply is not None:
            self._orders.append(self.to_apply)
            self.to_apply = None
            self._work.set()

    async def run(self, done: Callable[[EntriesRead], None]) -> None:
        """Read until cancelled.

        Raises `StorageFailed`, and `StorageCorrupt` when what is to be applied is damaged; a
        follower gets a snapshot in place of damaged entries.
        """
        while True:
            await self._work.wait()
            while self._orders:
                order = self._orders.popleft()
                entries = await self._read(order)
                _entries_read.inc(len(entries))
                _bytes_read.inc(sum(entry.size_bytes for entry in entries))
                done(EntriesRead(order.reader, entries))
            self._work = trio.Event()

    async def _read(self, order: ReadEntries) -> tuple[Entry, ...]:
        try:
            return await self._wal.read(order.first, order.last, order.bytes_max)
        except StorageCorrupt as error:
            if order.reader is None:
                raise
            # Damage stays, and a follower that needs what is damaged asks with every heartbeat.
            self._throttled.log(log.error, "the log on disk is damaged", reason=str(error))
            return ()
