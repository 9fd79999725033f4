"""RPC between nodes in memory: the `RpcNetwork` of the simulator.

Enters: the same calls as the real network's. Leaves: the same streams, hellos and refusals.
Never: threads, asyncio, sockets, real time.

All nodes of a simulation share one `RpcHub`; each has a `MemoryRpcNetwork` that knows its own
address. Messages are passed as objects, after a delay drawn from the hub's generator, in order
within a stream. Faults are per message, as on a real network between real TCP connections:

- `partition(a, b)`: with "stall", messages wait until `heal`, as TCP would retry; with "drop" the
  message that is sent is lost and the stream is broken for good once the partition heals.
  New streams cannot be opened.
- `kill(address)`: the process died. All its streams are reset at once, on both sides, and
  nobody listens there any more.
"""

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import trio

from noti.address import Address
from noti.errors import AddressInUse, PeerUnavailable
from noti.publishing.ports import Draft, Outcome, Publishing
from noti.raft.core.messages import PeerMessage
from noti.raft.ports import Hello, MessageStream
from noti.rpc.ports import NodeReport, PeerHandler
from tests.simulation.alarm import Alarm, now, sleep_until
from tests.simulation.timeline import MACHINE

Fault: TypeAlias = Literal["stall", "drop"]

KEEPALIVE_S: Final = (5.0, 10.0)
"""When the real network's pings find out that nobody is there."""
ROUNDING_S: Final = 1e-9
"""A virtual clock that jumped to a deadline may stand a little before it."""
IN_FLIGHT_MAX: Final = 1024
"""Batches on their way in one direction of a stream; then `send` waits, as TCP's window would."""


@dataclass(frozen=True, slots=True)
class _Listener:
    peers: PeerHandler
    publishing: Publishing
    nursery: trio.Nursery
    machine: str
    """Whose log lines those of its tasks are."""


