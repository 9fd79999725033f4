"""Probes members one after the other, and helps others to probe.

Enters: acks, nacks, now. Leaves: pings through the outbox, the name of who failed, what the answers
say about ourselves and about the network.
Never: a change of a member's state; the core suspects those that fail.

Each step of a probe gets its time from when the step before was really taken, and before a probe
fails there is a last look for answers: a node that comes late to its own timers has not yet read
what arrived meanwhile, and its own pings may have left late.

Sources: SWIM (Das, Gupta, Motivala 2002) 4.3 (round-robin); Lifeguard III-A (nacks); memberlist
(TCP ping).
"""

import random
from dataclasses import dataclass
from enum import Enum, auto
from typing import assert_never

from noti.errors import MessageInvalid
from noti.swim.core.awareness import LocalHealth, points_of_failed_probe
from noti.swim.core.coordinates import OwnCoordinate, decode_coordinate
from noti.swim.core.events import (
    GossipRejected,
    PingByStream,
    ReachedByStreamOnly,
    StreamOnlyChanged,
)
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import (
    STREAM_PING_VERSION,
    Ack,
    Address,
    IndirectPing,
    MemberState,
    Ping,
    Suspect,
)
from noti.swim.core.outbox import Outbox
from noti.swim.core.relays import Relays
from noti.swim.core.timing import SwimConfig

_NACK_VERSION = 4
"""Protocol version from which a helper sends nacks."""

_LAST_LOOK_SHARE = 0.1
"""Of the time for an answer: many turns of the loop, in which it reads what has arrived."""

_ROUND_TRIPS_KEPT = 3
"""Of each member, for its median."""


class _Step(Enum):
    """How far a probe is."""

    DIRECT = auto()
    """Pinged by ourselves."""
    INDIRECT = auto()
    """Pinged by helpers, and over TCP."""
    LAST_LOOK = auto()
    """Its time is over; only what has arrived already counts."""


@dataclass(slots=True)
class _Probe:
    """The one probe under way."""

    sequence: int
    name: str
    address: Address
    pinged_at: float
    due_at: float
    """When this step ends."""
    step: _Step = _Step.DIRECT
    nacks_expected: int = 0
    nacks_received: int = 0
    answered_by_stream: bool = False


