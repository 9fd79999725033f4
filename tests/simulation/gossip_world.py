"""Gossip cores as machines in virtual time, with the network between them; thousands of packets a
second.

Enters: starts, crashes, cuts, all chosen by others. Leaves: what each machine believes.
Never: Trio, real time; a choice of what goes wrong, which is `gossip_storm.py`.

Packets and streams are the product's bytes: each is encoded, counted, and decoded again.
"""

import heapq
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

from noti.errors import MessageInvalid
from noti.swim.core.events import (
    Effect,
    Event,
    ExchangeEnded,
    ExchangeState,
    LeaveFinished,
    LeaveRequested,
    MemberChanged,
    PacketReceived,
    PingByStream,
    SendPacket,
    StateReceived,
    StreamPingAnswered,
    TagsChanged,
    TimerExpired,
)
from noti.swim.core.keyring import KeyRing
from noti.swim.core.machine import Swim
from noti.swim.core.messages import Address, Member, PushPull
from noti.swim.core.packets import decode_packet
from noti.swim.core.sealing import Encryption, Sealing
from noti.swim.core.streams import StreamDecoder, encode_stream
from noti.swim.core.timing import SwimConfig
from noti.swim.core.validate import CLOCK_S_MIN
from tests.simulation.faults import draw_rate
from tests.simulation.timeline import Timeline

PORT = 7946

HELD_MAX = 256
"""Packets that wait in the socket of a process that is stopped; Linux keeps about so many."""

ROUNDING_S = 1e-9
"""So much later than a deadline a timer rings, as rounding could make it early for ever."""

BUSY_MAX = 1000
"""A machine that is woken so often at one moment never waits."""

RECORDED_MAX = 500
"""Packets that an eavesdropper remembers."""


