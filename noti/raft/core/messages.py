"""The words of consensus: entries, messages between cores, and what a node must remember.

Enters: nothing. Leaves: frozen dataclasses used by the core, the log on disk and the wire.
Never: encoding, I/O, clocks.

Sources: Raft (Ongaro and Ousterhout 2014, figure 2), Raft thesis 3.10 (transfer), 9.6 (pre-vote).
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

BACKLOG_MAX = 255
"""The fullest that a node can say it is."""

NodeId: TypeAlias = str
"""Random identity of a node's data directory, never an address and never reused."""

INDEX_MAX = 2**63 - 1
"""Indexes and terms above this are invalid: no log reaches it."""


class EntryKind(IntEnum):
    """What the data of an entry means."""

    NOOP = 0
    """Empty; a new leader's first entry, so that older entries can be committed (Raft 5.4.2)."""
    COMMAND = 1
    """Opaque bytes for the state machine."""
    CONFIGURATION = 2
    """A membership configuration, see `membership.py`."""


ENTRY_HEAD_BYTES = 26
"""Bytes before the data in an entry's record, see `records.py`."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the replicated log; made by `records.new_entry` and `records.decode_entry`."""

    index: int
    term: int
    kind: EntryKind
    record: bytes
    """The entry as its leader encoded it, once: every log and the wire hold these bytes."""
    size_bytes: int
    """Size of the data."""

    @property
    def data(self) -> bytes:
        """What the entry carries; a copy."""
        return self.record[ENTRY_HEAD_BYTES:]


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be on disk before a vote or an answer leaves the node."""

    term: int = 0
    voted_for: NodeId | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine up to and including `index`, replacing the log before it."""

    index: int
    term: int
    configuration: bytes
    """The membership configuration in force at `index`, encoded by `membership.py`."""
    pieces: tuple[bytes, ...]
    """The state machine's own encoding, at least one piece: so it is made, written and sent."""

    @property
    def size_bytes(self) -> int:
        """Size of all pieces."""
        return sum(map(len, self.pieces))


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """A candidate asks for a vote; with `pre` it only asks whether it would get one."""

    sender: NodeId
    term: int
    """The candidate's term; for a pre-vote the term it would campaign in."""
    last_index: int
    last_term: int
    pre: bool
    transfer: bool
    """The old leader asked for this election: leader stickiness does not apply."""


@dataclass(frozen=True, slots=True)
class VoteResponse:
    """The answer to a vote request."""

    sender: NodeId
    term: int
    """For a granted pre-vote the term asked about, otherwise the voter's term."""
    granted: bool
    pre: bool


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Entries from the leader, or with none of them a heartbeat."""

    sender: NodeId
    term: int
    previous_index: int
    previous_term: int
    commit: int
    entries: tuple[Entry, ...]
    round: int = 0
    """Counts the leader's heartbeats in its term; answers carry the newest one received."""
    acknowledged: int = 0
    """While a voter's log is probed: what it answered this term's leader to have on disk. One that
    holds less has forgotten."""

    @property
    def is_bare(self) -> bool:
        """Whether it is a heartbeat, or tells of a commit: a later one of its term does, too."""
        return not self.entries


@dataclass(frozen=True, slots=True)
class AppendAccepted:
    """A follower agrees with an append request, or has a complete snapshot."""

    sender: NodeId
    term: int
    match_index: int
    """Everything up to here is on the sender's disk and equal to the leader's log."""
    round: int = 0
    """The newest round received from this term's leader."""
    backlog: int = 0
    """How full the sender's backlog of clients is, see `pacing.py`: advice, not consensus."""


@dataclass(frozen=True, slots=True)
class AppendRejected:
    """The log does not agree with an append request, or the request is of an older term."""

    sender: NodeId
    term: int
    rejected_index: int
    """The `previous_index` that was rejected."""
    hint_index: int
    """No agreement is possible above this index."""
    hint_term: int
    """The sender's term at `hint_index`."""
    round: int = 0
    """The newest round received from this term's leader."""
    backlog: int = 0
    """How full the sender's backlog of clients is, see `pacing.py`: advice, not consensus."""


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    """One piece of a snapshot; pieces of one snapshot arrive in order on one stream."""

    sender: NodeId
    term: int
    index: int
    snapshot_term: int
    configuration: bytes
    offset: int
    """Bytes before this piece."""
    data: bytes
    total: int
    """Bytes in the whole snapshot's data; the piece that reaches it completes the snapshot."""


@dataclass(frozen=True, slots=True)
class SnapshotReceived:
    """A follower has taken in pieces of a snapshot, and there is room for more."""

    sender: NodeId
    term: int
    index: int
    """Of the snapshot."""
    received: int
    """Bytes so far, without a gap."""


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader asks a caught-up follower to campaign at once (thesis 3.10)."""

    sender: NodeId
    term: int


class ForwardOutcome(IntEnum):
    """What became of something that a node asked its leader to do."""

    DONE = 0
    """Committed; for a read, confirmed."""
    NOT_LEADER = 1
    """Nothing was done; ask somebody else."""
    OVERLOADED = 2
    """Nothing was done; too much waits, or browsers cannot follow."""
    UNCERTAIN = 3
    """It may or may not be committed."""


REQUESTS_MAX = 2**17
"""Requests of one node that its leader may owe an answer at a time, and those in one message. A
node of 0.6 asks for each browser that comes back, of 50,000, and puts all of it into one."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A node asks the leader to commit commands, and to report what is committed now."""

    sender: NodeId
    term: int
    proposals: tuple[tuple[int, bytes], ...]
    """(the sender's number, command)."""
    reads: tuple[int, ...]
    """The sender's numbers."""


@dataclass(frozen=True, slots=True)
class DemotionRequest:
    """A node asks its leader to make it a learner, from now on until it ends."""

    sender: NodeId
    term: int


@dataclass(frozen=True, slots=True)
class ForwardAnswer:
    """What became of some of what was forwarded; each number is answered once."""

    sender: NodeId
    term: int
    outcomes: tuple[tuple[int, ForwardOutcome, int], ...]
    """(the asker's number, outcome, index that the asker must have applied to see the effect)."""


AppendResponse: TypeAlias = AppendAccepted | AppendRejected

Response: TypeAlias = AppendResponse | SnapshotReceived
"""What a follower answers to its leader."""

Message: TypeAlias = (
    VoteRequest | VoteResponse | AppendRequest | Response | SnapshotChunk | TimeoutNow
)
"""What cores say to each other."""

LeaderMessage: TypeAlias = Forward | ForwardAnswer | DemotionRequest
"""What a node and its leader say to each other beside consensus."""

PeerMessage: TypeAlias = Message | LeaderMessage
"""What travels on the stream between two nodes."""
