"""Probes members one after the other, and helps others to probe.

Enters: acks, nacks, requests, now. Leaves: pings through the outbox, and the name of who failed.
Never: a change of a member's state; the core suspects those that fail.

Sources: SWIM (Das, Gupta, Motivala 2002) 4.3 (round-robin); Lifeguard III-A (nack); memberlist
(TCP ping).
"""

import random
from dataclasses import dataclass

from noti.swim.core.events import PingByStream, ReachedByStreamOnly
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import (
    Ack,
    Address,
    IndirectPing,
    MemberState,
    Nack,
    Ping,
    Suspect,
)
from noti.swim.core.outbox import Outbox
from noti.swim.core.timing import SwimConfig

_STREAM_PING_VERSION = 3
"""Protocol version from which a member answers pings over TCP."""

_RELAYS_MAX = 256
"""Probes that we do for others at one time; rejecting more only costs them a helper."""


@dataclass(slots=True)
class _Probe:
    """The one probe under way."""

    sequence: int
    name: str
    address: Address
    indirect_at: float | None
    """When to ask others; None once they were asked."""
    fails_at: float
    answered_by_stream: bool = False


@dataclass(frozen=True, slots=True)
class _Relay:
    """A probe that we do for another member."""

    sequence: int
    """The requester's own."""
    requester: Address
    wants_nack: bool
    until: float


class Prober:
    """One node's probing."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        members: Members,
        outbox: Outbox,
        config: SwimConfig,
        rng: random.Random,
        now: float,
    ) -> None:
        self._name = name
        self._address = address
        self._members = members
        self._outbox = outbox
        self._config = config
        self._rng = rng
        self._order: list[str] = []
        self._next = 0
        self._probe: _Probe | None = None
        self._next_probe_at = now + rng.uniform(0, config.probe_interval_s)
        self._relays: dict[int, _Relay] = {}

    def deadline(self) -> float:
        """Return when `advance` is due."""
        moments = [self._next_probe_at, *(relay.until for relay in self._relays.values())]
        if self._probe is not None:
            indirect_at = self._probe.indirect_at
            moments.append(self._probe.fails_at if indirect_at is None else indirect_at)
        return min(moments)

    def add(self, name: str) -> None:
        """Include a new member, at a random place so that not all nodes probe it at once."""
        self._order.insert(self._rng.randint(0, len(self._order)), name)

    def advance(self, now: float) -> str | None:
        """Do what is due; return the member whose probe failed, if one did."""
        for sequence, relay in list(self._relays.items()):
            if relay.until <= now:
                del self._relays[sequence]
                if relay.wants_nack:
                    self._outbox.send(relay.requester, Nack(relay.sequence))
        failed = self._check_probe(now)
        if self._probe is None and self._next_probe_at <= now:
            self._next_probe_at = now + self._config.probe_interval_s
            target = self._next_target()
            if target is not None:
                self._ping(target, now)
        return failed

    def on_ack(self, sequence: int, now: float) -> None:
        """Note an answer: to a ping of ours, or to one that we sent for another member."""
        if self._probe is not None and self._probe.sequence == sequence:
            self._members.note_ack(self._probe.name, now)
            self._probe = None
        relay = self._relays.pop(sequence, None)
        if relay is not None:
            self._outbox.send(relay.requester, Ack(relay.sequence, None))

    def on_stream_ack(self, sequence: int) -> None:
        """Note an answer over TCP; it counts when nothing better arrives in time."""
        if self._probe is not None and self._probe.sequence == sequence:
            self._probe.answered_by_stream = True

    def on_unsendable(self, to: Address, now: float) -> None:
        """Ask others at once when our own ping could not even be sent."""
        probe = self._probe
        if probe is not None and probe.address == to and probe.indirect_at is not None:
            self._ping_indirectly(probe, now)

    def on_indirect_ping(self, request: IndirectPing, requester: Address, now: float) -> None:
        """Probe a member for another one."""
        if len(self._relays) >= _RELAYS_MAX:
            return
        sequence = self._next_sequence()
        until = now + self._config.probe_timeout_s
        self._relays[sequence] = _Relay(request.sequence, requester, request.wants_nack, until)
        ping = Ping(sequence, request.target, self._address, self._name)
        self._outbox.send(request.address, ping, piggyback=self._members.knows(request.address))

    def _check_probe(self, now: float) -> str | None:
        probe = self._probe
        if probe is None:
            return None
        if probe.indirect_at is not None and probe.indirect_at <= now:
            self._ping_indirectly(probe, now)
        if probe.fails_at > now:
            return None
        self._probe = None
        if probe.answered_by_stream:
            self._members.note_ack(probe.name, now)
            self._outbox.emit(ReachedByStreamOnly(probe.name, probe.address))
            return None
        return probe.name

    def _ping(self, target: Record, now: float) -> None:
        sequence = self._next_sequence()
        self._probe = _Probe(
            sequence,
            target.name,
            target.address,
            indirect_at=now + self._config.probe_timeout_s,
            fails_at=now + self._config.probe_interval_s,
        )
        ping = Ping(sequence, target.name, self._address, self._name)
        if target.state is MemberState.SUSPECT:
            # In the same packet, so that it can refute at once (Lifeguard III-C).
            accusation = Suspect(target.incarnation, target.name, self._name)
            self._outbox.send(target.address, accusation, ping)
        else:
            self._outbox.send(target.address, ping)

    def _ping_indirectly(self, probe: _Probe, now: float) -> None:
        probe.indirect_at = None
        helpers = self._members.pick(self._config.indirect_checks, without=(self._name, probe.name))
        for helper in helpers:
            request = IndirectPing(
                probe.sequence, probe.name, probe.address, True, self._address, self._name
            )
            self._outbox.send(helper.address, request)
        target = self._members.get(probe.name)
        if target is not None and target.versions[1] >= _STREAM_PING_VERSION:
            timeout_s = max(0.0, probe.fails_at - now)
            self._outbox.emit(PingByStream(probe.sequence, probe.name, probe.address, timeout_s))

    def _next_target(self) -> Record | None:
        """Return the next present member of the round; each is met once before any is met again."""
        for _ in range(len(self._order) + 1):
            if self._next >= len(self._order):
                self._order = [name for name in self._order if name in self._members]
                self._rng.shuffle(self._order)
                self._next = 0
                if not self._order:
                    return None
            name = self._order[self._next]
            self._next += 1
            record = self._members.get(name)
            if record is not None and record.present:
                return record
        return None

    def _next_sequence(self) -> int:
        # Acks are matched by sequence alone, as helpers send them too, so it is not to be guessed.
        return self._rng.getrandbits(32)
