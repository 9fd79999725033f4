"""Keeps one stream of Raft messages to each peer, and reports to a `PeerListener` when it breaks.

It never waits for a peer: what cannot be sent is dropped, and Raft tolerates it.

Of two nodes, the one with the lower node id dials, so that there is one stream for both directions.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from random import Random
from typing import Protocol

import structlog
import trio
from prometheus_client import Counter

from noti.address import Address
from noti.backoff import Backoff
from noti.errors import ClusterMismatch, MessageInvalid, PeerUnavailable
from noti.ports import Clock
from noti.raft.core.messages import (
    AppendRequest,
    DemotionRequest,
    Forward,
    ForwardAnswer,
    LeaderMessage,
    Message,
    NodeId,
    PeerMessage,
)
from noti.raft.ports import Hello, MessageStream, PeerNetwork
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.raft")

OUTBOX_MESSAGES_MAX = 1024
"""Messages waiting for one peer; the core's own window is far smaller, so this is a backstop."""
OUTBOX_BYTES_MAX = 16 * 1024 * 1024
"""… and so is this, for entries, commands and answers, twice the core's window: a peer that takes
nothing, and is probed with entries at every heartbeat, must not make a node hold its log a second
time. A snapshot may be larger, and is useless without one of its pieces."""
REQUEST_BYTES = 128
"""What a node holds for each request that is forwarded, or answered, beside its command."""
BATCH_MESSAGES_MAX = 64
"""Messages in one write, so that heartbeats do not wait behind a long frame."""
REDIAL_FIRST_S = 0.05
"""A restarted peer is back within milliseconds, so the first attempts come quickly …"""
REDIAL_MAX_S = 1.0
"""… and a dead one, or one whose streams break at once, costs one attempt a second."""
DIAL_WITHIN_S = 3.0
"""Nothing comes from a machine that is gone, not even "connection refused": TCP alone would wait
for two minutes, and without end if it went right after the handshake."""
DIALS_TO_STRANGERS_MAX = 4
"""Nodes that are not in the configuration, dialed at one time: whoever gossips is one of them, and
a new node waits for a few dials at most; those in the configuration wait for nobody."""
NAMES_MAX = 1024
"""Peers whose names are remembered; a cluster has a few."""
MISMATCH_REDIAL_S = 5.0
"""A stranger will still be a stranger in a second; the operator has to act."""

_dropped = Counter("noti_raft_messages_dropped_total", "Messages not sent to a peer", ["reason"])
_rejected = Counter("noti_raft_messages_rejected_total", "Messages from peers rejected", ["reason"])
for _reason in ("outbox_full", "no_stream"):
    _dropped.labels(_reason)
for _reason in ("wrong_name", "invalid", "wrong_sender", "stranger"):
    _rejected.labels(_reason)

_OF_MEMBERS = frozenset({Forward, DemotionRequest})
"""What a leader is asked to do. What it answers its own asker knows, who may have no log yet."""


class PeerListener(Protocol):
    """Who takes what the peers send."""

    def messages_received(self, messages: Sequence[Message]) -> None:
        """Take in messages that came together; never waits."""

    def forward_received(self, message: LeaderMessage) -> None:
        """Take in what is not the core's; never waits."""

    def peer_connected(self, node_id: NodeId) -> None:
        """Note that a new stream to a peer is usable."""

    def peer_lost(self, node_id: NodeId) -> None:
        """Note that the stream to a peer broke."""


class _Link:
    """The stream in use with one peer, and what waits to be sent on it."""

    def __init__(self, stream: MessageStream, scope: trio.CancelScope) -> None:
        self._stream = stream
        self.peer = stream.peer
        self.scope = scope
        self.outbox: deque[tuple[PeerMessage, int]] = deque()
        """Messages, and what each makes a node hold, bytes."""
        self._outbox_bytes = 0
        self._wakeup = trio.Event()

    def put(self, message: PeerMessage) -> bool:
        replaces = bool(self.outbox) and _says_all_of(message, self.outbox[-1][0])
        size = _size_of(message)
        full = size > 0 and self._outbox_bytes + size > OUTBOX_BYTES_MAX
        if full or len(self.outbox) - replaces >= OUTBOX_MESSAGES_MAX:
            _dropped.labels("outbox_full").inc()
            return False
        if replaces:
            self.outbox.pop()
        self.outbox.append((message, size))
        self._outbox_bytes += size
        return True

    def flush(self) -> None:
        """Send what waits, right here if the stream takes it: it spares a turn of the scheduler."""
        try:
            while self.outbox:
                batch = self._next()
                if not self._stream.send_at_once(batch):
                    self._wakeup.set()
                    return
                self._drop(len(batch))
        except PeerUnavailable:
            self.scope.cancel()

    async def send_rest(self) -> None:
        """Send what could not be sent at once, until the stream breaks."""
        try:
            while True:
                await self._wakeup.wait()
                self._wakeup = trio.Event()
                while self.outbox:
                    batch = self._next()
                    self._drop(len(batch))
                    await self._stream.send(batch)
        except PeerUnavailable:
            self.scope.cancel()

    def _next(self) -> list[PeerMessage]:
        return [message for message, _ in islice(self.outbox, BATCH_MESSAGES_MAX)]

    def _drop(self, count: int) -> None:
        for _ in range(count):
            _, size = self.outbox.popleft()
            self._outbox_bytes -= size


