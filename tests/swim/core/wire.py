"""Joins cores by a wire in virtual time, without Trio.

Enters: cores. Leaves: all that they ordered, with its time.
Never: real time; randomness of its own.
"""

import heapq
import random
from collections.abc import Callable, Mapping, Sequence

from noti.swim.core.events import (
    Effect,
    Event,
    ExchangeEnded,
    ExchangeState,
    PacketReceived,
    PingByStream,
    SendPacket,
    StateReceived,
    StreamPingAnswered,
    TimerExpired,
)
from noti.swim.core.keyring import KeyRing
from noti.swim.core.machine import Swim
from noti.swim.core.messages import Ack, Address, Alive, Message, Ping, PushPull
from noti.swim.core.packets import decode_packet
from noti.swim.core.timing import SwimConfig

DELAY_S = 0.001


def address(name: str) -> Address:
    """Where a core called `n…` is."""
    return f"10.0.0.{name[1:]}", 7946


class Wire:
    """Some cores, their clock, and what lies between them."""

    def __init__(self, config: SwimConfig | None = None) -> None:
        self.now = 1000.0
        self.config = config or SwimConfig.local()
        self.cores: dict[str, Swim] = {}
        self.delay_s = DELAY_S
        self.effects: list[tuple[float, str, Effect]] = []
        self.sent: list[tuple[str, Address, Message]] = []
        self.stopped: set[str] = set()
        self.passes_udp: Callable[[str, str], bool] = lambda sender, receiver: True
        self.passes_tcp: Callable[[str, str], bool] = lambda sender, receiver: True
        self._under_way: list[tuple[float, int, str, Event, str]] = []
        """When, in which order, to whom, what, from whom."""
        self._count = 0
        self._busy_until: dict[str, float] = {}

    def add(
        self,
        name: str,
        *,
        seeds: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        incarnation: int = 1,
        ring: KeyRing | None = None,
    ) -> Swim:
        core = Swim(
            name=name,
            address=address(name),
            tags=tags or {},
            incarnation=incarnation,
            seeds=[address(seed) for seed in seeds],
            config=self.config,
            rng=random.Random(name),
            now=self.now,
            ring=ring,
        )
        self.cores[name] = core
        return core

    def give(self, name: str, event: Event) -> list[Effect]:
        """Let a core handle an event now; carry out what it orders, and return that."""
        effects = self.cores[name].handle(event, self.now)
        for effect in effects:
            self.effects.append((self.now, name, effect))
            self._carry_out(name, effect)
        return effects

    def deliver(
        self,
        name: str,
        *messages: Message,
        source: Address = ("10.9.9.9", 1),
        invented: bool = False,
    ) -> list[Effect]:
        """Let a packet from nowhere arrive at a core; return what it orders.

        Members in it that are no cores answer at once when they are asked whether they are there,
        unless they are `invented`. They answer nothing else.
        """
        effects = self.give(name, PacketReceived(messages, source))
        there = {(each.node, each.address) for each in messages if isinstance(each, Alive)}
        return effects if invented else effects + self._answer(name, effects, there)

    def merge(self, name: str, state: PushPull) -> list[Effect]:
        """Let a full state from nowhere arrive at a core; its members answer as in `deliver`."""
        effects = self.give(name, StateReceived(state))
        there = {(each.name, each.address) for each in state.nodes}
        return effects + self._answer(name, effects, there)

    def _answer(
        self, name: str, effects: Sequence[Effect], there: set[tuple[str, Address]]
    ) -> list[Effect]:
        answers: list[Effect] = []
        for to, message in self.messages(effects):
            if isinstance(message, Ping) and (message.target, to) in there and not self._at(to):
                ack = Ack(message.sequence, None)
                answers += self.give(name, PacketReceived((ack,), to))
        return answers

    def run(self, duration_s: float) -> None:
        """Let virtual time pass."""
        end = self.now + duration_s
        while True:
            due = {
                name: max(core.deadline(), self._busy_until.get(name, 0.0))
                for name, core in self.cores.items()
            }
            awake = [name for name in sorted(due) if name not in self.stopped]
            soonest = min(awake, key=lambda name: due[name], default=None)
            next_deadline = due[soonest] if soonest is not None else end
            if self._under_way and self._under_way[0][0] <= min(next_deadline, end):
                self.now, _, name, event, sender = heapq.heappop(self._under_way)
                if self.now < self._busy_until.get(name, 0.0):
                    self._later(name, event, sender, self._busy_until[name] + self.delay_s)
                elif name not in self.stopped:
                    self.give(name, event)
            elif soonest is not None and next_deadline <= end:
                self.now = max(self.now, next_deadline)
                self.give(soonest, TimerExpired())
            else:
                self.now = end
                return

    def block(self, name: str, duration_s: float) -> None:
        """Let a core's loop do something else for a while: it neither reads, nor sends what it has
        just ordered, and afterwards its timers come first.
        """
        until = self._busy_until[name] = self.now + duration_s
        self._under_way = [
            (
                max(at, until + self.delay_s) if sender == name else at,
                count,
                receiver,
                event,
                sender,
            )
            for at, count, receiver, event, sender in self._under_way
        ]
        heapq.heapify(self._under_way)

    def acks(self, effects: Sequence[Effect]) -> list[tuple[Address, int]]:
        """Where acks with which sequences go among some effects."""
        messages = self.messages(effects)
        return [(to, each.sequence) for to, each in messages if isinstance(each, Ack)]

    def view(self, name: str) -> dict[str, str]:
        """What a core thinks of everyone."""
        return {each.name: each.state.name.lower() for each in self.cores[name].members()}

    def messages(self, effects: Sequence[Effect]) -> list[tuple[Address, Message]]:
        """All messages in the packets among some effects."""
        return [
            (effect.to, message)
            for effect in effects
            if isinstance(effect, SendPacket)
            for message in decode_packet(effect.payload).messages
        ]

    def _carry_out(self, name: str, effect: Effect) -> None:
        match effect:
            case SendPacket(payload, to):
                packet = decode_packet(payload)
                assert packet.invalid_parts == 0
                assert len(payload) <= self.config.packet_bytes_max
                self.sent += [(name, to, message) for message in packet.messages]
                receiver = self._at(to)
                if receiver is not None and self.passes_udp(name, receiver):
                    self._later(receiver, PacketReceived(packet.messages, address(name)), name)
            case PingByStream(sequence, _, to):
                receiver = self._at(to)
                passes = receiver is not None and self.passes_tcp(name, receiver)
                if receiver is not None and passes and not self.cores[receiver].has_left:
                    self._later(name, StreamPingAnswered(sequence), name)
            case ExchangeState(to, join):
                receiver = self._at(to)
                if receiver is None or not self.passes_tcp(name, receiver):
                    self._later(name, ExchangeEnded(to, join, None), name)
                    return
                mine = self.cores[name].state(join=join)
                theirs = self.cores[receiver].state(join=join)
                self._later(receiver, StateReceived(mine, address(name)), name)
                self._later(name, StateReceived(theirs, to, dialled=True), name)
                self._later(name, ExchangeEnded(to, join, to), name)
            case _:
                pass

    def _at(self, to: Address) -> str | None:
        running = [name for name in self.cores if name not in self.stopped]
        return next((name for name in running if address(name) == to), None)

    def _later(self, name: str, event: Event, sender: str, at: float | None = None) -> None:
        self._count += 1
        at = self.now + self.delay_s if at is None else at
        heapq.heappush(self._under_way, (at, self._count, name, event, sender))
