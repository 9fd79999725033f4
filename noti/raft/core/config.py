"""Timing and limits of a core.

Enters: nothing. Leaves: a frozen dataclass. Never: behaviour.
"""

from dataclasses import dataclass
from typing import Protocol

from noti.raft.core.messages import NodeId


class Rng(Protocol):
    """The part of `random.Random` that the core needs."""

    def uniform(self, a: float, b: float) -> float:
        """Return a number between a and b."""


KEEP_ENTRIES = 10_000
LOG_KEEP_BYTES = 64 * 1024 * 1024
"""Log kept on disk at a snapshot, for followers that were away for a while: reading that back is
cheaper than a snapshot and all that comes after it."""
LOG_MEMORY_BYTES = 32 * 1024 * 1024
"""Entries kept in memory for followers: some seconds of full speed, so that nothing is read back
for one that is merely slow."""


@dataclass(frozen=True, slots=True)
class RaftConfig:
    """Timing and limits of one node's core."""

    node_id: NodeId
    heartbeat_interval_s: float = 0.1
    """How often an idle leader speaks."""
    election_timeout_s: float = 0.5
    """Silence of the leader after which a follower campaigns, drawn from 1x to 2x per round."""
    reset_step_s: float = 0.04
    """After a broken stream to the leader voters campaign in turn, so much apart.

    A few round trips.
    """
    append_bytes_max: int = 1024 * 1024
    """Entry data in one append message: large batches, yet far below the transport's limit."""
    in_flight_messages_max: int = 64
    in_flight_bytes_max: int = 8 * 1024 * 1024
    """What may be unanswered towards one follower; bounds its backlog and ours."""
    uncommitted_bytes_max: int = 64 * 1024 * 1024
    """Backlog above which proposals are rejected, so that a cut-off leader keeps its memory."""
    snapshot_window_bytes: int = 1024 * 1024
    """Pieces of a snapshot that may be unanswered; a piece may exceed it. More would hold up those
    who decode them; less makes distant followers wait: 20 MB/s at a round trip of 50 ms."""
    snapshot_retry_s: float = 5.0
    """A snapshot of which no piece was answered for so long is sent again."""
    keep_entries: int = KEEP_ENTRIES
    """Entries kept below a snapshot for followers that lag a little …"""
    keep_bytes: int = LOG_KEEP_BYTES
    """… as long as the whole log has no more data than this."""
    log_memory_bytes: int = LOG_MEMORY_BYTES
    """Above this, entries that are on disk leave memory, and are read back when they are needed."""

    def __post_init__(self) -> None:
        """Reject timings that cannot elect a leader."""
        assert 0 < self.heartbeat_interval_s * 2 <= self.election_timeout_s