class GossipMachine:
    """A host with a clock of its own rate, whose process can be killed, stopped and moved."""

    def __init__(self, world: "GossipWorld", number: int) -> None:
        rng = random.Random(f"{world.seed}:{number}:machine")
        self.world = world
        self.name = f"n{number}"
        self.ip = f"10.0.0.{number}"
        self.tags = {"id": f"id of {self.name}", "role": "noti"}
        self.core: Swim | None = None
        self.boots = 0
        self.frozen = False
        self.leaving = False
        self.wall_ahead_s = 0
        """How wrong its calendar is."""
        self.disturbed_at = 0.0
        """When it last was not as it should be: down, stopped, leaving, just started."""
        self.sent: Counter[int] = Counter()
        """Packets by second of the world."""
        self.received: Counter[int] = Counter()
        self.rejected = 0
        self._rate = draw_rate(rng, world.clock_spread)
        self._clock_at_0 = rng.uniform(0, 10_000)
        self._held_packets: deque[tuple[bytes, Address]] = deque(maxlen=HELD_MAX)
        self._held: list[Event] = []
        self._armed_at = math.inf
        self._woken_at, self._woken = 0.0, 0

    @property
    def address(self) -> Address:
        return self.ip, PORT

    @property
    def running(self) -> Swim:
        assert self.core is not None
        return self.core

    def now(self) -> float:
        return self._clock_at_0 + self.world.now * self._rate

    def members(self) -> dict[str, Member]:
        """What it believes; nothing while it is down."""
        return {} if self.core is None else {each.name: each for each in self.core.members()}

    # What others do to it

    def start(self) -> None:
        self.boots += 1
        self.frozen = self.leaving = False
        self.core = Swim(
            name=self.name,
            address=self.address,
            tags=self.tags,
            incarnation=max(1, int(self.world.wall_s) + self.wall_ahead_s),
            seeds=[address for address in self.world.seeds if address != self.address],
            config=self.world.config,
            rng=random.Random(f"{self.world.seed}:{self.name}:{self.boots}"),
            now=self.now(),
        )
        self.disturb()
        self._rearm()

    def crash(self) -> None:
        self.disturb()
        self.core, self.frozen = None, False
        self._armed_at = math.inf
        self._held_packets.clear()
        self._held.clear()

    def freeze(self) -> None:
        """SIGSTOP: packets wait in the socket, up to its size."""
        self.frozen = True

    def thaw(self) -> None:
        """SIGCONT: what waited comes first, or else the timers, as it happens."""
        self.disturb()
        self.frozen = False
        if self.world.rng.random() < 0.5:
            self._ring(self.boots, self._armed_at)
        events, self._held = self._held, []
        for event in events:
            self.step(event)
        packets = list(self._held_packets)
        self._held_packets.clear()
        for payload, source in packets:
            self.receive(payload, source)
        self._rearm()

    def set_tags(self, tags: dict[str, str]) -> None:
        self.tags = tags
        self.step(TagsChanged(tags))

    def leave(self) -> None:
        self.leaving = True
        self.step(LeaveRequested())

    def disturb(self) -> None:
        """Note that from now on it needs a while to be as it should be."""
        self.disturbed_at = self.world.now

    @property
    def is_sound(self) -> bool:
        """Whether it runs, and nothing else is done to it."""
        return self.core is not None and not self.frozen and not self.leaving

    # What arrives

    def receive(self, payload: bytes, source: Address) -> None:
        if self.core is None:
            return
        if self.frozen:
            self._held_packets.append((payload, source))
            return
        self.received[int(self.world.now)] += 1
        try:
            packet = decode_packet(self.world.sealing.open_packet(payload))
        except MessageInvalid:
            self.rejected += 1
            return
        self.step(PacketReceived(packet.messages, source))

    def step(self, event: Event) -> None:
        if self.core is None:
            return
        if self.frozen:
            self._held.append(event)
            return
        for effect in self.core.handle(event, self.now()):
            self._carry_out(effect)
        self._rearm()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case SendPacket(payload, to):
                self.world.transmit(self, payload, to)
            case PingByStream():
                self.world.ping_by_stream(self, effect)
            case ExchangeState():
                self.world.exchange(self, effect)
            case MemberChanged():
                self.world.on_changed(self, effect)
            case LeaveFinished():
                self.world.timeline.note(self.name, "has left")
                self.crash()
            case _:
                self.world.timeline.reach(f"a node reported {type(effect).__name__}")

    def _rearm(self) -> None:
        if self.core is None or self.frozen:
            return
        due = (self.core.deadline() - self._clock_at_0) / self._rate + ROUNDING_S
        due = max(due, self.world.now)
        if due < self._armed_at:
            self._armed_at = due
            self.world.at(due, self._ring, self.boots, due)

    def _ring(self, boots: int, due: float) -> None:
        if boots != self.boots or self.core is None or due != self._armed_at:
            return
        self._armed_at = math.inf
        if self.frozen:
            return
        if self._woken_at != self.world.now:
            self._woken_at, self._woken = self.world.now, 0
        self._woken += 1
        assert self._woken < BUSY_MAX, f"{self.name} is always due"
        if self.now() >= self.core.deadline():
            self.step(TimerExpired())
        else:
            self._rearm()


@dataclass(slots=True)
class _Dial:
    """One TCP connection; it ends once."""

    dialer: GossipMachine
    boots: int
    over: bool = False

    def end(self, *events: Event) -> None:
        if not self.over and self.dialer.boots == self.boots:
            for event in events:
                self.dialer.step(event)
        self.over = True