def _says_all_of(message: PeerMessage, earlier: PeerMessage) -> bool:
    """Whether a leader's message makes one needless that waits before it and carries nothing."""
    if type(message) is not AppendRequest or type(earlier) is not AppendRequest:
        return False
    return earlier.is_bare and message.term == earlier.term


def _size_of(message: PeerMessage) -> int:
    """Return what a message makes a node hold, bytes; 0 for what the core itself bounds."""
    match message:
        case AppendRequest(entries=entries):
            return sum([entry.size_bytes for entry in entries]) if entries else 0
        case Forward(proposals=proposals, reads=reads):
            requests = len(proposals) + len(reads)
            return sum(len(command) for _, command in proposals) + REQUEST_BYTES * requests
        case ForwardAnswer(outcomes=outcomes):
            return REQUEST_BYTES * len(outcomes)
        case _:
            return 0


class Peers:
    """All streams of one node."""

    def __init__(
        self,
        network: PeerNetwork,
        hello: Callable[[], Hello],
        listener: PeerListener,
        clock: Clock,
        rng: Random,
        name_of: Callable[[NodeId], str | None] = lambda _: None,
        is_member: Callable[[NodeId], bool] = lambda _: True,
    ) -> None:
        """Prepare; nothing is dialed before `run`.

        `name_of` returns an id's name, if known, and `is_member` whether the configuration has it.
        """
        self._name_of = name_of
        self._is_member = is_member
        self._strangers_dialed = trio.Semaphore(DIALS_TO_STRANGERS_MAX)
        self._names: dict[NodeId, str] = {}
        self._network = network
        self._hello = hello
        self._listener = listener
        self._clock = clock
        self._rng = rng
        self._addresses: dict[NodeId, Address] = {}
        self._dialers: dict[NodeId, tuple[Address, trio.CancelScope]] = {}
        self._links: dict[NodeId, _Link] = {}
        self._changed = trio.Event()
        self._throttled = ThrottledLog(clock.now)

    def update(self, addresses: Mapping[NodeId, Address]) -> None:
        """Say who the other nodes are and where; addresses may change at any time."""
        if self._addresses != addresses:
            self._addresses = dict(addresses)
            self._changed.set()

    def send(self, to: NodeId, message: PeerMessage) -> bool:
        """Queue a message for a peer until the next `flush` and return True, or drop it.

        It is dropped when there is no stream, or too much waits.
        """
        link = self._links.get(to)
        if link is None:
            _dropped.labels("no_stream").inc()
            return False
        return link.put(message)

    def flush(self) -> None:
        """Let what was queued leave, all that is for one peer in one batch; never waits."""
        for link in list(self._links.values()):
            link.flush()

    def connected(self) -> frozenset[NodeId]:
        """The peers with a stream in use."""
        return frozenset(self._links)

    def supported(self) -> Mapping[NodeId, int]:
        """Return the level that each peer with a stream in use supports."""
        return {node_id: link.peer.supports for node_id, link in self._links.items()}

    def names(self) -> Mapping[NodeId, str]:
        """Return the names that certificates proved on streams which were used since the start."""
        return self._names

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial whom we must until cancelled; streams that we dialed end with it."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                self._changed = trio.Event()
                own_id = self._hello().node_id
                wanted = {peer: at for peer, at in self._addresses.items() if own_id < peer}
                for peer, (address, dialing) in list(self._dialers.items()):
                    if wanted.get(peer) != address:
                        # Also when a stream is in use: a peer that moved cannot be at its end.
                        del self._dialers[peer]
                        dialing.cancel()
                for peer in sorted(wanted.keys() - self._dialers.keys()):
                    dialing = trio.CancelScope()
                    self._dialers[peer] = wanted[peer], dialing
                    nursery.start_soon(self._keep_dialed, peer, wanted[peer], dialing)
                await self._changed.wait()

    async def serve(self, stream: MessageStream) -> None:
        """Use a stream that a peer dialed, until it breaks; closes it."""
        await self._use(stream)

    async def _keep_dialed(self, peer: NodeId, address: Address, dialing: trio.CancelScope) -> None:
        backoff = Backoff(self._rng, first_s=REDIAL_FIRST_S, most_s=REDIAL_MAX_S)
        with dialing:
            while True:
                least_s = 0.0
                try:
                    stream = await self._dial_in_turn(peer, address)
                except PeerUnavailable as error:
                    log.debug("peer cannot be reached", peer=peer, reason=str(error))
                except ClusterMismatch as error:
                    self._throttled.log(
                        log.warning,
                        "peer rejects this node",
                        ("rejects", peer),
                        peer=peer,
                        reason=str(error),
                    )
                    least_s = MISMATCH_REDIAL_S
                else:
                    if stream.peer.node_id == peer:
                        used_from = self._clock.now()
                        await self._use(stream)
                        if self._clock.now() - used_from >= REDIAL_MAX_S:
                            backoff.succeeded()
                    else:
                        # Gossip has not learned yet who lives at this address now. That node
                        # takes our dialing for a new stream from us, so back off.
                        await stream.aclose()
                await self._clock.sleep_until(self._clock.now() + backoff.failed(least_s))

    async def _dial_in_turn(self, peer: NodeId, address: Address) -> MessageStream:
        if self._is_member(peer):
            return await self._dial(address)
        async with self._strangers_dialed:
            return await self._dial(address)

    async def _dial(self, address: Address) -> MessageStream:
        with self._clock.scope_until(self._clock.now() + DIAL_WITHIN_S):
            return await self._network.open_raft_stream(address, self._hello())
        raise PeerUnavailable(f"no answer within {DIAL_WITHIN_S:g} s")

    def _is_impostor(self, stream: MessageStream) -> bool:
        """Whether gossip knows the peer's id under another name: an id has one name, always.

        What certificates prove, gossip, which may be forged, cannot deny.
        """
        peer = stream.peer
        known = self._name_of(peer.node_id)
        if stream.proven or known is None or known == peer.name:
            return False
        _rejected.labels("wrong_name").inc()
        self._throttled.log(
            log.warning,
            "rejected a peer: gossip knows its node id under another name",
            (peer.node_id, peer.name),
            peer=peer.name,
            node_id=peer.node_id,
            known_as=known,
        )
        return True

    async def _use(self, stream: MessageStream) -> None:
        try:
            if self._is_impostor(stream):
                return
            with self._linked(stream) as link:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.send_rest)
                    await self._read(stream)
                    nursery.cancel_scope.cancel()
        finally:
            with trio.move_on_after(1.0, shield=True):
                await stream.aclose()

    @contextmanager
    def _linked(self, stream: MessageStream) -> Iterator[_Link]:
        """Make a link the one in use; a newer stream from the same peer replaces an older one."""
        peer = stream.peer.node_id
        with trio.CancelScope() as scope:
            link = _Link(stream, scope)
            older = self._links.get(peer)
            self._links[peer] = link
            if stream.proven:
                self._note_name(stream.peer)
            if older is not None:
                older.scope.cancel()
                self._listener.peer_lost(peer)
            self._listener.peer_connected(peer)
            try:
                yield link
            finally:
                if self._links.get(peer) is link:
                    del self._links[peer]
                    self._listener.peer_lost(peer)

    def _note_name(self, peer: Hello) -> None:
        if peer.node_id not in self._names and len(self._names) >= NAMES_MAX:
            del self._names[next(iter(self._names))]
        self._names[peer.node_id] = peer.name

    async def _read(self, stream: MessageStream) -> None:
        try:
            await stream.receive(partial(self._take_in, stream.peer.node_id))
        except PeerUnavailable:
            pass
        except MessageInvalid as error:
            _rejected.labels("invalid").inc()
            name = stream.peer.name
            self._throttled.log(
                log.warning, "peer sent an invalid message", name, peer=name, reason=str(error)
            )

    def _take_in(self, peer: NodeId, messages: Sequence[PeerMessage]) -> bool:
        received: list[Message] = []
        for message in messages:
            if message.sender != peer:
                _rejected.labels("wrong_sender").inc()
            elif type(message) in _OF_MEMBERS and not self._is_member(peer):
                # Members alone know a leader, so nobody honest waits for an answer.
                _rejected.labels("stranger").inc()
            elif isinstance(message, LeaderMessage):
                self._listener.forward_received(message)
            else:
                received.append(message)
        if received:
            self._listener.messages_received(received)
        return True
