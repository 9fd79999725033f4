"""Decides what to send to whom: takes events, and hands each to the part that it is about.

Enters: packets, states, results of orders, deadlines. Leaves: effects, in order.
Never: I/O, clocks; `now` is monotonic seconds and comes with each event.

The rule of the room: a claim about a member counts only by its incarnation, which only the member
itself raises. No member is declared dead because of a claim alone: it becomes suspect, is pinged,
and can refute.

Sources: SWIM (Das, Gupta, Motivala 2002) 4.2; memberlist, with whose nodes we share clusters.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import assert_never

from noti.errors import MessageInvalid
from noti.swim.core.awareness import SCORE_MAX, LocalHealth
from noti.swim.core.coordinates import Coordinate
from noti.swim.core.events import (
    Effect,
    Event,
    ExchangeEnded,
    ForceLeaveRequested,
    GossipRejected,
    LeaveRequested,
    MembersProtected,
    PacketReceived,
    PacketUnsendable,
    QueryRequested,
    RanLate,
    StateReceived,
    StreamPingAnswered,
    TagsChanged,
    TimerExpired,
    UserEventRequested,
)
from noti.swim.core.exchanges import Exchanges
from noti.swim.core.identities import Identities
from noti.swim.core.keyring import KeyRing
from noti.swim.core.member_states import MemberStates
from noti.swim.core.members import Members, Record, tags_of
from noti.swim.core.messages import (
    VERSIONS,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Member,
    MemberState,
    Message,
    Nack,
    Ping,
    PushPull,
    RemoteNode,
    Suspect,
    User,
)
from noti.swim.core.newcomers import Backing
from noti.swim.core.outbox import Outbox
from noti.swim.core.own_state import OwnState
from noti.swim.core.packets import encode_tags
from noti.swim.core.probing import Prober
from noti.swim.core.rotation import Rotation
from noti.swim.core.serf.intents import Broadcast, LeaveIntent
from noti.swim.core.serf.layer import Serf
from noti.swim.core.timing import SwimConfig
from noti.swim.core.validate import Incarnations
from noti.swim.core.verification import Question, Verifier, is_same_host

_LEAVE_GOSSIP_S = 0.05
"""While leaving, gossip goes out this often, so that the announcements are through in time."""


class Swim:
    """One node's membership, as a machine without I/O."""

    def __init__(
        self,
        *,
        name: str,
        address: Address,
        tags: Mapping[str, str],
        incarnation: int,
        seeds: Sequence[Address],
        config: SwimConfig,
        rng: random.Random,
        now: float,
        ring: KeyRing | None = None,
    ) -> None:
        """Start as the only member.

        `address` is what others send to, its host an IP. `incarnation` is wall-clock seconds, so
        that a restarted node is newer than what others remember of it. Raises `ConfigInvalid`
        when the tags do not fit. Queries can change the keys in `ring`, if one is given.
        """
        self._config = config
        self._rotation = Rotation(rng)
        self._members = members = Members(rng, config.gossip_to_dead_s)
        self._outbox = outbox = Outbox(config)
        self._health = LocalHealth(outbox)
        self._exchanges = Exchanges(name, seeds, members=members, config=config, rng=rng, now=now)
        self._prober = Prober(
            name,
            address,
            members=members,
            outbox=outbox,
            health=self._health,
            config=config,
            rng=rng,
            now=now,
        )
        alive = Alive(incarnation, name, address, encode_tags(tags), VERSIONS)
        self._me = Record.of(alive, dict(tags), now)
        self._me.acked_at = math.inf
        members.add(self._me)
        self._identities = Identities(self._me, members)
        self._verifier = Verifier(name, address, outbox=outbox, config=config, rng=rng)
        self._serf = Serf(
            self._me, members=members, outbox=outbox, config=config, rng=rng, ring=ring
        )
        self._states = MemberStates(
            self._me,
            members=members,
            outbox=outbox,
            prober=self._prober,
            verifier=self._verifier,
            identities=self._identities,
            intents=self._serf.intents,
            config=config,
            incarnations=Incarnations(incarnation, now),
        )
        self._own = OwnState(
            self._me,
            members=members,
            outbox=outbox,
            intents=self._serf.intents,
            health=self._health,
            config=config,
        )
        self._gossip_at = now
        self._outbox.broadcast_alive(self._me)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and return what is to be done about it, in order."""
        self._outbox.members = self._members.count(now)
        match event:
            case PacketReceived(messages, source):
                self._on_packet(messages, source, now)
            case PacketUnsendable(to):
                self._prober.on_unsendable(to, now)
            case StreamPingAnswered(sequence):
                self._prober.on_stream_ack(sequence)
                question = self._verifier.proof_by_stream(sequence, now)
                if question is not None:
                    self._on_answer(question, None, now)
            case StateReceived(state, source, dialled):
                self._merge(state, source, dialled=dialled, now=now)
            case ExchangeEnded(to, join, reached):
                if join:
                    self._exchanges.on_ended(to, reached, now)
                if join and reached not in (None, self._me.address) and not self._own.leaving:
                    self._apply_serf([self._serf.intents.join_intent()], now)
            case TagsChanged(tags):
                self._own.set_tags(tags)
            case MembersProtected(names):
                self._identities.protect(names)
                self._states.check_identities()
            case LeaveRequested():
                self._own.leave(now)
                self._gossip_at = now
            case UserEventRequested(name, payload, coalesce):
                self._serf.send_event(name, payload, coalesce=coalesce)
            case QueryRequested():
                self._serf.ask(event, now)
            case ForceLeaveRequested(name, prune):
                orders = self._serf.intents.force_leave(name, now, prune=prune)
                self._apply_serf(orders, now)
            case TimerExpired():
                self._on_deadline(now)
            case _:
                assert_never(event)
        return self._outbox.collect()

    def deadline(self) -> float:
        """Return when `TimerExpired` is due; it may move with every event."""
        return min(
            self._prober.deadline(),
            self._exchanges.deadline(),
            self._states.deadline(),
            self._own.deadline(),
            self._serf.deadline(),
            math.inf if self._outbox.idle else self._gossip_at,
        )

    def members(self) -> tuple[Member, ...]:
        """Return everyone that is known, ourselves included, by name."""
        is_leaving = self._serf.intents.is_leaving
        return tuple(each.member(leaving=is_leaving(each.name)) for each in self._members)

    def state(self, *, join: bool) -> PushPull:
        """Return our full state, for an exchange."""
        nodes = tuple(record.remote_node() for record in self._members)
        return PushPull(join, nodes, self._serf.state())

    @property
    def has_left(self) -> bool:
        """Whether this node announced that it left: then it answers no pings over TCP."""
        return self._own.has_left

    def why_refused(self, state: PushPull) -> str | None:
        """Return why a peer's state is rejected as a whole, or None."""
        return self._members.versions_violation(state.nodes)

    def distance_s(self, one: str, other: str) -> float | None:
        """Return the estimated round trip between two members, ourselves included.

        None when one is not known, or did not say where it is.
        """
        first, second = self._coordinate(one), self._coordinate(other)
        return None if first is None or second is None else first.distance_s(second)

    def _coordinate(self, name: str) -> Coordinate | None:
        if name == self._me.name:
            return self._prober.coordinate.now
        record = self._members.get(name)
        return None if record is None else record.coordinate

    # What is received

    def _on_packet(self, messages: Sequence[Message], source: Address, now: float) -> None:
        # Alive messages first: others in the packet may be about a member that they introduce.
        # Pings last: the answer carries what refutes what else is in the packet.
        questions = self._verifier.proofs(messages, source, now)
        proven = {(each.name, each.address) for each in questions if not each.through}
        said: dict[tuple[str, Address], Alive] = {}
        objects = self._own.objects_to(messages)
        for message in sorted(messages, key=_turn):
            if isinstance(message, Alive) and (message.node, message.address) in proven:
                said[message.node, message.address] = message
                self._on_alive(message, source, Backing.PROVEN, now)
            elif isinstance(message, Ping):
                if not self._own.is_silent(messages):
                    self._on_ping(message, source, objects=objects)
            else:
                self._on_message(message, source, now)
        for question in questions:
            self._on_answer(question, said.get((question.name, question.address)), now)

    def _on_ping(self, ping: Ping, source: Address, *, objects: bool) -> None:
        if ping.target in ("", self._me.name):
            to = self._answer_to(ping.source, source)
            known = self._members.knows(to)
            ack = Ack(ping.sequence, self._prober.coordinate.payload if known else None)
            also = (self._own.alive(),) if objects else ()
            # Unknown addresses get no gossip: a forged source would turn 20 bytes into a full
            # packet. An objection is not longer than the claim that it answers, nearly.
            self._outbox.send(to, ack, *also, piggyback=known)

    def _on_message(
        self,
        message: IndirectPing | Ack | Nack | Alive | Suspect | Dead | User,
        source: Address,
        now: float,
    ) -> None:
        match message:
            case IndirectPing(source=claimed) as request:
                requester = self._answer_to(claimed, source)
                # For an unknown address we would only be a reflector.
                if self._members.knows(requester):
                    self._prober.on_indirect_ping(request, requester, now)
            case Ack() as ack:
                self._prober.on_ack(ack, source, now)
            case Nack(sequence):
                self._prober.on_nack(sequence)
            case Alive() as alive:
                self._on_alive(alive, source, Backing.HEARSAY, now)
            case Suspect() | Dead() as claim:
                self._on_accusation(claim, now)
            case User(payload):
                try:
                    leaving = self._own.leaving
                    self._apply_serf(self._serf.receive(payload, now, leaving=leaving), now)
                except MessageInvalid as error:
                    self._outbox.emit(GossipRejected("Serf message", f"user message: {error}"))
            case _:
                assert_never(message)

    def _answer_to(self, claimed: Address | None, source: Address) -> Address:
        """Return where an answer goes: as the sender asks, unless that could be a victim."""
        if claimed is None or claimed == source or not self._members.knows(claimed):
            return source
        return claimed

    def _on_alive(self, alive: Alive, source: Address | None, backing: Backing, now: float) -> None:
        tags = tags_of(alive.meta)
        if self._states.is_of_other_cluster(tags, alive.node, alive.address):
            return
        if not self._states.is_valid(alive, now):
            return
        if alive.node == self._me.name:
            self._own.on_alive(alive, tags)
            return
        known = alive.node in self._members
        self._states.on_alive(alive, source, backing, now)
        if not known and alive.node in self._members:
            self._exchanges.on_joined(now)

    def _on_answer(self, question: Question, said: Alive | None, now: float) -> None:
        known = question.name in self._members
        self._states.on_answer(question, said, now)
        if not known and question.name in self._members:
            self._exchanges.on_joined(now)

    def _on_accusation(self, claim: Suspect | Dead, now: float) -> None:
        if not self._states.is_valid(claim, now):
            return
        if claim.node == self._me.name:
            self._own.on_accusation(claim)
        elif isinstance(claim, Suspect):
            self._states.on_suspect(claim, now)
        else:
            self._states.on_dead(claim, now)

    def _merge(self, state: PushPull, source: Address | None, *, dialled: bool, now: float) -> None:
        reason = self.why_refused(state)
        if reason is not None:
            self._outbox.emit(GossipRejected("versions", reason))
            return
        others = False
        for node in state.nodes:
            if self._states.is_of_other_cluster(tags_of(node.meta), node.name, node.address):
                others = True
            else:
                self._merge_node(node, _backing(node.address, source, dialled=dialled), now)
        if others or not state.user_state:
            return
        try:
            leaving = self._own.leaving
            self._apply_serf(self._serf.merge(state.user_state, now, leaving=leaving), now)
        except MessageInvalid as error:
            self._outbox.emit(GossipRejected("Serf message", f"Serf's part of the state: {error}"))

    def _merge_node(self, node: RemoteNode, backing: Backing, now: float) -> None:
        match node.state:
            case MemberState.ALIVE:
                alive = Alive(node.incarnation, node.name, node.address, node.meta, node.versions)
                self._on_alive(alive, None, backing, now)
            case MemberState.LEFT:
                self._on_accusation(Dead(node.incarnation, node.name, node.name), now)
            case MemberState.SUSPECT | MemberState.DEAD:
                self._on_accusation(Suspect(node.incarnation, node.name, self._me.name), now)

    # What time brings

    def _on_deadline(self, now: float) -> None:
        late = self._notes_lateness(now)
        failed = self._prober.advance(now, late=late)
        record = self._members.get(failed) if failed is not None else None
        if record is not None and record.present:
            self._states.on_suspect(Suspect(record.incarnation, record.name, self._me.name), now)
        self._states.advance(now)
        self._serf.advance(now)
        if self._exchanges.is_push_pull_due(now):
            self._states.reap(now)
        for order in self._exchanges.advance(now):
            if not self._own.leaving:
                self._outbox.emit(order)
        if self._gossip_at <= now and not self._outbox.idle:
            self._gossip(now)
        if self._own.advance(now):
            self._gossip_at = now

    def _notes_lateness(self, now: float) -> bool:
        """Whether this node comes so late that others' answers wait to be read: our own fault.

        A node that is always late is not spared for ever: then its members do not answer.
        """
        late_s = now - self._prober.deadline()
        if late_s <= self._config.probe_timeout_s or self._health.score == SCORE_MAX:
            return False
        self._outbox.emit(RanLate(late_s))
        self._health.worsen(1)
        self._states.postpone(now + self._config.probe_timeout_s)
        return True

    def _gossip(self, now: float) -> None:
        interval_s = _LEAVE_GOSSIP_S if self._own.leaving else self._config.gossip_interval_s
        self._gossip_at = now + interval_s
        targets = {record.name: record for record in self._members.gossip_targets(now)}
        targets.pop(self._me.name, None)  # it is not there when this node has left
        for name in self._rotation.next(targets, self._config.gossip_nodes):
            self._outbox.send(targets[name].address)

    def _apply_serf(self, orders: Sequence[Broadcast | LeaveIntent], now: float) -> None:
        """Carry out the orders of Serf's layer."""
        for order in orders:
            match order:
                case Broadcast(key, payload):
                    self._outbox.broadcast_user(key, payload)
                case LeaveIntent(name, prune):
                    self._on_leave_intent(name, prune=prune, now=now)
                case _:
                    assert_never(order)

    def _on_leave_intent(self, name: str, *, prune: bool, now: float) -> None:
        """A failed member has left, by its own word or an operator's; one that is there is not."""
        record = self._members.get(name)
        if record is None:
            return
        if record.state is MemberState.DEAD:
            self._states.set_state(record, MemberState.LEFT, now)
        if prune and record.state is MemberState.LEFT and not self._identities.is_protected(record):
            self._states.forget(record)


def _backing(address: Address, source: Address | None, *, dialled: bool) -> Backing:
    """Return what a node in a full state has to show for being where it is said to be."""
    if source is None or not is_same_host(address, source):
        return Backing.HEARSAY
    return Backing.PROVEN if dialled and address == source else Backing.INTRODUCED


def _turn(message: Message) -> int:
    return 0 if isinstance(message, Alive) else 2 if isinstance(message, Ping) else 1
