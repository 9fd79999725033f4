"""An in-memory network for gossip: hosts with names and addresses, latency, loss, partitions.

No threads, real sockets or real time: it runs under `MockClock`, and repeats itself for a seed.
"""

import heapq
import math
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio

from noti.address import Address
from noti.errors import AddressInUse, PeerUnavailable
from noti.swim.ports import StreamHandler
from tests.simulation.alarm import Alarm, now, sleep_until

T = TypeVar("T")

EPHEMERAL_PORT_FIRST = 49_152
ROUNDING_S = 1e-9
"""A virtual clock that jumped to a deadline may stand a little before it."""


class VirtualClock:
    """`noti.ports.Clock` on Trio's clock, wall time included, so that runs repeat."""

    def __init__(self, wall_start_s: int = 1_700_000_000) -> None:
        self._wall_start_s = wall_start_s

    def now(self) -> float:
        return now()

    async def sleep_until(self, deadline: float) -> None:
        await sleep_until(deadline)

    def scope_until(self, deadline: float) -> trio.CancelScope:
        return trio.CancelScope(deadline=deadline)

    def wall_ms(self) -> int:
        return int((self._wall_start_s + now()) * 1000)


class MemoryNet:
    """The cables between hosts."""

    def __init__(
        self,
        rng: random.Random,
        *,
        latency_s: tuple[float, float] = (0.0002, 0.002),
        loss: float = 0.0,
    ) -> None:
        """Delay each packet by something between the two latencies, and lose a share of `loss`."""
        self._rng = rng
        self._latency_s = latency_s
        self.loss = loss
        self.duplicates = 0.0
        """The share of packets that arrive twice."""
        self.happened: Callable[[str], None] = lambda fault: None
        """Hears of each fault when it takes effect."""
        self.hosts: dict[str, MemoryNetwork] = {}
        self.names: dict[str, list[str]] = {}
        self._blocked: set[tuple[str, str]] = set()
        self._silent: set[str] = set()

    def host(self, ip: str, name: str | None = None) -> "MemoryNetwork":
        """Add a host; several may share a name."""
        if name is not None:
            self.names.setdefault(name, []).append(ip)
        return self.hosts.setdefault(ip, MemoryNetwork(self, ip))

    def forge(self, payload: bytes, source: Address, to: Address) -> None:
        """Let a packet arrive that claims to come from `source`, whoever sent it."""
        host, port = to
        target = self.hosts.get(host)
        if target is not None and port in target.datagrams:
            self.happened("a packet was forged")
            target.datagrams[port].belt.put(self.arrival(), (payload, source))

    def block(self, a: str, b: str) -> None:
        """Cut the cable between two hosts, for UDP and TCP."""
        self._blocked |= {(a, b), (b, a)}

    def block_one_way(self, a: str, b: str) -> None:
        """Lose what `a` sends to `b`."""
        self._blocked.add((a, b))

    def silence(self, ip: str) -> None:
        """Lose all that a host sends or should receive, until `unsilence`."""
        self._silent.add(ip)

    def unsilence(self, ip: str) -> None:
        """Connect a host again, as far as its cables are whole."""
        self._silent.discard(ip)

    def heal(self) -> None:
        """Mend all cables; connections that met a cut stay silent."""
        self._blocked.clear()

    def is_cut(self) -> bool:
        """Whether any cable is cut."""
        return bool(self._blocked or self._silent)

    def is_blocked(self, a: str, b: str) -> bool:
        """Whether what `a` sends does not reach `b`."""
        return (a, b) in self._blocked or a in self._silent or b in self._silent

    def loses(self) -> bool:
        lost = self._rng.random() < self.loss
        if lost:
            self.happened("a packet was lost")
        return lost

    def copies(self) -> int:
        twice = self.duplicates and self._rng.random() < self.duplicates
        if twice:
            self.happened("a packet came twice")
        return 2 if twice else 1

    def arrival(self) -> float:
        return now() + self._rng.uniform(*self._latency_s)


class _Belt(Generic[T]):
    """Things under way to one receiver."""

    def __init__(self) -> None:
        self._under_way: list[tuple[float, int, T]] = []
        self._count = 0
        self._arrives = Alarm()
        """Wakes whoever waits for the first arrival, once."""

    def put(self, due: float, item: T) -> None:
        self._count += 1
        heapq.heappush(self._under_way, (due, self._count, item))
        if self._arrives.is_set:
            self._arrives.move(self._under_way[0][0])

    def overtakes(self, due: float) -> bool:
        """Whether something that was put before arrives later."""
        return bool(self._under_way) and self._under_way[-1][0] > due

    def arrived(self, count_max: int) -> list[T]:
        things: list[T] = []
        present = now() + ROUNDING_S
        while self._under_way and self._under_way[0][0] <= present and len(things) < count_max:
            things.append(heapq.heappop(self._under_way)[2])
        return things

    async def get(self) -> T:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            due = self._under_way[0][0] if self._under_way else math.inf
            if due <= now() + ROUNDING_S:
                return heapq.heappop(self._under_way)[2]
            await self._arrives.wait_until(due)


