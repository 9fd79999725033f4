"""What enters and leaves the core: events and effects.

Enters: nothing. Leaves: frozen dataclasses. Never: behaviour.
"""

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from noti.raft.core.membership import Change, Configuration
from noti.raft.core.messages import Entry, HardState, Message, NodeId, Snapshot


class Role(Enum):
    """What a node is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


# --- events: facts that enter ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A peer's message arrived."""

    message: Message


@dataclass(frozen=True, slots=True)
class Persisted:
    """All `Persist` and `PersistSnapshot` effects up to this batch number are on disk."""

    batch: int


@dataclass(frozen=True, slots=True)
class Proposed:
    """Commands want to be committed; each is answered with an Accepted or Rejected effect."""

    proposals: tuple[tuple[int, bytes], ...]
    """(the driver's request number, command)."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The request numbers."""
        return tuple(number for number, _ in self.proposals)


@dataclass(frozen=True, slots=True)
class ChangeRequested:
    """The membership should change; answered like a proposal, or with `ChangeRejected`."""

    request: int
    change: Change

    @property
    def numbers(self) -> tuple[int, ...]:
        """The request number."""
        return (self.request,)


@dataclass(frozen=True, slots=True)
class ReadRequested:
    """Readers want to know what is committed now; each gets a `ReadReady` if this node leads on."""

    numbers: tuple[int, ...]


Request: TypeAlias = Proposed | ChangeRequested | ReadRequested
"""What only a leader can do; every number is answered once."""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """`deadline()` has passed; harmless when it has not."""


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The stream to a peer broke: its process died, or the network cut it."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """There is a new stream to a peer: what was sent before may never have arrived."""

    node_id: NodeId


@dataclass(frozen=True, slots=True)
class TransferRequested:
    """This node would like somebody else to lead."""


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """The first configuration of a new cluster is known; legal only on an empty log."""

    configuration: Configuration


@dataclass(frozen=True, slots=True)
class SnapshotTaken:
    """The state machine was saved as it was at an applied index; the log before it may go."""

    index: int
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EntriesRead:
    """The answer to `ReadEntries`: from its first on, as many as there was room for.

    None when the disk does not have them any more.
    """

    reader: NodeId | None
    entries: tuple[Entry, ...]


Event: TypeAlias = (
    MessageReceived
    | Persisted
    | Request
    | DeadlineReached
    | PeerLost
    | PeerConnected
    | TransferRequested
    | Bootstrapped
    | SnapshotTaken
    | EntriesRead
)


# --- effects: orders that leave, to be carried out in order ---------------------------------------


@dataclass(frozen=True, slots=True)
class SendMessage:
    """Hand a message to the network; it may be lost."""

    to: NodeId
    message: Message


@dataclass(frozen=True, slots=True)
class Persist:
    """Make this durable, then report `Persisted(batch)`.

    An entry replaces whatever was stored at or above its index.
    """

    batch: int
    hard_state: HardState | None
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class PersistSnapshot:
    """Make a leader's snapshot durable in place of the log, then report `Persisted(batch)`."""

    batch: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class SaveSnapshot:
    """Make our own snapshot durable, whenever convenient.

    Entries up to `drop_through` are not needed any more once it is.
    """

    snapshot: Snapshot
    drop_through: int


@dataclass(frozen=True, slots=True)
class ReadEntries:
    """Read entries back from disk, then report `EntriesRead`.

    There is one read at a time for each reader.
    """

    reader: NodeId | None
    """The follower that needs them. None: this node applies them, so they may wait until it has
    applied what came before."""
    first: int
    last: int
    bytes_max: int
    """Of data; one entry may have more."""


@dataclass(frozen=True, slots=True)
class Apply:
    """Give committed entries to the state machine, in order."""

    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class RestoreSnapshot:
    """Replace the state machine by a snapshot."""

    snapshot: Snapshot
    state: object
    """What the state machine's own decoder made of the snapshot's pieces."""


@dataclass(frozen=True, slots=True)
class RoleChanged:
    """The node's role, term or leader is different now."""

    role: Role
    term: int
    leader: NodeId | None


@dataclass(frozen=True, slots=True)
class ProposalAccepted:
    """A proposal is in the leader's log.

    It is committed when that index is applied in that term.
    """

    request: int
    index: int
    term: int


@dataclass(frozen=True, slots=True)
class ProposalRejected:
    """A proposal was not appended: this node does not lead, or its backlog is full."""

    request: int
    backlog_full: bool
    leader: NodeId | None


@dataclass(frozen=True, slots=True)
class ChangeRejected:
    """A change of membership was not appended, for this reason."""

    request: int
    reason: str


@dataclass(frozen=True, slots=True)
class ReadReady:
    """A majority confirmed the leader after the reader asked.

    Who has applied `index` sees everything that was committed before the request (Raft 6.4).
    """

    request: int
    index: int


@dataclass(frozen=True, slots=True)
class MessageRejected:
    """A peer sent what no honest peer sends; nothing was changed. To be counted and logged."""

    sender: NodeId
    reason: str


@dataclass(frozen=True, slots=True)
class DiskHung:
    """The disk has stopped to answer, or answers again. To be logged."""

    since: float | None
    """When the answer was asked for; None when the disk works."""


@dataclass(frozen=True, slots=True)
class CommitStalled:
    """This node was elected, and an election timeout later nothing is applied. To be logged."""

    reason: str


@dataclass(frozen=True, slots=True)
class DiskOutdated:
    """This node's disk lacks what it had acknowledged: the node must end at once, and not vote."""

    acknowledged: int
    """It had answered the leader of this term that everything up to here is on its disk."""
    holds: int
    """Its log ends here."""


@dataclass(frozen=True, slots=True)
class VoterForgot:
    """A voter came back with less on its disk than it had acknowledged. To be logged.

    It is not counted until it has that again.
    """

    voter: NodeId
    acknowledged: int
    """It had answered the leader of this term that everything up to here is on its disk."""
    holds: int
    """Its log ends here."""


Effect: TypeAlias = (
    SendMessage
    | Persist
    | PersistSnapshot
    | SaveSnapshot
    | ReadEntries
    | Apply
    | RestoreSnapshot
    | RoleChanged
    | ProposalAccepted
    | ProposalRejected
    | ChangeRejected
    | ReadReady
    | MessageRejected
    | DiskHung
    | DiskOutdated
    | CommitStalled
    | VoterForgot
)
