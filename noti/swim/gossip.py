"""Carries gossip: sockets and time for the core, members for the rest of the node.

Whatever peers send, it raises nothing.
"""

import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address

import structlog
import trio
from prometheus_client import Counter

from noti.address import Address, format_address
from noti.errors import (
    AddressInUse,
    ConfigInvalid,
    MessageInvalid,
    PeerUnavailable,
    Unavailable,
)
from noti.ports import Clock
from noti.swim.core.events import (
    Effect,
    Event,
    ExchangeEnded,
    ExchangeState,
    LeaveFinished,
    LeaveRequested,
    MemberChanged,
    MembersProtected,
    NameConflict,
    PacketReceived,
    PacketUnsendable,
    PingByStream,
    QueryAnswered,
    QueryEnded,
    SendPacket,
    TagsChanged,
    TimerExpired,
)
from noti.swim.core.keyring import KeyRing
from noti.swim.core.machine import Swim
from noti.swim.core.messages import (
    Member,
)
from noti.swim.core.packets import decode_packet, encode_tags
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.core.timing import SwimConfig
from noti.swim.ports import Datagrams, GossipNetwork
from noti.swim.reporting import GossipReporter
from noti.swim.serf_requests import SerfRequests
from noti.swim.stream_exchanges import StreamExchanges

log = structlog.get_logger("noti.swim")

PACKETS_AT_ONCE_MAX = 16
"""Packets taken in one turn of the loop: about 1 ms, and with long turns a node still keeps up."""

DIALS_WAITING_MAX = 256
"""TCP exchanges to be begun; the core orders a few per second."""

EXCHANGES_MAX = 8
"""States exchanged at a time by dialling: whoever makes us dial strangers gets no more of us."""

STREAM_PINGS_MAX = 4
"""Pings over TCP at a time, beside those: they must not wait for strangers that do not answer."""

BIND_ATTEMPTS_MAX = 16
"""Tries to find a port that is free for UDP and TCP, when any will do."""

_received = Counter("noti_swim_packets_received_total", "Gossip packets received.")
_sent = Counter("noti_swim_packets_sent_total", "Gossip packets sent.")