class RpcHub:
    """The network that all nodes of one simulation share."""

    def __init__(
        self,
        rng: random.Random,
        *,
        latency_s: tuple[float, float] = (0.0002, 0.002),
        trace: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`latency_s` is the range of one message's delay; `trace` gets a line for every event."""
        self._rng = rng
        self.latency_s = latency_s
        self._trace = trace
        self._listeners: dict[Address, _Listener] = {}
        self._faults: dict[tuple[Address, Address], Fault] = {}
        self._healed = trio.Event()
        self._streams: list[_Pipe] = []
        self._port = 40000
        self._frozen: set[Address] = set()
        self.watch: Callable[[Address, Hello, Sequence[PeerMessage]], None] | None = None
        """Hears what is sent: from which address, to whom."""
        self.happened: Callable[[str], None] = lambda fault: None
        """Hears of each fault when it takes effect."""
        self.wire: Callable[[Sequence[PeerMessage]], Sequence[PeerMessage]] = tuple
        """What arrives of the messages that are sent together."""

    def partition(
        self, a: Address, b: Address, fault: Fault = "stall", *, one_way: bool = False
    ) -> None:
        """Cut the link between two nodes, both ways or from `a` to `b` alone, until `heal`."""
        self._trace(f"partition {a} {b} {fault} {'one way' if one_way else ''}")
        self._faults[a, b] = fault
        if not one_way:
            self._faults[b, a] = fault

    def reset(self, a: Address, b: Address) -> None:
        """Break all streams between two nodes, at once; new ones can be opened."""
        self._trace(f"reset {a} {b}")
        for pipe in list(self._streams):
            if {pipe.source, pipe.target} == {a, b}:
                self.happened("a stream was reset")
                pipe.break_("connection reset by peer")

    def freeze(self, address: Address) -> None:
        """Neither send nor receive for a process that is stopped, until `thaw`."""
        self._frozen.add(address)

    def thaw(self, address: Address) -> None:
        """Let a process go on."""
        self._frozen.discard(address)
        self._tell_changed()

    def heal(self) -> None:
        """Repair all links."""
        self._trace("heal")
        self._faults.clear()
        self._tell_changed()

    def _tell_changed(self) -> None:
        self._healed.set()
        self._healed = trio.Event()
        for pipe in self._streams:
            pipe.wake_receiver()

    def kill(self, address: Address) -> None:
        """Reset every stream of a node, as the kernel does when its process dies."""
        self._trace(f"kill {address}")
        self._listeners.pop(address, None)
        for pipe in list(self._streams):
            if address in (pipe.source, pipe.target):
                pipe.break_("connection reset by peer")

    def is_cut_somewhere(self) -> bool:
        """Tell whether anything is kept from reaching anybody."""
        return bool(self._faults or self._frozen)

    def is_cut(self, a: Address, b: Address) -> bool:
        """Tell whether messages from `a` do not reach `b`."""
        return (a, b) in self._faults or a in self._frozen or b in self._frozen

    def fault(self, a: Address, b: Address) -> Fault | None:
        """What happens to messages from `a` to `b`."""
        return self._faults.get((a, b))

    def vanish(self, address: Address) -> None:
        """Cut a node's power: nobody is told. The others' streams break when keep-alive pings are
        not answered, or when a machine under that address is there again and knows nothing of them.
        """
        self._trace(f"vanish {address}")
        self._listeners.pop(address, None)
        for pipe in self._streams:
            if address in (pipe.source, pipe.target):
                pipe.vanish(now() + self._rng.uniform(*KEEPALIVE_S))

    async def delay(self) -> None:
        """Take the time of one message."""
        await sleep_until(self.arrival())

    def arrival(self) -> float:
        """Return when a message sent now arrives."""
        return now() + self._rng.uniform(*self.latency_s)

    async def wait_healed(self) -> None:
        """Wait for the next `heal`."""
        await self._healed.wait()

    def free_address(self, address: Address) -> Address:
        """Return `address` with a real port (0 means any); raises `AddressInUse`."""
        host, port = address
        if port == 0:
            self._port += 1
            port = self._port
        if (host, port) in self._listeners:
            raise AddressInUse(f"cannot listen on {host}:{port} for RPC: choose another --rpc-addr")
        return host, port

    def bind(self, address: Address, listener: _Listener) -> None:
        """Start listening."""
        for pipe in list(self._streams):
            if pipe.vanished and address in (pipe.source, pipe.target):
                pipe.break_("connection reset by peer")
        self._listeners[address] = listener

    def unbind(self, address: Address, listener: _Listener) -> None:
        """Stop listening, unless somebody else listens there by now."""
        if self._listeners.get(address) is listener:
            del self._listeners[address]

    def listener(self, address: Address) -> _Listener | None:
        """Who listens on `address`."""
        return self._listeners.get(address)

    def pipe(self, source: Address, target: Address) -> "_Pipe":
        """Make one direction of a stream."""
        pipe = _Pipe(self, source, target)
        self._streams.append(pipe)
        return pipe

    def forget(self, pipe: "_Pipe") -> None:
        """Drop a broken pipe from the list of those that `kill` resets."""
        if pipe in self._streams:
            self._streams.remove(pipe)


class _Pipe:
    """One direction of one stream."""

    def __init__(self, hub: RpcHub, source: Address, target: Address) -> None:
        self.source = source
        self.target = target
        self._hub = hub
        self._under_way: deque[tuple[float, Sequence[PeerMessage]]] = deque()
        """(arrival, batch)."""
        self._room = trio.Event()
        self._arrives = Alarm()
        """Wakes whoever waits for the next arrival, once."""
        self._last_arrival = -math.inf
        self._reason: str | None = None
        self._lossy = False
        self._closed = False
        self._breaks_at: float | None = None

    @property
    def vanished(self) -> bool:
        """Whether one side has no power any more."""
        return self._breaks_at is not None

    def vanish(self, breaks_at: float) -> None:
        """Deliver nothing any more, and break then."""
        self._breaks_at = breaks_at
        self.wake_receiver()

    def break_(self, reason: str) -> None:
        """End the pipe: whoever waits in it gets `PeerUnavailable` now."""
        if self._reason is None:
            self._reason = reason
            self._hub.forget(self)
            self._room.set()
            self.wake_receiver()

    def close(self) -> None:
        """End the pipe after what is on its way."""
        self._closed = True
        self.wake_receiver()

    def wake_receiver(self) -> None:
        """Let whoever waits in `receive` look again when there may be something."""
        if self._arrives.is_set:
            self._arrives.move(self._due())

    def _due(self) -> float:
        if self._reason is not None:
            return -math.inf
        if self._breaks_at is not None:
            return self._breaks_at
        if not self._under_way:
            return -math.inf if self._closed else math.inf
        cut = self._hub.is_cut(self.source, self.target)
        return math.inf if cut else self._under_way[0][0]

    def tell(self, peer: Hello, messages: Sequence[PeerMessage]) -> None:
        """Let the hub's watch hear what is about to be sent."""
        if self._hub.watch is not None:
            self._hub.watch(self.source, peer, messages)

    def _check(self) -> None:
        if self._breaks_at is not None and self._breaks_at <= now() + ROUNDING_S:
            self.break_("keep-alive pings were not answered")
        if self._reason is not None:
            raise PeerUnavailable(self._reason)

    async def send(self, messages: Sequence[PeerMessage]) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        self._put(messages)
        while len(self._under_way) > IN_FLIGHT_MAX:
            self._room = trio.Event()
            await self._room.wait()
            self._check()

    def send_at_once(self, messages: Sequence[PeerMessage]) -> bool:
        if len(self._under_way) >= IN_FLIGHT_MAX:
            self._check()
            return False
        self._put(messages)
        return True

    def _put(self, messages: Sequence[PeerMessage]) -> None:
        self._check()
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        fault = self._hub.fault(self.source, self.target)
        if fault is not None:
            one_way = self._hub.fault(self.target, self.source) is None
            lost = "lost" if fault == "drop" else "held up"
            self._hub.happened(f"a message was {lost} by a cut{' in one direction' * one_way}")
        if fault == "drop":
            self._lossy = True
            return
        if self._lossy:
            # A stream promises order without holes, so it cannot go on after a loss.
            self.break_("connection timed out")
        self._check()
        # In order within a stream, whatever the generator says.
        self._last_arrival = max(self._last_arrival, self._hub.arrival())
        self._under_way.append((self._last_arrival, self._hub.wire(messages)))
        self.wake_receiver()

    async def receive(self) -> Sequence[PeerMessage]:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            due = self._due()
            if due <= now() + ROUNDING_S:
                self._check()
                if not self._under_way:
                    self.break_("the other side closed the stream")
                    continue
                self._room.set()
                return self._under_way.popleft()[1]
            await self._arrives.wait_until(due)


class MemoryMessageStream:
    """One side of a stream between two nodes of the simulation."""

    proven = False
    """As without certificates."""

    def __init__(self, peer: Hello, outgoing: _Pipe, incoming: _Pipe) -> None:
        self._peer = peer
        self._outgoing = outgoing
        self._incoming = incoming

    @property
    def peer(self) -> Hello:
        return self._peer

    async def send(self, messages: Sequence[PeerMessage]) -> None:
        self._outgoing.tell(self._peer, messages)
        await self._outgoing.send(messages)

    def send_at_once(self, messages: Sequence[PeerMessage]) -> bool:
        if not self._outgoing.send_at_once(messages):
            return False
        self._outgoing.tell(self._peer, messages)
        return True

    async def receive(self, take: Callable[[Sequence[PeerMessage]], bool]) -> None:
        while take(await self._incoming.receive()):
            pass

    async def aclose(self) -> None:
        self._outgoing.close()
        self._incoming.break_("the stream was closed")
        await trio.lowlevel.checkpoint()


class MemoryRpcNetwork:
    """One node's view of the hub."""

    def __init__(self, hub: RpcHub, address: Address) -> None:
        """`address` is where this node's messages come from; for partitions and `kill`."""
        self._hub = hub
        self._address = address

    async def serve_rpc(
        self,
        bind: Address,
        peers: PeerHandler,
        node: NodeReport,
        publishing: Publishing,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        address = self._hub.free_address(bind)
        async with trio.open_nursery() as nursery:
            listener = _Listener(peers, publishing, nursery, MACHINE.get())
            self._hub.bind(address, listener)
            try:
                task_status.started(address)
                await trio.sleep_forever()
            finally:
                self._hub.unbind(address, listener)

    async def publish(self, to: Address, drafts: Sequence[Draft]) -> Outcome:
        """Publish as somebody outside of the cluster; an answer that is lost never comes."""
        await self._hub.delay()
        while self._hub.is_cut(self._address, to):
            await self._hub.wait_healed()
        listener = self._hub.listener(to)
        if listener is None:
            raise PeerUnavailable(f"cannot reach {to[0]}:{to[1]}: Connection refused")
        outcomes: list[Outcome] = []
        answered = trio.Event()

        def done(outcome: Outcome) -> None:
            outcomes.append(outcome)
            answered.set()

        listener.publishing.submit(drafts, done)
        await answered.wait()
        await self._hub.delay()
        while self._hub.is_cut(to, self._address):
            await self._hub.wait_healed()
        if self._hub.listener(to) is not listener:
            raise PeerUnavailable("connection reset by peer")
        return outcomes[0]

    async def open_raft_stream(self, to: Address, hello: Hello) -> MessageStream:
        await self._hub.delay()
        listener = self._hub.listener(to)
        while self._hub.is_cut(self._address, to) or self._hub.is_cut(to, self._address):
            await self._hub.wait_healed()
            listener = self._hub.listener(to)
        if listener is None:
            raise PeerUnavailable(f"cannot reach {to[0]}:{to[1]}: Connection refused")
        listener.peers.admit(hello, proven=False)
        there, back = self._hub.pipe(self._address, to), self._hub.pipe(to, self._address)
        peer = listener.peers.hello()
        listener.nursery.start_soon(
            _use, listener, MemoryMessageStream(hello, outgoing=back, incoming=there)
        )
        stream = MemoryMessageStream(peer, outgoing=there, incoming=back)
        try:
            await self._hub.delay()
        except trio.Cancelled:
            there.break_("the dialer went away")
            back.break_("the dialer went away")
            raise
        return stream


async def _use(listener: _Listener, stream: MemoryMessageStream) -> None:
    # The task was started by the dialer, and has its context.
    MACHINE.set(listener.machine)
    try:
        await listener.peers.raft_stream(stream)
    finally:
        await stream.aclose()
