"""Decides what to tell whom, and speaks for this node; `member_states` decides about the others.

Enters: packets, states, results of orders, deadlines. Leaves: effects, in order.
Never: I/O, clocks; `now` is monotonic seconds and comes with each event.

The rule of the room: a claim about a member counts only by its incarnation, which only the member
itself raises. Nobody is declared dead because somebody says so: it becomes suspect, is asked, and
can object.

Sources: SWIM (Das, Gupta, Motivala 2002) 4.2; memberlist, with whose nodes we share clusters.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import assert_never

from noti.errors import MessageInvalid
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
    PacketReceived,
    PacketUnsendable,
    Refused,
    StateReceived,
    StreamPingAnswered,
    TagsChanged,
    TimerExpired,
)
from noti.swim.core.member_states import ID_TAG, Judge
from noti.swim.core.members import Members, Record, tags_of
from noti.swim.core.messages import (
    INCARNATION_MAX,
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
from noti.swim.core.outbox import Outbox
from noti.swim.core.packets import encode_tags
from noti.swim.core.probing import Prober
from noti.swim.core.rejoining import Rejoiner
from noti.swim.core.serf import Broadcast, Leaving, Serf
from noti.swim.core.timing import SwimConfig
from noti.swim.core.validate import Incarnations

_LEAVE_STEP_SHARE = 0.4
"""Each of the two announcements of leaving gets at most this share of the time for leaving."""

_LEAVE_GOSSIP_S = 0.05
"""While leaving, gossip goes out this often, so that the announcements are through in time."""

_COUNT_AGAIN_S = 0.1
"""The size of the cluster decides how often broadcasts are sent, and not to the moment."""

_PUSH_PULL_BASE_MEMBERS = 32
"""Above this size, full exchanges become rarer (memberlist)."""


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
    ) -> None:
        """Start as the only member.

        `address` is what others send to, its host an IP. `incarnation` is wall-clock seconds, so
        that a restarted node is newer than what others remember of it. Raises `ConfigInvalid`
        when the tags do not fit.
        """
        self._config = config
        self._rng = rng
        self._members = Members(rng, config.gossip_to_dead_s)
        self._outbox = Outbox(config)
        self._serf = Serf(name)
        self._rejoiner = Rejoiner(seeds, members=self._members, config=config, rng=rng, now=now)
        self._prober = Prober(
            name,
            address,
            members=self._members,
            outbox=self._outbox,
            config=config,
            rng=rng,
            now=now,
        )
        self._me = Record(
            name,
            address,
            encode_tags(tags),
            dict(tags),
            VERSIONS,
            incarnation,
            MemberState.ALIVE,
            now,
            heard_at=math.inf,
        )
        self._members.add(self._me)
        self._judge = Judge(
            self._me,
            members=self._members,
            outbox=self._outbox,
            prober=self._prober,
            serf=self._serf,
            config=config,
            incarnations=Incarnations(incarnation, now),
        )
        self._counted_at = -math.inf
        self._gossip_at = now
        self._push_pull_at = now + rng.uniform(0, config.push_pull_interval_s)
        self._leaving = False
        self._leave_began_at = 0.0
        self._dead_announced = False
        self._left = False
        self._outbox.tell_alive(self._me)

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one event and return what is to be done about it, in order."""
        if not 0 <= now - self._counted_at < _COUNT_AGAIN_S:
            self._outbox.members = self._members.count(now)
            self._counted_at = now
        match event:
            case PacketReceived(messages, source):
                self._on_packet(messages, source, now)
            case PacketUnsendable(to):
                self._prober.on_unsendable(to, now)
            case StreamPingAnswered(sequence):
                self._prober.on_stream_ack(sequence)
            case StateReceived(state):
                self._merge(state, now)
            case ExchangeEnded(to, join, reached):
                if join:
                    self._rejoiner.on_ended(to, reached, now)
                if join and reached not in (None, self._me.address) and not self._leaving:
                    self._above([self._serf.join_intent()], now)
            case TagsChanged(tags):
                self._on_tags(tags)
            case LeaveRequested():
                self._on_leave(now)
            case TimerExpired():
                self._on_deadline(now)
            case _:
                assert_never(event)
        return self._outbox.collect()

    def deadline(self) -> float:
        """Return when `TimerExpired` is due; it may move with every event."""
        moments = [self._prober.deadline(), self._rejoiner.deadline(), self._push_pull_at]
        moments.append(self._judge.deadline())
        if not self._outbox.idle:
            moments.append(self._gossip_at)
        if self._leaving and not self._left:
            moments.append(self._leave_step_ends_at())
        return min(moments)

    def members(self) -> tuple[Member, ...]:
        """Return everyone that is known, ourselves included, by name."""
        return tuple(record.member() for record in self._members)

    def state(self, *, join: bool) -> PushPull:
        """Return our full state, for an exchange."""
        unheard = self._members.unheard  # is hearsay, and not to be spread
        known = [record for record in self._members if record.name not in unheard]
        nodes = tuple(record.remote_node() for record in known)
        return PushPull(join, nodes, self._serf.state())

    # What peers say

    def _on_packet(self, messages: Sequence[Message], source: Address, now: float) -> None:
        # Alive messages first: others in the packet may be about a member that they introduce.
        # Pings last: the answer carries our objection to what else is in the packet.
        for message in sorted(messages, key=_turn):
            if isinstance(message, Ping) and self._dead_announced and self._is_told_so(messages):
                continue
            self._on_message(message, source, now)

    def _is_told_so(self, messages: Sequence[Message]) -> bool:
        """Whether somebody asks if it is true that we left; then silence is the answer."""
        return any(isinstance(each, Dead) and each.node == self._me.name for each in messages)

    def _on_message(self, message: Message, source: Address, now: float) -> None:
        match message:
            case Ping(sequence, target, claimed, _):
                if target in ("", self._me.name):
                    self._answer(Ack(sequence, None), self._answer_to(claimed, source))
            case IndirectPing(source=claimed) as request:
                requester = self._answer_to(claimed, source)
                # For a stranger we would only be a reflector.
                if self._members.knows(requester):
                    self._prober.on_indirect_ping(request, requester, now)
            case Ack(sequence, _):
                self._prober.on_ack(sequence, now)
            case Nack():
                pass  # it says that the helper is well; only a judge of our own health needs it
            case Alive() as alive:
                self._on_alive(alive, source, now)
            case Suspect() | Dead() as claim:
                self._on_accusation(claim, now)
            case User(payload):
                try:
                    self._above(self._serf.receive(payload, leaving=self._leaving), now)
                except MessageInvalid as error:
                    self._outbox.order(Refused(f"user message: {error}", "Serf message"))
            case _:
                assert_never(message)

    def _answer_to(self, claimed: Address | None, source: Address) -> Address:
        """Return where an answer goes: as the sender asks, unless that could be a victim."""
        if claimed is None or claimed == source or not self._members.knows(claimed):
            return source
        return claimed

    def _answer(self, ack: Ack, to: Address) -> None:
        # Strangers get no gossip: a forged source would turn 20 bytes into a full packet.
        self._outbox.send(to, ack, piggyback=self._members.knows(to))

    def _on_alive(self, alive: Alive, source: Address | None, now: float) -> None:
        tags = tags_of(alive.meta)
        if self._judge.is_stranger(tags, alive.node, alive.address):
            return
        if not self._judge.believes(alive, now):
            return
        if alive.node == self._me.name:
            self._on_alive_about_me(alive, tags)
            return
        known = alive.node in self._members
        self._judge.on_alive(alive, source, now)
        if not known and len(self._members) <= _PUSH_PULL_BASE_MEMBERS:
            # Gossip reaches almost everyone; nodes that join together compare notes to be sure.
            soon_s = self._config.probe_interval_s * self._rng.uniform(1, 2)
            self._push_pull_at = min(self._push_pull_at, now + soon_s)

    def _on_alive_about_me(self, alive: Alive, tags: Mapping[str, str]) -> None:
        if self._leaving:
            return
        moved = alive.address != self._me.address
        if moved and tags.get(ID_TAG, "") != self._me.tags.get(ID_TAG, ""):
            self._outbox.order(NameConflict(self._me.name, self._me.address, alive.address))
        elif alive.incarnation >= self._me.incarnation:
            same = (alive.address, alive.meta, alive.versions) == (
                self._me.address,
                self._me.meta,
                self._me.versions,
            )
            if alive.incarnation > self._me.incarnation or not same:
                self._refute(alive.incarnation)

    def _on_accusation(self, claim: Suspect | Dead, now: float) -> None:
        if not self._judge.believes(claim, now):
            return
        if claim.node == self._me.name:
            if claim.incarnation >= self._me.incarnation and not self._leaving:
                self._outbox.order(Accused(claim.accuser))
                self._refute(claim.incarnation)
        elif isinstance(claim, Suspect):
            self._judge.on_suspect(claim, now)
        else:
            self._judge.on_dead(claim, now)

    def _merge(self, state: PushPull, now: float) -> None:
        reason = self._members.versions_refused(state.nodes)
        if reason is not None:
            self._outbox.order(Refused(reason, "versions"))
            return
        strangers = False
        for node in state.nodes:
            if self._judge.is_stranger(tags_of(node.meta), node.name, node.address):
                strangers = True
            else:
                self._merge_node(node, now)
        if strangers or not state.user_state:
            return
        try:
            self._above(self._serf.merge(state.user_state, leaving=self._leaving), now)
        except MessageInvalid as error:
            self._outbox.order(Refused(f"Serf's part of the state: {error}", "Serf message"))

    def _merge_node(self, node: RemoteNode, now: float) -> None:
        match node.state:
            case MemberState.ALIVE:
                alive = Alive(node.incarnation, node.name, node.address, node.meta, node.versions)
                self._on_alive(alive, None, now)
            case MemberState.LEFT:
                self._on_accusation(Dead(node.incarnation, node.name, node.name), now)
            case MemberState.SUSPECT | MemberState.DEAD:
                self._on_accusation(Suspect(node.incarnation, node.name, self._me.name), now)

    # What time brings

    def _on_deadline(self, now: float) -> None:
        failed = self._prober.advance(now)
        record = self._members.get(failed) if failed is not None else None
        if record is not None and record.present:
            self._judge.on_suspect(Suspect(record.incarnation, record.name, self._me.name), now)
        self._judge.advance(now)
        for dial in self._rejoiner.advance(now):
            if not self._leaving:
                self._outbox.order(dial)
        if self._push_pull_at <= now:
            self._push_pull(now)
        if self._gossip_at <= now and not self._outbox.idle:
            self._gossip(now)
        self._advance_leave(now)

    def _gossip(self, now: float) -> None:
        interval_s = _LEAVE_GOSSIP_S if self._leaving else self._config.gossip_interval_s
        self._gossip_at = now + interval_s
        listeners = self._members.listeners(now)
        for record in self._members.pick(
            self._config.gossip_nodes, without=(self._me.name,), among=listeners
        ):
            self._outbox.send(record.address)

    def _push_pull(self, now: float) -> None:
        self._push_pull_at = now + push_pull_interval_s(
            self._config.push_pull_interval_s, self._members.count(now)
        )
        for peer in self._members.pick(1, without=(self._me.name,)):
            if not self._leaving:
                self._outbox.order(ExchangeState(peer.address, join=False))
        self._judge.forget_those_long_gone(now)

    # What we do about ourselves

    def _on_tags(self, tags: Mapping[str, str]) -> None:
        meta = encode_tags(tags)
        if self._leaving or meta == self._me.meta:
            return
        self._me.meta, self._me.tags = meta, dict(tags)
        self._me.incarnation = min(self._me.incarnation + 1, INCARNATION_MAX)
        self._outbox.tell_alive(self._me)
        self._outbox.order(MemberChanged(self._me.member(), self._me.state))

    def _refute(self, incarnation: int) -> None:
        self._me.incarnation = min(max(self._me.incarnation, incarnation) + 1, INCARNATION_MAX)
        self._outbox.tell_alive(self._me)

    def _on_leave(self, now: float) -> None:
        if self._leaving:
            return
        self._leaving = True
        self._leave_began_at = now
        self._gossip_at = now
        self._above([self._serf.leave_intent()], now)
        self._advance_leave(now)

    def _advance_leave(self, now: float) -> None:
        """Take the next step of leaving once the last one is through, or has had its time."""
        if not self._leaving or self._left:
            return
        alone = not self._members.pick(1, without=(self._me.name,))
        told = not self._outbox.waiting_user(self._serf.intent_key)
        if not self._dead_announced and (alone or told or now >= self._leave_step_ends_at()):
            self._dead_announced = True
            self._gossip_at = now
            name = self._me.name
            self._outbox.broadcast(name, Dead(self._me.incarnation, name, name))
            self._judge.become(self._me, MemberState.LEFT, now)
        if self._dead_announced and (alone or now >= self._leave_step_ends_at()):
            self._left = True
            self._outbox.order(LeaveFinished())

    def _leave_step_ends_at(self) -> float:
        share = 1.0 if self._dead_announced else _LEAVE_STEP_SHARE
        return self._leave_began_at + share * self._config.leave_s

    def _above(self, orders: Sequence[Broadcast | Leaving], now: float) -> None:
        """Carry out what the Serf layer wants."""
        for order in orders:
            match order:
                case Broadcast(key, payload):
                    self._outbox.broadcast_user(key, payload)
                case Leaving(name):
                    record = self._members.get(name)
                    if record is not None and record.state is MemberState.DEAD:
                        self._judge.become(record, MemberState.LEFT, now)
                case _:
                    assert_never(order)


def _turn(message: Message) -> int:
    return 0 if isinstance(message, Alive) else 2 if isinstance(message, Ping) else 1


def push_pull_interval_s(base_s: float, members: int) -> float:
    """Return the pause between full exchanges: one `base_s` more per doubling above 32 members."""
    if members <= _PUSH_PULL_BASE_MEMBERS:
        return base_s
    return base_s * (math.ceil(math.log2(members) - math.log2(_PUSH_PULL_BASE_MEMBERS)) + 1)
