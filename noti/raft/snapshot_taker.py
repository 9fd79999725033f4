"""Takes snapshots of the state machine when it is time for one, without holding anybody up.

A snapshot is a copy of one moment, whose pieces are encoded one in a turn, between others' turns.
"""

import itertools
from collections.abc import Iterator

import structlog
import trio
from prometheus_client import Gauge, Histogram

from noti.ports import Clock
from noti.raft.ports import StateMachine

log = structlog.get_logger("noti.raft")

SNAPSHOT_EVERY_BYTES = 32 * 1024 * 1024
"""Log after which there is a snapshot, or as much as the last one had if that was more: so what is
written for snapshots is never more than what is written for the log. A restart replays as much."""

ENCODING_PAUSE = 9.0
"""How long to leave the loop to others after each piece: so many times as long as the piece took.
A snapshot of 256 MiB then takes some ten seconds, of a tenth of the loop's time."""

_snapshot_bytes = Gauge("noti_raft_snapshot_bytes", "Size of the newest snapshot")
_piece_s = Histogram(
    "noti_raft_snapshot_piece_seconds",
    "Time that the loop stood still for a piece of a snapshot",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5),
)


class SnapshotTaker:
    """Counts what is applied, and encodes a snapshot when that is enough."""

    def __init__(
        self, state: StateMachine, clock: Clock, *, every_bytes: int, last_bytes: int
    ) -> None:
        """`last_bytes` is the size of the snapshot that the state machine began with."""
        self._state = state
        self._clock = clock
        self._every_bytes = every_bytes
        self._last_bytes = last_bytes
        self._log_bytes = 0
        """Carried out since the last snapshot."""
        self._index = 0
        self._pieces: Iterator[bytes] | None = None
        """Of the snapshot at that index, while it is being taken."""
        self._work = trio.Event()
        _snapshot_bytes.set(last_bytes)

    def count(self, size_bytes: int) -> None:
        """Note that an entry with a record of this size was applied."""
        self._log_bytes += size_bytes

    def begin_if_due(self, index: int) -> None:
        """Begin with a snapshot of the state as it is now, at `index`, if it is time for one."""
        due = self._log_bytes >= max(self._every_bytes, self._last_bytes)
        if due and self._pieces is None:
            self._log_bytes = 0
            self._index = index
            pieces = self._state.snapshot_pieces()
            # Whatever is lazy about making the copy, it must not be: the state changes next.
            self._pieces = itertools.chain([next(pieces)], pieces)
            self._work.set()

    def replaced(self, size_bytes: int) -> None:
        """Note that the state was replaced by a snapshot of this size: ours would be older."""
        self._log_bytes = 0
        self._last_bytes = size_bytes
        self._pieces = None
        _snapshot_bytes.set(size_bytes)

    async def next(self) -> tuple[int, tuple[bytes, ...]]:
        """Wait until a snapshot is whole; return its index and pieces.

        Called by one task. *Cancellation* gives up the snapshot that is being taken.
        """
        while True:
            while self._pieces is None:
                self._work = trio.Event()
                await self._work.wait()
            pieces = self._pieces
            taken = await self._encode(pieces)
            if self._pieces is pieces:
                self._pieces = None
                self._last_bytes = sum(map(len, taken))
                _snapshot_bytes.set(self._last_bytes)
                return self._index, taken

    async def _encode(self, pieces: Iterator[bytes]) -> tuple[bytes, ...]:
        """Return all pieces, or fewer once they are not wanted any more."""
        taken: list[bytes] = []
        while self._pieces is pieces:
            begun_at = self._clock.now()
            piece = next(pieces, None)
            if piece is None:
                break
            taken.append(piece)
            now = self._clock.now()
            _piece_s.observe(now - begun_at)
            await self._clock.sleep_until(now + ENCODING_PAUSE * (now - begun_at))
        return tuple(taken)