class Prober:
    """One node's probing."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        members: Members,
        outbox: Outbox,
        health: LocalHealth,
        config: SwimConfig,
        rng: random.Random,
        now: float,
    ) -> None:
        self._name = name
        self._address = address
        self._members = members
        self._outbox = outbox
        self._health = health
        self._config = config
        self._rng = rng
        self._order: list[str] = []
        self._next = 0
        self._probe: _Probe | None = None
        self._tick_at = now + rng.uniform(0, config.probe_interval_s)
        self._tick_waits = False
        """Whether a tick came during a probe that failed: the next one follows at once."""
        self._relays = Relays(members, outbox, config.probe_timeout_s)
        self._stream_only: set[str] = set()
        """Members that answered their last probe over TCP, and not over UDP."""
        self.coordinate = OwnCoordinate(rng)

    def deadline(self) -> float:
        """Return when `advance` is due."""
        due_at = min(self._tick_at, self._relays.deadline())
        return due_at if self._probe is None else min(due_at, self._probe.due_at)

    def add(self, name: str) -> None:
        """Include a new member, at a random place so that not all nodes probe it at once."""
        self._order.insert(self._rng.randint(0, len(self._order)), name)

    def advance(self, now: float, *, late: bool) -> str | None:
        """Do what is due; return the member whose probe failed, if one did.

        `late`: this node comes so late to this that answers may wait to be read.
        """
        self._relays.advance(now)
        failed = self._advance_probe(now, late=late)
        if self._tick_at <= now:
            self._tick_at = now + self._config.probe_interval_s
            self._tick_waits = True
        if self._probe is None and self._tick_waits:
            self._tick_waits = False
            self._begin_probe(now)
        return failed

    # Answers

    def on_ack(self, ack: Ack, source: Address, now: float) -> None:
        """Note an answer: to a ping of ours, or to one that we sent for another member."""
        probe = self._probe
        if probe is not None and probe.sequence == ack.sequence:
            if probe.step is _Step.DIRECT and source == probe.address:
                self._note_distance(probe, ack, now)
            self._set_stream_only(probe.name, False)
            self._end_answered(probe, now)
            self._tick_waits = False
        self._relays.on_ack(ack.sequence)

    def on_stream_ack(self, sequence: int) -> None:
        """Note an answer over TCP; it counts when nothing better arrives in time."""
        if self._probe is not None and self._probe.sequence == sequence:
            self._probe.answered_by_stream = True

    def on_nack(self, sequence: int) -> None:
        """Note that a helper is well, and that we are, as far as it goes."""
        if self._probe is not None and self._probe.sequence == sequence:
            self._probe.nacks_received += 1

    def on_unsendable(self, to: Address, now: float) -> None:
        """Ask others at once when our own ping could not even be sent."""
        probe = self._probe
        if probe is not None and probe.address == to and probe.step is _Step.DIRECT:
            self._ping_indirectly(probe, now)

    def on_indirect_ping(self, request: IndirectPing, requester: Address, now: float) -> None:
        """Probe a member for another one."""
        ping = Ping(self._next_sequence(), request.target, self._address, self._name)
        self._relays.ask(request, requester, ping, now)

    def _note_distance(self, probe: _Probe, ack: Ack, now: float) -> None:
        record = self._members.get(probe.name)
        if record is None or not ack.payload:
            return
        try:
            record.coordinate = decode_coordinate(ack.payload)
        except MessageInvalid as error:
            self._outbox.emit(GossipRejected("coordinate", f"{error}, of {probe.name}"))
            return
        record.round_trips_s.append(now - probe.pinged_at)
        del record.round_trips_s[:-_ROUND_TRIPS_KEPT]
        self.coordinate.learn(record.coordinate, record.round_trips_s)

    def _set_stream_only(self, name: str, is_so: bool) -> None:
        if is_so != (name in self._stream_only):
            self._stream_only ^= {name}
            self._outbox.emit(StreamOnlyChanged(len(self._stream_only)))

    # The probe

    def _begin_probe(self, now: float) -> None:
        target = self._next_target()
        if target is None:
            return
        sequence = self._next_sequence()
        timeout_s = self._config.probe_timeout_s
        self._probe = _Probe(
            sequence,
            target.name,
            target.address,
            pinged_at=now,
            due_at=now + timeout_s,
        )
        ping = Ping(sequence, target.name, self._address, self._name)
        if target.state is MemberState.SUSPECT:
            # In the same packet, so that it can refute at once (Lifeguard III-C).
            accusation = Suspect(target.incarnation, target.name, self._name)
            self._outbox.send(target.address, accusation, ping)
        else:
            self._outbox.send(target.address, ping)

    def _ping_indirectly(self, probe: _Probe, now: float) -> None:
        others_s = self._others_s()
        probe.step, probe.due_at = _Step.INDIRECT, now + others_s
        helpers = self._members.pick(self._config.indirect_checks, without=(self._name, probe.name))
        for helper in helpers:
            wants_nack = helper.versions[1] >= _NACK_VERSION
            probe.nacks_expected += wants_nack
            request = IndirectPing(
                probe.sequence, probe.name, probe.address, wants_nack, self._address, self._name
            )
            self._outbox.send(helper.address, request)
        target = self._members.get(probe.name)
        if target is not None and target.versions[1] >= STREAM_PING_VERSION:
            order = PingByStream(probe.sequence, probe.name, probe.address, others_s)
            self._outbox.emit(order)

    def _advance_probe(self, now: float, *, late: bool) -> str | None:
        probe = self._probe
        if probe is None or probe.due_at > now:
            return None
        match probe.step:
            case _Step.DIRECT:
                self._ping_indirectly(probe, now)
            case _Step.INDIRECT | _Step.LAST_LOOK if late:
                # Our questions may just be leaving: give their answers their time.
                probe.step, probe.due_at = _Step.INDIRECT, now + self._others_s()
            case _Step.INDIRECT:
                probe.step = _Step.LAST_LOOK
                probe.due_at = now + _LAST_LOOK_SHARE * self._config.probe_timeout_s
            case _Step.LAST_LOOK if probe.answered_by_stream:
                self._outbox.emit(ReachedByStreamOnly(probe.name, probe.address))
                self._set_stream_only(probe.name, True)
                self._end_answered(probe, now)
            case _Step.LAST_LOOK:
                self._probe = None
                nacks = (probe.nacks_expected, probe.nacks_received)
                self._health.worsen(points_of_failed_probe(*nacks))
                self._set_stream_only(probe.name, False)
                return probe.name
            case _:
                assert_never(probe.step)
        return None

    def _others_s(self) -> float:
        """Return how long helpers have for their answers."""
        interval_s = self._health.stretch(self._config.probe_interval_s)
        return interval_s - self._config.probe_timeout_s

    def _end_answered(self, probe: _Probe, now: float) -> None:
        self._probe = None
        self._health.improve()
        self._members.note_ack(probe.name, now)

    def _next_target(self) -> Record | None:
        """Return the next present member of the round; each is met once before any is met again."""
        for _ in range(len(self._order) + 1):
            if self._next >= len(self._order):
                self._begin_round()
                if not self._order:
                    return None
            name = self._order[self._next]
            self._next += 1
            record = self._members.get(name)
            if record is not None and record.present:
                return record
        return None

    def _begin_round(self) -> None:
        for name in sorted(self._stream_only):
            record = self._members.get(name)
            self._set_stream_only(name, record is not None and record.present)
        self._order = [name for name in self._order if name in self._members]
        self._rng.shuffle(self._order)
        self._next = 0

    def _next_sequence(self) -> int:
        # Acks are matched by sequence alone, so it should be hard to guess.
        return self._rng.getrandbits(32)
