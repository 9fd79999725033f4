"""Carries gossip: sockets and time for the core, members for the rest of the node.

Enters: packets and streams from anywhere, tags from the node. Leaves: the list of members.
Never: judging members (the core does); an exception because of what somebody sent.
"""

import random
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import assert_never

import structlog
import trio
from prometheus_client import Counter

from noti.address import Address, format_address
from noti.errors import AddressInUse, ConfigInvalid, MessageInvalid, PeerUnavailable
from noti.ports import Clock
from noti.swim.core.events import (
    Accused,
    Effect,
    Event,
    ExchangeEnded,
    ExchangeState,
    LeaveFinished,
    LeaveRequested,
    MemberChanged,
    NameConflict,
    OtherCluster,
    PacketReceived,
    PacketUnsendable,
    PingByStream,
    ReachedByStreamOnly,
    Refused,
    SendPacket,
    StateReceived,
    StreamPingAnswered,
    TagsChanged,
    TimerExpired,
)
from noti.swim.core.machine import Swim
from noti.swim.core.messages import (
    Ack,
    Failure,
    Member,
    Ping,
    PushPull,
    StreamMessage,
    User,
)
from noti.swim.core.packets import decode_packet, encode_tags
from noti.swim.core.streams import StreamDecoder, encode_stream
from noti.swim.core.timing import SwimConfig
from noti.swim.ports import Datagrams, GossipNetwork
from noti.swim.reporting import GossipReporter

log = structlog.get_logger("noti.swim")

PACKETS_WAITING_MAX = 1024
"""Packets to be sent; more are dropped, as the network would."""

DIALS_WAITING_MAX = 256
"""TCP exchanges to be begun; the core orders a few per second."""

BIND_ATTEMPTS_MAX = 16
"""Tries to find a port that is free for UDP and TCP, when any will do."""

