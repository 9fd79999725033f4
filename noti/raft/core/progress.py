"""What a leader knows about one follower, and how fast it may send to it.

Enters: answers, losses. Leaves: whether to send, and from where. Never: messages, clocks of its
own.

States (etcd-io/raft's, re-expressed):
    PROBE      the match is unknown: one message at a time
    REPLICATE  the match is known: optimistic, pipelined, limited by messages and bytes in flight
    SNAPSHOT   the follower needs what is compacted away: nothing but the snapshot is sent
Invariant: match_index < next_index.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from noti.raft.core.messages import NodeId, Snapshot


class ProgressState(Enum):
    """How the leader sends to a follower."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    """One follower, seen from the leader."""

    node_id: NodeId
    next_index: int
    """Index of the next entry to send."""
    last_contact_at: float
    """When the follower last answered, for check-quorum."""
    match_index: int = 0
    """Everything up to here is on the follower's disk."""
    matched_in: int = 0
    """The round of the answer that said so."""
    forgot: bool = False
    """Its disk does not hold any more what it said it holds: it is not counted."""
    round: int = 0
    """The newest of the leader's rounds that the follower has answered."""
    state: ProgressState = ProgressState.PROBE
    probe_sent: bool = False
    """While probing: a probe is out; do not send another before an answer or the next heartbeat."""
    snapshot: Snapshot | None = None
    """While in SNAPSHOT: what is sent, also when there is a newer one meanwhile: a follower that is
    slower than the log grows would be sent beginnings for ever."""
    snapshot_sent: int = 0
    """Bytes of it that were sent …"""
    snapshot_received: int = 0
    """… and that have arrived."""
    snapshot_sent_at: float = 0.0
    """When it was begun with, or the follower last received a piece."""
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    """(last index, bytes) of each append message that was not answered."""
    in_flight_bytes: int = 0

    def may_send(self, messages_max: int, bytes_max: int) -> bool:
        """Whether another append with entries may leave now."""
        match self.state:
            case ProgressState.PROBE:
                return not self.probe_sent
            case ProgressState.REPLICATE:
                return len(self.in_flight) < messages_max and self.in_flight_bytes < bytes_max
            case ProgressState.SNAPSHOT:
                return False

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Note that entries up to `last_index` were sent."""
        if self.state is ProgressState.PROBE:
            self.probe_sent = True
            return
        self.next_index = last_index + 1
        self.in_flight.append((last_index, size_bytes))
        self.in_flight_bytes += size_bytes

    def has_forgotten(self, rejected_index: int, round_: int) -> bool:
        """Whether a rejection contradicts what the follower said in an earlier round."""
        return 0 < rejected_index <= self.match_index and round_ > self.matched_in

    def forget(self) -> None:
        """Begin anew with a follower that does not vote, so that it may have forgotten."""
        self.match_index = 0
        self._become(ProgressState.PROBE)

    def matched(self, index: int) -> bool:
        """Note that the follower holds everything up to `index`; return whether that is news."""
        while self.in_flight and self.in_flight[0][0] <= index:
            self.in_flight_bytes -= self.in_flight.popleft()[1]
        news = index > self.match_index
        self.match_index = max(self.match_index, index)
        self.next_index = max(self.next_index, self.match_index + 1)
        leaves_snapshot = self.snapshot is not None and self.match_index >= self.snapshot.index
        if self.state is ProgressState.PROBE or leaves_snapshot:
            self._become(ProgressState.REPLICATE)
        return news

    def rejected(self, rejected_index: int, next_index: int) -> None:
        """Note a rejection, unless it is an old one that says nothing new."""
        if self.state is ProgressState.SNAPSHOT or rejected_index <= self.match_index:
            return
        if self.state is ProgressState.PROBE and rejected_index != self.next_index - 1:
            return
        self._become(ProgressState.PROBE)
        self.next_index = max(self.match_index + 1, min(next_index, rejected_index))

    def lost(self) -> None:
        """Forget what was in flight: the stream to the follower broke."""
        self._become(ProgressState.PROBE)

    def needs_snapshot(self, snapshot: Snapshot, now: float) -> None:
        """Switch to sending this snapshot."""
        self._become(ProgressState.SNAPSHOT)
        self.snapshot = snapshot
        self.snapshot_sent = self.snapshot_received = 0
        self.snapshot_sent_at = now

    def has_received(self, index: int, size: int, now: float) -> None:
        """Note how much of the snapshot at `index` the follower has."""
        snapshot = self.snapshot
        if snapshot is None or snapshot.index != index or size > self.snapshot_sent:
            return
        if size > self.snapshot_received:
            self.snapshot_received, self.snapshot_sent_at = size, now

    def _become(self, state: ProgressState) -> None:
        self.state = state
        self.snapshot = None
        self.probe_sent = False
        self.in_flight.clear()
        self.in_flight_bytes = 0
        self.next_index = self.match_index + 1