class MemoryDatagrams:
    """See `noti.swim.ports.Datagrams`."""

    def __init__(self, net: MemoryNet, ip: str, address: Address) -> None:
        self._net = net
        self._ip = ip
        self._address = address
        self.belt: _Belt[tuple[bytes, Address]] = _Belt()

    @property
    def address(self) -> Address:
        return self._address

    def send(self, payload: bytes, to: Address) -> None:
        host, port = to
        target = self._net.hosts.get(host)
        if target is None:
            raise PeerUnavailable(f"no route to {host}")
        socket = target.datagrams.get(port)
        if socket is None or self._net.is_blocked(self._ip, host) or self._net.loses():
            return
        for _ in range(self._net.copies()):
            arrival = self._net.arrival()
            if socket.belt.overtakes(arrival):
                self._net.happened("a packet overtook another")
            socket.belt.put(arrival, (payload, (self._ip, self._address[1])))

    async def receive(self) -> tuple[bytes, Address]:
        return await self.belt.get()

    def arrived(self, count_max: int) -> list[tuple[bytes, Address]]:
        return self.belt.arrived(count_max)


class MemoryStream(trio.abc.Stream):
    """One end of a connection; silent for ever once it met a cut cable, as TCP nearly is."""

    def __init__(self, net: MemoryNet, ends: tuple[str, str]) -> None:
        self._net = net
        self._ends = ends
        self.source = (ends[1], EPHEMERAL_PORT_FIRST)
        self._belt: _Belt[bytes] = _Belt()
        self._last_due = 0.0
        self._rest = b""
        self._ended = False
        self._closed = False
        self._silent = False
        self.peer: MemoryStream = self

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise trio.ClosedResourceError
        if self.peer._closed:
            raise trio.BrokenResourceError("connection reset")
        self._transmit(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if self._closed:
            raise trio.ClosedResourceError
        if not self._rest and not self._ended:
            self._rest = await self._belt.get()
            self._ended = not self._rest
        size = len(self._rest) if max_bytes is None else max_bytes
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._transmit(b"")
        await trio.lowlevel.checkpoint()

    def _transmit(self, data: bytes) -> None:
        self._silent = self._silent or self._net.is_blocked(*self._ends)
        if not self._silent:
            self._last_due = max(self._last_due, self._net.arrival())
            self.peer._belt.put(self._last_due, data)


class MemoryNetwork:
    """One host's network; see `noti.swim.ports.GossipNetwork`."""

    def __init__(self, net: MemoryNet, ip: str) -> None:
        self._net = net
        self._ip = ip
        self.datagrams: dict[int, MemoryDatagrams] = {}
        self._listening: dict[int, trio.MemorySendChannel[MemoryStream]] = {}

    @asynccontextmanager
    async def open_datagrams(self, bind: Address) -> AsyncIterator[MemoryDatagrams]:
        await trio.lowlevel.checkpoint()
        host, port = self._claim(bind, self.datagrams.keys())
        self.datagrams[port] = MemoryDatagrams(self._net, self._ip, (host, port))
        try:
            yield self.datagrams[port]
        finally:
            del self.datagrams[port]

    async def serve_streams(
        self,
        bind: Address,
        handler: StreamHandler,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await trio.lowlevel.checkpoint()
        host, port = self._claim(bind, self._listening.keys())
        self._listening[port], accepted = trio.open_memory_channel[MemoryStream](math.inf)
        try:
            async with trio.open_nursery() as nursery:
                task_status.started((host, port))
                async for stream in accepted:
                    nursery.start_soon(handler, stream, stream.source)
        finally:
            del self._listening[port]

    async def open_stream(self, to: Address) -> trio.abc.Stream:
        host, port = (await self.resolve(to))[0]
        await sleep_until(self._net.arrival())
        if self._net.is_blocked(self._ip, host) or self._net.is_blocked(host, self._ip):
            await trio.sleep_forever()  # until the caller gives up
        target = self._net.hosts.get(host)
        listening = target._listening.get(port) if target is not None else None
        if listening is None:
            raise PeerUnavailable(f"cannot connect to {host}:{port}: connection refused")
        mine = MemoryStream(self._net, (self._ip, host))
        mine.peer = MemoryStream(self._net, (host, self._ip))
        mine.peer.peer = mine
        listening.send_nowait(mine.peer)
        return mine

    async def resolve(self, address: Address) -> list[Address]:
        await trio.lowlevel.checkpoint()
        host, port = address
        if host.replace(".", "").isdigit():
            return [address]
        if host not in self._net.names:
            raise PeerUnavailable(f"cannot resolve {host}: name not known")
        return [(ip, port) for ip in self._net.names[host]]

    def _claim(self, bind: Address, used: Collection[int]) -> Address:
        host, port = bind
        if host not in (self._ip, "0.0.0.0"):
            raise AddressInUse(f"cannot listen for gossip on {host}:{port}: not our address")
        if port in used:
            raise AddressInUse(f"cannot listen for gossip on {host}:{port}: taken")
        return host, port or max([EPHEMERAL_PORT_FIRST, *(each + 1 for each in used)])