class Gossip:
    """This node's membership service."""

    def __init__(
        self,
        *,
        name: str,
        bind: Address,
        advertise: Address | None,
        seeds: Sequence[Address],
        timing: SwimConfig,
        network: GossipNetwork,
        clock: Clock,
        rng: random.Random,
        keys: KeyRing | None = None,
        encryption: Encryption = Encryption.REQUIRED,
        label: str = "",
    ) -> None:
        """Describe the node; nothing starts before `run`.

        Others reach it at `advertise`, or at `bind` if that is None. Hosts may be names. `keys` may
        change at any time; None: nothing is encrypted, whatever `encryption` says. Raises
        `ConfigInvalid` when the label is too long.
        """
        self._name = name
        self._bind = bind
        self._advertise = advertise
        self._seeds = tuple(seeds)
        self._sealing = Sealing(keys, encryption, label, secrets.token_bytes)
        packet_bytes_max = timing.packet_bytes_max - self._sealing.packet_overhead_bytes
        self._timing = replace(timing, packet_bytes_max=packet_bytes_max)
        self._ring = keys if encryption is Encryption.REQUIRED else None
        """Whoever knows a key may change keys; so where packets are taken without, nobody may."""
        self._network = network
        self._clock = clock
        self._rng = rng
        self._tags: Mapping[str, str] = {}
        self._protected: Mapping[str, str] = {}
        self._core: Swim | None = None
        self._changed = trio.Event()
        self._left = trio.Event()
        self._wait = trio.CancelScope()
        self._wait_until = 0.0
        self._reporter = GossipReporter(clock)
        self._requests = SerfRequests(
            name,
            handle=self._request,
            members=self.members,
            members_max=timing.members_max,
            clock=clock,
            rng=rng,
            ring=self._ring,
        )
        self.send_event = self._requests.send_event
        self.query = self._requests.query
        self.keys_query = self._requests.keys_query
        self.force_leave = self._requests.force_leave
        self._datagrams: Datagrams | None = None
        """While it runs."""
        self._exchanges_in, self._exchanges_out = trio.open_memory_channel[ExchangeState](
            DIALS_WAITING_MAX
        )
        self._pings_in, self._pings_out = trio.open_memory_channel[PingByStream](DIALS_WAITING_MAX)

    async def run(
        self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Gossip until cancelled; ready, with the bound address, when started.

        Seeds are dialled in the background. Raises `AddressInUse`, and `ConfigInvalid`
        when the address for others is not one, or the tags do not fit. When it is cancelled
        without `leave`, others see this node fail.
        """
        for attempts_left in reversed(range(BIND_ATTEMPTS_MAX)):
            try:
                async with self._network.open_datagrams(self._bind) as datagrams:
                    streams = await self._make_core(datagrams.address)
                    self._datagrams = datagrams
                    try:
                        await self._run_on(datagrams, streams, task_status)
                    finally:
                        self._datagrams = None
            except AddressInUse:
                # Any port would do, but the one that UDP got is taken for TCP.
                if self._bind[1] != 0 or not attempts_left:
                    raise

    async def leave(self) -> None:
        """Announce to all members that this node leaves; `run` must still be running.

        Returns after about `SwimConfig.leave_s`, at once without other members. When it is
        cancelled, only some members may have received the announcement.
        """
        if self._core is None:
            return
        self._handle(LeaveRequested())
        with trio.move_on_after(2 * self._timing.leave_s):
            await self._left.wait()

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Show everyone these tags from now on; raises `ConfigInvalid` when they are too long."""
        self._tags = dict(tags)
        encode_tags(self._tags)
        if self._core is not None:
            self._handle(TagsChanged(self._tags))

    def protect(self, names: Mapping[str, str]) -> None:
        """Say which nodes are the cluster's own: never forgotten, and never crowded out.

        By identity (the tag `id`), each with its name, or an empty one where it is not known.
        """
        self._protected = dict(names)
        if self._core is not None:
            self._handle(MembersProtected(self._protected))

    def members(self) -> tuple[Member, ...]:
        """Return all members, this node included, by name; none before `run` is ready."""
        return () if self._core is None else self._core.members()

    def distance_s(self, one: str, other: str) -> float | None:
        """Return the estimated round trip between two members; None where it is not known."""
        return None if self._core is None else self._core.distance_s(one, other)

    async def wait_changed(self) -> None:
        """Return at the next change of `members()`."""
        await self._changed.wait()

    async def _make_core(self, bound: Address) -> StreamExchanges:
        address = await self._address_for_others(bound)
        self._core = Swim(
            name=self._name,
            address=address,
            tags=self._tags,
            incarnation=self._clock.wall_ms() // 1000,
            seeds=self._seeds,
            config=self._timing,
            rng=self._rng,
            now=self._clock.now(),
            ring=self._ring,
        )
        self._reporter.begin()
        self.protect(self._protected)
        log.info("gossip started", name=self._name, address=format_address(address))
        return StreamExchanges(
            self._name,
            address,
            core=self._core,
            handle=self._handle,
            network=self._network,
            sealing=self._sealing,
            timeout_s=self._timing.stream_timeout_s,
            reporter=self._reporter,
            rng=self._rng,
        )

    async def _address_for_others(self, bound: Address) -> Address:
        host, port = self._advertise or bound
        try:
            resolved = await self._network.resolve((host, port or bound[1]))
        except PeerUnavailable as error:
            raise ConfigInvalid(f"gossip advertise address: {error}") from error
        if ip_address(resolved[0][0]).is_unspecified:
            raise ConfigInvalid(
                f"others cannot send to {host}: when listening on all interfaces, "
                "set the gossip advertise address"
            )
        return resolved[0]

    async def _run_on(
        self,
        datagrams: Datagrams,
        streams: StreamExchanges,
        task_status: trio.TaskStatus[Address],
    ) -> None:
        in_use: AddressInUse | None = None
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(self._network.serve_streams, datagrams.address, streams.serve)
            except AddressInUse as error:
                in_use = error  # raised outside, where it is not wrapped in a group
            else:
                nursery.start_soon(self._receive, datagrams)
                for _ in range(EXCHANGES_MAX):
                    nursery.start_soon(self._dial_all, streams, self._exchanges_out)
                for _ in range(STREAM_PINGS_MAX):
                    nursery.start_soon(self._dial_all, streams, self._pings_out)
                nursery.start_soon(self._keep_time)
                nursery.start_soon(self._requests.run)
                task_status.started(datagrams.address)
        if in_use is not None:
            raise in_use

    # The loops

    async def _keep_time(self) -> None:
        core = self._running_core()
        while True:
            self._wait_until = core.deadline()
            with trio.CancelScope() as self._wait:
                await self._clock.sleep_until(self._wait_until)
            if self._clock.now() >= core.deadline():
                self._handle(TimerExpired())

    async def _receive(self, datagrams: Datagrams) -> None:
        while True:
            self._take_packet(*await datagrams.receive())
            for payload, source in datagrams.arrived(PACKETS_AT_ONCE_MAX - 1):
                self._take_packet(payload, source)

    def _take_packet(self, payload: bytes, source: Address) -> None:
        _received.inc()
        try:
            packet = decode_packet(self._sealing.open_packet(payload))
        except MessageInvalid as error:
            self._reporter.reject_invalid(error, "undecodable", source[0])
            return
        if packet.invalid_parts:
            self._reporter.reject("part", source[0], "a packet with invalid parts")
        self._handle(PacketReceived(packet.messages, source))

    def _send(self, order: SendPacket) -> None:
        if self._datagrams is None:
            return
        try:
            self._datagrams.send(self._sealing.seal_packet(order.payload), order.to)
            _sent.inc()
        except PeerUnavailable as error:
            self._reporter.warn("gossip packet cannot be sent", str(order.to), reason=str(error))
            self._handle(PacketUnsendable(order.to))

    async def _dial_all(
        self,
        streams: StreamExchanges,
        orders: trio.MemoryReceiveChannel[ExchangeState] | trio.MemoryReceiveChannel[PingByStream],
    ) -> None:
        async for order in orders:
            await streams.carry_out(order)

    # The core

    def _running_core(self) -> Swim:
        assert self._core is not None
        return self._core

    def _request(self, event: Event) -> None:
        if self._core is None:
            raise Unavailable("this node does not gossip yet: try again in a moment")
        self._handle(event)

    def _handle(self, event: Event) -> None:
        """Let the core decide, at once; what it orders is done by the loops."""
        core = self._running_core()
        for effect in core.handle(event, self._clock.now()):
            self._carry_out(effect)
        if core.deadline() < self._wait_until:
            self._wait.cancel()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendPacket():
                self._send(effect)
            case ExchangeState() | PingByStream():
                self._dial(effect)
            case MemberChanged():
                self._changed.set()
                self._changed = trio.Event()
                self._reporter.report_change(effect)
            case LeaveFinished():
                self._left.set()
            case QueryAnswered() | QueryEnded():
                self._requests.take(effect)
            case _:
                if isinstance(effect, NameConflict) and effect.name == self._name:
                    self._requests.on_conflict()
                self._reporter.report(effect)

    def _dial(self, order: ExchangeState | PingByStream) -> None:
        try:
            if isinstance(order, PingByStream):
                self._pings_in.send_nowait(order)
            else:
                self._exchanges_in.send_nowait(order)
        except trio.WouldBlock:
            self._reporter.reject("backlog", "backlog", "TCP exchanges are not begun fast enough")
            if isinstance(order, ExchangeState):
                self._handle(ExchangeEnded(order.to, order.join, None))