class GossipWorld:
    """Machines, their network, and the one clock that is right."""

    def __init__(
        self,
        seed: int,
        size: int,
        config: SwimConfig,
        *,
        clock_spread: float = 0.0,
        key: bytes | None = None,
        show: Callable[[str], None] | None = None,
    ) -> None:
        """`key` is that of the cluster; None: nothing is sealed."""
        self.seed = seed
        self.sealing = sealing_under(key, seed)
        packet_bytes_max = config.packet_bytes_max - self.sealing.packet_overhead_bytes
        self.config = replace(config, packet_bytes_max=packet_bytes_max)
        self.clock_spread = clock_spread
        self.rng = random.Random(f"gossip world {seed}")
        self.now = 0.0
        self.timeline = Timeline(lambda: self.now, show)
        self.loss = 0.0
        self.latency_s = (0.0002, 0.002)
        self.duplicates = 0.0
        self.changed: Callable[[GossipMachine, MemberChanged], None] = lambda viewer, change: None
        """Hears of each change in what a machine believes."""
        self.recorded: deque[tuple[bytes, Address]] = deque(maxlen=RECORDED_MAX)
        self.packets = 0
        self._wall_at_0_s = CLOCK_S_MIN + 7200
        self._cut: dict[tuple[str, str], float] = {}
        """Links that carry nothing in this direction, and since when."""
        self._udp_cut: set[tuple[str, str]] = set()
        self._mended_at: dict[tuple[str, str], float] = {}
        self._due: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._count = 0
        self.machines = {
            machine.name: machine
            for machine in (GossipMachine(self, number) for number in range(1, size + 1))
        }
        self.by_ip = {machine.ip: machine for machine in self.machines.values()}
        self.seeds = [machine.address for machine in list(self.machines.values())[:3]]

    @property
    def wall_s(self) -> float:
        return self._wall_at_0_s + self.now

    def start(self) -> None:
        for machine in self.machines.values():
            machine.start()

    def at(self, when: float, action: Callable[..., None], *arguments: object) -> None:
        self._count += 1
        heapq.heappush(self._due, (when, self._count, action, arguments))

    def run(self, duration_s: float) -> None:
        """Let time pass."""
        end = self.now + duration_s
        while self._due and self._due[0][0] <= end:
            self.now, _, action, arguments = heapq.heappop(self._due)
            action(*arguments)
        self.now = end

    def run_until(self, done: Callable[[], bool], within_s: float) -> bool:
        """Let time pass until it is so; return whether it became so."""
        end = self.now + within_s
        while not done():
            if self.now >= end:
                return False
            self.run(0.5)
        return True

    def move(self, machine: GossipMachine, ip: str) -> None:
        """Give a machine that is down another address."""
        assert machine.core is None
        self.by_ip.pop(machine.ip)
        machine.ip = ip
        self.by_ip[ip] = machine

    def on_changed(self, viewer: GossipMachine, change: MemberChanged) -> None:
        state = "forgotten" if change.forgotten else change.member.state.name.lower()
        self.timeline.note(
            viewer.name, f"sees {change.member.name} {state} {change.member.incarnation}"
        )
        self.changed(viewer, change)

    # The network

    def cut(self, sender: str, receiver: str) -> None:
        """Lose what goes from one address to another."""
        self._cut.setdefault((sender, receiver), self.now)

    def cut_udp(self, one: str, other: str) -> None:
        """Lose packets between two, and pass streams."""
        self._udp_cut |= {(one, other), (other, one)}

    def mend(self) -> None:
        self._mended_at |= dict.fromkeys([*self._cut, *self._udp_cut], self.now)
        self._cut.clear()
        self._udp_cut.clear()

    @property
    def is_cut(self) -> bool:
        return bool(self._cut or self._udp_cut)

    def connected_since(self, one: GossipMachine, other: GossipMachine) -> float:
        """Since when two reach each other directly; infinite if they do not."""
        links = ((one.ip, other.ip), (other.ip, one.ip))
        if any(link in self._cut or link in self._udp_cut for link in links):
            return math.inf
        return max(self._mended_at.get(link, 0.0) for link in links)

    def transmit(self, sender: GossipMachine, payload: bytes, to: Address) -> None:
        assert len(payload) <= self.config.packet_bytes_max, f"{len(payload)} bytes in a packet"
        payload = self.sealing.seal_packet(payload)
        sender.sent[int(self.now)] += 1
        self.packets += 1
        self.timeline.mix(f"{sender.name} {to[0]} {len(payload)}")
        receiver = self.by_ip.get(to[0])
        if receiver is None or to[1] != PORT or receiver.core is None:
            return
        if self.rng.random() < 0.01:
            self.recorded.append((payload, sender.address))
        link = (sender.ip, receiver.ip)
        if (self._cut and link in self._cut) or (self._udp_cut and link in self._udp_cut):
            return
        if self.loss and self.rng.random() < self.loss:
            return
        self.deliver(receiver, payload, sender.address)
        if self.duplicates and self.rng.random() < self.duplicates:
            self.deliver(receiver, payload, sender.address)

    def deliver(self, receiver: GossipMachine, payload: bytes, source: Address) -> None:
        """Let a packet arrive after a while, whoever sent it."""
        self.at(
            self.now + self.rng.uniform(*self.latency_s),
            self._arrive,
            receiver,
            receiver.boots,
            payload,
            source,
        )

    def _arrive(self, receiver: GossipMachine, boots: int, payload: bytes, source: Address) -> None:
        if receiver.boots == boots:
            receiver.receive(payload, source)

    def _stream_delay_s(self) -> float:
        delay_s = self.rng.uniform(*self.latency_s)
        while self.loss and self.rng.random() < self.loss:
            delay_s += 0.2  # TCP sends it again
        return delay_s

    def _passes_stream(self, one: GossipMachine, other: GossipMachine) -> bool:
        return not {(one.ip, other.ip), (other.ip, one.ip)} & self._cut.keys()

    def exchange(self, dialer: GossipMachine, order: ExchangeState) -> None:
        dial = _Dial(dialer, dialer.boots)
        failed = ExchangeEnded(order.to, order.join, None)
        self.at(self.now + self.config.stream_timeout_s, dial.end, failed)
        receiver = self.by_ip.get(order.to[0])
        if receiver is dialer:
            dial.end(ExchangeEnded(order.to, order.join, dialer.address))
        elif receiver is not None:
            self.timeline.mix(f"{dialer.name} dials {receiver.name}")
            question = encode_stream(dialer.running.state(join=order.join))
            when = self.now + self._stream_delay_s()
            self.at(when, self._ask, dial, receiver, question, order)

    def _ask(
        self, dial: _Dial, receiver: GossipMachine, question: bytes, order: ExchangeState
    ) -> None:
        if not self._passes_stream(dial.dialer, receiver):
            return
        if receiver.core is None:
            dial.end(ExchangeEnded(order.to, order.join, None))  # refused
        elif not receiver.frozen:
            state = decode_state(question)
            assert receiver.core.why_refused(state) is None, "a real state is refused"
            answer = encode_stream(receiver.core.state(join=order.join))
            receiver.step(StateReceived(state, dial.dialer.address))
            when = self.now + self._stream_delay_s()
            self.at(when, self._answer, dial, receiver, answer, order)

    def _answer(
        self, dial: _Dial, receiver: GossipMachine, answer: bytes, order: ExchangeState
    ) -> None:
        if self._passes_stream(dial.dialer, receiver):
            ended = ExchangeEnded(order.to, order.join, receiver.address)
            state = decode_state(answer)
            dial.end(StateReceived(state, receiver.address, dialled=True), ended)

    def ping_by_stream(self, dialer: GossipMachine, order: PingByStream) -> None:
        receiver = self.by_ip.get(order.to[0])
        if receiver is not None:
            dial = _Dial(dialer, dialer.boots)
            delay_s = self._stream_delay_s() + self._stream_delay_s()
            if delay_s <= order.timeout_s:
                self.at(self.now + delay_s, self._pong, dial, receiver, order)

    def _pong(self, dial: _Dial, receiver: GossipMachine, order: PingByStream) -> None:
        core = receiver.core
        answers = core is not None and not core.has_left and not receiver.frozen
        if answers and receiver.name == order.node and self._passes_stream(dial.dialer, receiver):
            self.timeline.reach("a ping was answered by stream")
            dial.end(StreamPingAnswered(order.sequence))


def sealing_under(key: bytes | None, seed: int) -> Sealing:
    """Return how somebody with this key, or without one, seals what it sends."""
    keys = None if key is None else KeyRing([key])
    return Sealing(keys, Encryption.REQUIRED, "", random.Random(f"nonces {seed}").randbytes)


def decode_state(data: bytes) -> PushPull:
    """Return the state in a stream, which must be a whole one."""
    message = StreamDecoder().feed(data)
    assert isinstance(message, PushPull)
    return message
