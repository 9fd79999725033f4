"""What consensus needs of its node: a stream of messages with each peer, and a state machine."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from noti.address import Address
from noti.raft.core.messages import NodeId, PeerMessage


@dataclass(frozen=True, slots=True)
class Hello:
    """The first words on a Raft stream, from both sides."""

    cluster_id: str
    """Empty while the node belongs to no cluster yet."""
    node_id: NodeId
    name: str
    level: int = 0
    """Of the cluster, as the node has applied it; 0 from releases that know no levels."""
    supports: int = 0
    """The highest level that the node supports; 0 from those, too."""


class Standing(IntEnum):
    """What an id is to this node; who has more of it stays longer."""

    UNKNOWN = 0
    GOSSIPS = 1
    """Gossip knows it: it may be about to join."""
    MEMBER = 2
    """The configuration has it."""


class MessageStream(Protocol):
    """One bidirectional stream of Raft messages with one peer, in order in each direction."""

    @property
    def peer(self) -> Hello:
        """Who is on the other side."""

    @property
    def proven(self) -> bool:
        """Whether a certificate proved that it is."""

    async def send(self, messages: Sequence[PeerMessage]) -> None:
        """Write messages as one batch; raises `PeerUnavailable` when the stream is broken."""

    def send_at_once(self, messages: Sequence[PeerMessage]) -> bool:
        """As `send`, without a checkpoint; returns False, with nothing sent, if it had to wait."""

    async def receive(self, take: Callable[[Sequence[PeerMessage]], bool]) -> None:
        """Pass each batch to `take` as it comes, and return when that returns False: enough.

        Raises `PeerUnavailable` when the stream ended, `MessageInvalid` for what does not
        decode, and what `take` raises. *Cancellation* loses nothing: the next call
        goes on where this one stopped.
        """

    async def aclose(self) -> None:
        """Close; the other side's `receive` raises `PeerUnavailable`."""


class Messenger(Protocol):
    """How messages leave."""

    def send(self, to: NodeId, message: PeerMessage) -> bool:
        """Queue a message and return True, or drop it; never waits."""

    def flush(self) -> None:
        """Let what was queued leave; never waits."""

    def connected(self) -> frozenset[NodeId]:
        """Return the peers with a stream."""


class PeerNetwork(Protocol):
    """Streams to peers."""

    async def open_raft_stream(self, to: Address, hello: Hello) -> MessageStream:
        """Dial a peer and exchange hellos.

        Raises `PeerUnavailable`, or `ClusterMismatch` when rejected.
        """


class StateMachine(Protocol):
    """What committed commands change: `HistoryStateMachine` in `noti.history`.

    All of it is synchronous: applying never waits.
    """

    def apply(self, command: bytes, log_index: int) -> None:
        """Carry out one committed command, which has this index in the log."""

    def snapshot_pieces(self) -> Iterator[bytes]:
        """Return the whole state as it is now, at least one piece, each encoded when it is taken.

        About `PIECE_BYTES` each. The state may change meanwhile.
        """

    def restore(self, state: object) -> None:
        """Replace the whole state by one that its decoder made of a snapshot's data."""
