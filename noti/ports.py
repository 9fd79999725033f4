"""The world as a node sees it: a few small protocols with a real and an in-memory version each.

Enters: nothing. Leaves: protocols and the values that cross them.
Never: behaviour, foreign exception types (`OSError`, grpclib, nats): adapters translate into
`noti.errors`.

The same contract suite (tests/contract) runs against every version of a port.
"""

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import trio

from noti.errors import NotiError
from noti.raft.core.messages import NodeId, PeerMessage

Address: TypeAlias = tuple[str, int]
"""Host (name or IP) and port."""


class Clock(Protocol):
    """Time. Monotonic seconds for decisions, wall time only as data."""

    def now(self) -> float:
        """Return monotonic seconds; only differences mean anything."""

    async def sleep_until(self, deadline: float) -> None:
        """Return when `now()` is at least `deadline`. A checkpoint, cancellable."""

    def scope_until(self, deadline: float) -> trio.CancelScope:
        """Return a scope, to be entered at once, that is cancelled when `now()` reaches
        `deadline`.
        """

    def wall_ms(self) -> int:
        """Return milliseconds since 1970, to be stored as data and never compared."""


class Begun:
    """Something that goes on whether or not anybody waits for it; await it once, to do so.

    Unlike a coroutine it may be dropped, as happens when a node is stopped in that very turn.
    """

    def __init__(self, wait: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`wait` is called when somebody waits."""
        self._wait = wait

    def __await__(self) -> Generator[Any, Any, None]:
        """Return when it is over; raises what went wrong."""
        return self._wait().__await__()


class Disk(Protocol):
    """One node's data directory, locked for this process. Names are plain file names.

    Every method that changes something is durable when it returns (data, and the directory where a
    name appeared, vanished or moved). Raises `StorageFailed` when the operating system refuses;
    after that the disk must not be used again.
    """

    async def names(self) -> list[str]:
        """Return the file names, sorted."""

    async def read(self, name: str) -> bytes:
        """Return the whole file; raises `FileNotFoundError` when there is none."""

    async def read_part(self, name: str, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, or as many as there are; raises `FileNotFoundError`
        when there is no such file. For use while the node runs: it may take as long as a write.
        """

    async def create(self, name: str, size: int) -> None:
        """Make a file of `size` zero bytes that are really allocated; it must not exist."""

    def write(self, name: str, offset: int, data: bytes) -> "Begun":
        """Begin to overwrite or extend at `offset`; awaiting what it returns waits for the sync.

        The hot path: cheap when it stays inside the file, and begun without a task switch.
        """

    async def replace(self, name: str, data: bytes) -> None:
        """Make the file's content `data` atomically: after a crash it is all old or all new."""

    async def remove(self, name: str) -> None:
        """Delete the file; no error when it is not there."""


class Datagrams(Protocol):
    """A bound UDP socket."""

    @property
    def address(self) -> Address:
        """The address it is bound to, with the real port."""

    async def send(self, payload: bytes, to: Address) -> None:
        """Send one packet, or lose it.

        Raises `PeerUnavailable` when the system says it cannot be sent.
        """

    async def receive(self) -> tuple[bytes, Address]:
        """Wait for one packet and its source."""


StreamHandler: TypeAlias = Callable[[trio.abc.Stream], Awaitable[None]]


class GossipNetwork(Protocol):
    """UDP packets and short TCP exchanges between nodes."""

    def open_datagrams(self, bind: Address) -> AbstractAsyncContextManager[Datagrams]:
        """Bind; raises `AddressInUse`."""

    async def serve_streams(
        self,
        bind: Address,
        handler: StreamHandler,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled, one handler task a connection.

        Raises `AddressInUse`. Handlers close their stream.
        """

    async def open_stream(self, to: Address) -> trio.abc.Stream:
        """Connect; raises `PeerUnavailable`."""

    async def resolve(self, address: Address) -> list[Address]:
        """Return the IP addresses of a host name, at least one; raises `PeerUnavailable`."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The first words on a Raft stream, from both sides."""

    cluster_id: str
    """Empty while the node belongs to no cluster yet."""
    node_id: NodeId
    name: str


class MessageStream(Protocol):
    """One bidirectional stream of Raft messages with one peer, in order in each direction."""

    @property
    def peer(self) -> Hello:
        """Who is on the other side."""

    async def send(self, messages: Sequence[PeerMessage]) -> None:
        """Write messages as one batch; raises `PeerUnavailable` when the stream is broken."""

    def send_at_once(self, messages: Sequence[PeerMessage]) -> bool:
        """As `send`, without a checkpoint; returns False, with nothing sent, if it had to wait."""

    async def hear(self, take: Callable[[Sequence[PeerMessage]], bool]) -> None:
        """Pass each batch to `take` as it comes, and return when that returns False: enough.

        Raises `PeerUnavailable` when the stream ended, `MessageInvalid` on garbage, and what `take`
        raises. *Cancellation* loses nothing: the next call goes on where this one stopped.
        """

    async def aclose(self) -> None:
        """Close; the other side's `hear` raises `PeerUnavailable`."""


@dataclass(frozen=True, slots=True)
class Server:
    """A node as `GetServers` and `/readiness` show it."""

    id: str
    rpc_addr: str
    is_leader: bool


RoleName: TypeAlias = Literal["leader", "follower", "candidate", "learner"]


@dataclass(frozen=True, slots=True)
class NodeRole:
    """What a node says that it is in its cluster."""

    name: str
    """Of the node; empty when it is too old to say so."""
    role: RoleName
    term: int
    """Raft's term; 0 when it is too old to say so."""
    leader: str
    """Name of the leader of that term; empty when none is known."""


class RpcHandler(Protocol):
    """What a node offers on its RPC address."""

    def hello(self) -> Hello:
        """Who this node is, now."""

    def welcome(self, peer: Hello) -> None:
        """Raise `ClusterMismatch` when a stream from `peer` must be refused."""

    async def raft_stream(self, stream: MessageStream) -> None:
        """Use an incoming stream until it ends.

        Must not let `PeerUnavailable` or `MessageInvalid` escape.
        """

    def servers(self) -> list[Server]:
        """The members of the cluster, sorted by id."""

    def is_leader(self) -> bool:
        """Whether this node leads."""

    def role(self) -> NodeRole:
        """What this node is in its cluster, and in which term."""

    def serving(self) -> bool:
        """Whether this node is ready to serve browsers (gRPC health)."""


class Draft(NamedTuple):
    """An event as a publisher sends it: not checked, not ordered."""

    topics: tuple[str, ...]
    """First is canonical."""
    data: str
    id: str | None = None
    """None: this node makes one."""


Outcome: TypeAlias = tuple[str, ...] | NotiError
"""What became of drafts: the ids of the events, all of them committed; or why they are not."""


class Publishing(Protocol):
    """The way of events into the log."""

    def submit(
        self, drafts: Sequence[Draft], done: Callable[[Outcome], None], *, at_once: bool = False
    ) -> None:
        """Have events committed, in the order of the calls; never waits.

        With `at_once` it is not kept back for others that may come in this turn.

        `done` is called once, maybe before this returns, with the ids or with: `MessageInvalid`
        for a draft that can never be an event, `ProposalRefused` when too much waits already,
        `ProposalUncertain` when some may or may not be committed, otherwise `Unavailable`. Only
        after `ProposalUncertain` may any of the drafts be committed.
        """


class RpcNetwork(Protocol):
    """gRPC between nodes, and from publishers and operators."""

    async def serve_rpc(
        self,
        bind: Address,
        handler: RpcHandler,
        publishing: Publishing,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; raises `AddressInUse`."""

    async def open_raft_stream(self, to: Address, hello: Hello) -> MessageStream:
        """Dial a peer and exchange hellos.

        Raises `PeerUnavailable`, or `ClusterMismatch` when refused.
        """


class Control(Protocol):
    """What only the operator of this machine may ask of the node."""

    async def serve(
        self,
        leave: Callable[[float], Awaitable[None]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take requests until cancelled.

        `leave(seconds)` gives up the node's seat, or raises a `NotiError` that is the answer.
        """


@dataclass(frozen=True, slots=True)
class SourceMessage:
    """One message of the source's stream."""

    seq: int
    """Sequence in the stream: stable across consumers and redelivery."""
    subject: str
    payload: bytes
    message_id: str | None
    """The publisher's id (`Nats-Msg-Id`), if it gave one."""
    token: object
    """The adapter's own handle; only it looks inside."""


@dataclass(frozen=True, slots=True)
class SourceLag:
    """How far a reader is behind, as far as it knows without asking."""

    pending: int
    """Messages that were not delivered to it yet."""
    unacknowledged: int
    """Messages that were, and are neither acknowledged nor terminated."""
    oldest_ms: int | None
    """When the oldest of these was published, in milliseconds of the wall clock."""


class SourceSession(Protocol):
    """A place in the source's stream, strictly in stream order. One session at a time in a cluster.

    Every method raises `SourceUnavailable` when the connection or the place is lost (also when
    somebody else took messages out of the same consumer, so that order could be broken); then open
    a new session.
    """

    @property
    def stream(self) -> str:
        """Identity of the stream, different after it was deleted and made again."""

    async def begin(self, after_seq: int) -> None:
        """Start reading.

        Everything unacknowledged above `after_seq` comes, again if need be, in order.
        """

    async def fetch(self, messages_max: int, wait_s: float) -> list[SourceMessage]:
        """Return the next messages in stream order, or none after `wait_s` seconds."""

    async def ack(self, messages: Sequence[SourceMessage]) -> None:
        """Tell the source that these are committed and need not come again."""

    async def terminate(self, message: SourceMessage) -> None:
        """Tell the source that this one can never be processed and must not come again."""

    def lag(self) -> SourceLag:
        """Return how far this reader is behind; at once, and never raises."""


class Source(Protocol):
    """Where events come from."""

    def open(self) -> AbstractAsyncContextManager[SourceSession]:
        """Connect, make the stream when missing; raises `SourceUnavailable`."""