_received = Counter("noti_swim_packets_received", "Gossip packets received.")
_sent = Counter("noti_swim_packets_sent", "Gossip packets sent.")


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
    ) -> None:
        """Describe the node; nothing starts before `run`.

        Others reach it at `advertise`, or at `bind` if that is None. Hosts may be names.
        """
        self._name = name
        self._bind = bind
        self._advertise = advertise
        self._seeds = tuple(seeds)
        self._timing = timing
        self._network = network
        self._clock = clock
        self._rng = rng
        self._tags: Mapping[str, str] = {}
        self._core: Swim | None = None
        self._address: Address = bind
        self._changed = trio.Event()
        self._left = trio.Event()
        self._wait = trio.CancelScope()
        self._wait_until = 0.0
        self._complaints = GossipReporter(clock)
        self._packets_in, self._packets_out = trio.open_memory_channel[SendPacket](
            PACKETS_WAITING_MAX
        )
        self._dials_in, self._dials_out = trio.open_memory_channel[PingByStream | ExchangeState](
            DIALS_WAITING_MAX
        )

    async def run(
        self, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Gossip until cancelled; ready, with the bound address, when started.

        Seeds are dialled in the background, for ever. Raises `AddressInUse`, and `ConfigInvalid`
        when the address for others is not one, or the tags do not fit. When it is cancelled
        without `leave`, others see this node fail.
        """
        for attempts_left in reversed(range(BIND_ATTEMPTS_MAX)):
            try:
                async with self._network.open_datagrams(self._bind) as datagrams:
                    await self._make_core(datagrams.address)
                    await self._run_on(datagrams, task_status)
            except AddressInUse:
                # Any port would do, but the one that UDP got is taken for TCP.
                if self._bind[1] != 0 or not attempts_left:
                    raise

    async def leave(self) -> None:
        """Tell everyone that this node leaves on purpose; `run` must still be running.

        Returns after about `SwimConfig.leave_s`, at once if nobody is there. Cancelled, it leaves
        the announcement half spread.
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

    def members(self) -> tuple[Member, ...]:
        """Return everyone known, ourselves included, by name; nobody before `run` is ready."""
        return () if self._core is None else self._core.members()

    async def wait_changed(self) -> None:
        """Return at the next change of `members()`."""
        await self._changed.wait()

    async def _make_core(self, bound: Address) -> None:
        self._address = await self._address_for_others(bound)
        self._core = Swim(
            name=self._name,
            address=self._address,
            tags=self._tags,
            incarnation=self._clock.wall_ms() // 1000,
            seeds=self._seeds,
            config=self._timing,
            rng=self._rng,
            now=self._clock.now(),
        )
        self._complaints.begin()

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

    async def _run_on(self, datagrams: Datagrams, task_status: trio.TaskStatus[Address]) -> None:
        refused: AddressInUse | None = None
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(
                    self._network.serve_streams, datagrams.address, self._serve_stream
                )
            except AddressInUse as error:
                refused = error  # raised outside, where it is not wrapped in a group
            else:
                nursery.start_soon(self._receive, datagrams)
                nursery.start_soon(self._send, datagrams)
                nursery.start_soon(self._dial_all)
                nursery.start_soon(self._keep_time)
                log.info("gossip started", name=self._name, address=self._address)
                task_status.started(datagrams.address)
        if refused is not None:
            raise refused

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
            payload, source = await datagrams.receive()
            _received.inc()
            try:
                packet = decode_packet(payload)
            except MessageInvalid as error:
                self._complaints.refuse("undecodable", source[0], str(error))
                continue
            if packet.broken:
                self._complaints.refuse("part", source[0], "a packet with broken parts")
            self._handle(PacketReceived(packet.messages, source))

    async def _send(self, datagrams: Datagrams) -> None:
        async for order in self._packets_out:
            try:
                await datagrams.send(order.payload, order.to)
                _sent.inc()
            except PeerUnavailable as error:
                self._complaints.complain(
                    "gossip packet cannot be sent", str(order.to), reason=str(error)
                )
                self._handle(PacketUnsendable(order.to))

    async def _dial_all(self) -> None:
        async with trio.open_nursery() as nursery:
            async for order in self._dials_out:
                match order:
                    case ExchangeState():
                        nursery.start_soon(self._exchange, order)
                    case PingByStream():
                        nursery.start_soon(self._ping_by_stream, order)
                    case _:
                        assert_never(order)

    # Streams

    async def _exchange(self, order: ExchangeState) -> None:
        reached: Address | None = None
        reason = "no answer in time"
        with trio.move_on_after(self._timing.stream_timeout_s):
            try:
                reached = await self._exchange_with_one_of(
                    await self._network.resolve(order.to), order
                )
            except (PeerUnavailable, MessageInvalid, trio.BrokenResourceError) as error:
                reason = str(error) or "connection lost"
        if reached is None:
            self._complaints.complain(
                "gossip peer does not answer", format_address(order.to), reason=reason
            )
        self._handle(ExchangeEnded(order.to, order.join, reached))

    async def _exchange_with_one_of(
        self, addresses: list[Address], order: ExchangeState
    ) -> Address:
        others = [address for address in addresses if address != self._address]
        if not others:
            return self._address
        address = self._rng.choice(others)
        async with await self._network.open_stream(address) as stream:
            await stream.send_all(encode_stream(self._running_core().state(join=order.join)))
            answer = await _read(stream)
        match answer:
            case PushPull():
                self._handle(StateReceived(answer))
            case Failure(reason):
                raise PeerUnavailable(f"refused by the other side: {reason}")
            case _:
                raise MessageInvalid("an answer that is no state")
        return address

    async def _ping_by_stream(self, order: PingByStream) -> None:
        ping = Ping(order.sequence, order.node, self._address, self._name)
        with trio.move_on_after(order.timeout_s):
            try:
                async with await self._network.open_stream(order.to) as stream:
                    await stream.send_all(encode_stream(ping))
                    answer = await _read(stream)
            except (PeerUnavailable, MessageInvalid, trio.BrokenResourceError):
                return  # silence is the answer
            if isinstance(answer, Ack) and answer.sequence == order.sequence:
                self._handle(StreamPingAnswered(order.sequence))

    async def _serve_stream(self, stream: trio.abc.Stream) -> None:
        async with stream:
            try:
                with trio.move_on_after(self._timing.stream_timeout_s):
                    await self._answer(stream, await _read(stream))
            except MessageInvalid as error:
                self._complaints.refuse("stream", "streams", str(error))
            except trio.BrokenResourceError:
                pass  # the other side went away, which is its business

    async def _answer(self, stream: trio.abc.Stream, question: StreamMessage) -> None:
        match question:
            case Ping(sequence, target):
                if target in ("", self._name):
                    await stream.send_all(encode_stream(Ack(sequence, None)))
            case PushPull(join):
                await stream.send_all(encode_stream(self._running_core().state(join=join)))
                self._handle(StateReceived(question))
            case User():
                self._handle(PacketReceived((question,), self._address))
            case Ack() | Failure():
                raise MessageInvalid("an answer where a question belongs")
            case _:
                assert_never(question)

    # The core

    def _running_core(self) -> Swim:
        assert self._core is not None
        return self._core

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
                try:
                    self._packets_in.send_nowait(effect)
                except trio.WouldBlock:
                    self._complaints.refuse(
                        "backlog", "backlog", "packets are not sent fast enough"
                    )
            case ExchangeState() | PingByStream():
                self._dial(effect)
            case MemberChanged():
                self._changed.set()
                self._changed = trio.Event()
                self._complaints.changed(effect)
            case NameConflict(name, known, refused):
                self._complaints.count_refused("name conflict")
                self._complaints.complain(
                    "two nodes use one name: give one of them another",
                    format_address(refused),
                    name=name,
                    known=format_address(known),
                )
            case OtherCluster(name, address, cluster):
                self._complaints.count_refused("other cluster")
                self._complaints.complain(
                    "a member of another cluster gossips with us and is ignored",
                    format_address(address),
                    name=name,
                    cluster=cluster,
                )
            case Refused(reason, kind):
                self._complaints.refuse(kind, kind, reason)
            case ReachedByStreamOnly(name, address):
                self._complaints.complain(
                    "member answers TCP but not UDP: is UDP blocked?",
                    format_address(address),
                    name=name,
                )
            case Accused(accuser):
                self._complaints.complain("suspected of being gone, and objected", accuser)
            case LeaveFinished():
                self._left.set()
            case _:
                assert_never(effect)

    def _dial(self, order: ExchangeState | PingByStream) -> None:
        try:
            self._dials_in.send_nowait(order)
        except trio.WouldBlock:
            self._complaints.refuse("backlog", "backlog", "TCP exchanges are not begun fast enough")
            if isinstance(order, ExchangeState):
                self._handle(ExchangeEnded(order.to, order.join, None))


async def _read(stream: trio.abc.ReceiveStream) -> StreamMessage:
    """Return the one message of a stream; raises `MessageInvalid` when it ends before."""
    decoder = StreamDecoder()
    async for data in stream:
        message = decoder.feed(bytes(data))
        if message is not None:
            return message
    raise MessageInvalid("a stream that ended before its message did")
