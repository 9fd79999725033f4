"""Decides who is a member, and what to tell whom.

Enters: packets, states, results of orders, deadlines. Leaves: effects, in order.
Never: I/O, clocks; `now` is monotonic seconds and comes with each event.

The rule of the file: a claim about a member counts only by its incarnation, which only the member
itself raises. Nobody is declared dead because a peer's state says so: it becomes suspect, and can
object.

Sources: SWIM (Das, Gupta, Motivala 2002) 4.2; memberlist, with whose nodes we share clusters.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import assert_never

from noti.errors import MessageInvalid
from noti.swim.events import (
    Accused,
    DeadlineReached,
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
    Refused,
    StateReceived,
    StreamPingAnswered,
    TagsChanged,
)
from noti.swim.members import Members, Record, tags_of
from noti.swim.messages import (
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
from noti.swim.outbox import Outbox
from noti.swim.packets import encode_tags
from noti.swim.probing import Prober
from noti.swim.rejoining import Rejoiner
from noti.swim.serf import Broadcast, Leaving, Serf
from noti.swim.suspicion import Suspicion
from noti.swim.timing import SwimConfig

ID_TAG = "id"
"""The tag with the random identity of a node's data directory; real Serf agents have none."""

CLUSTER_TAG = "cluster"
"""The tag with the cluster's identity; empty or missing while a node belongs to none."""

_LEAVE_STEP_SHARE = 0.4
"""Each of the two announcements of leaving gets at most this share of the time for leaving."""

_LEAVE_GOSSIP_S = 0.05
"""While leaving, gossip goes out this often, so that the announcements are through in time."""

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
        )
        self._members.add(self._me)
        self._gossip_at = now
        self._push_pull_at = now + rng.uniform(0, config.push_pull_interval_s)
        self._leaving = False
        self._leave_began_at = 0.0
        self._dead_announced = False
        self._left = False
        self._tell_alive(self._me)

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
            case DeadlineReached():
                self._on_deadline(now)
            case _:
                assert_never(event)
        return self._outbox.collect()

    def deadline(self) -> float:
        """Return when `DeadlineReached` is due; it may move with every event."""
        moments = [self._prober.deadline(), self._rejoiner.deadline(), self._push_pull_at]
        if not self._outbox.idle:
            moments.append(self._gossip_at)
        if self._leaving and not self._left:
            moments.append(self._leave_step_ends_at())
        moments += [
            record.suspicion.deadline() for record in self._members if record.suspicion is not None
        ]
        return min(moments)

    def members(self) -> tuple[Member, ...]:
        """Return everyone that is known, ourselves included, by name."""
        return tuple(record.member() for record in self._members)

    def state(self, *, join: bool) -> PushPull:
        """Return our full state, for an exchange."""
        nodes = tuple(record.remote_node() for record in self._members)
        return PushPull(join, nodes, self._serf.state())

    # What peers say

    def _on_packet(self, messages: Sequence[Message], source: Address, now: float) -> None:
        # Alive messages first: others in the packet may be about a member that they introduce.
        for message in sorted(messages, key=lambda each: not isinstance(each, Alive)):
            self._on_message(message, source, now)

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
                self._prober.on_ack(sequence)
            case Nack():
                pass  # it says that the helper is well; only a judge of our own health needs it
            case Alive() as alive:
                self._on_alive(alive, source, now)
            case Suspect() as suspect:
                self._on_suspect(suspect, now)
            case Dead() as dead:
                self._on_dead(dead, now)
            case User(payload):
                try:
                    self._above(self._serf.receive(payload, leaving=self._leaving), now)
                except MessageInvalid as error:
                    self._outbox.order(Refused(f"user message: {error}"))
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
        mine, theirs = self._me.tags.get(CLUSTER_TAG), tags.get(CLUSTER_TAG)
        if mine and theirs and mine != theirs:
            self._outbox.order(OtherCluster(alive.node, alive.address, theirs))
            return
        if not 0 < alive.versions[0] <= alive.versions[1]:
            return
        if alive.node == self._me.name:
            self._on_alive_about_me(alive, tags)
            return
        record = self._members.get(alive.node)
        if record is None:
            self._add(alive, tags, now)
            return
        moved = record.address != alive.address
        same_id = bool(tags.get(ID_TAG)) and tags.get(ID_TAG) == record.tags.get(ID_TAG)
        stale = alive.incarnation <= record.incarnation
        if moved and not same_id:
            if record.present:
                self._outbox.order(NameConflict(alive.node, record.address, alive.address))
                return
            # A name that is free again is taken whatever the incarnation: it is another node.
        elif stale:
            if not record.present and source == alive.address:
                # It is back and does not know what is said about it (hashicorp/memberlist#311).
                self._outbox.send(source, self._accusation(record))
            return
        self._revive(record, alive, tags, now)

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

    def _on_suspect(self, suspect: Suspect, now: float) -> None:
        record = self._members.get(suspect.node)
        if record is None or suspect.incarnation < record.incarnation:
            return
        if record.suspicion is not None:
            if record.suspicion.confirm(suspect.accuser):
                self._outbox.broadcast(record.name, suspect)
            return
        if record.state is not MemberState.ALIVE:
            return
        if record is self._me:
            self._outbox.order(Accused(suspect.accuser))
            self._refute(suspect.incarnation)
            return
        record.incarnation = suspect.incarnation
        record.suspicion = Suspicion.begin(
            suspect.accuser, self._members.count(now), self._config, now
        )
        self._outbox.broadcast(record.name, suspect)
        self._become(record, MemberState.SUSPECT, now)

    def _on_dead(self, dead: Dead, now: float) -> None:
        record = self._members.get(dead.node)
        if record is None or dead.incarnation < record.incarnation or not record.present:
            return
        if record is self._me and not self._leaving:
            self._outbox.order(Accused(dead.accuser))
            self._refute(dead.incarnation)
            return
        record.suspicion = None
        record.incarnation = dead.incarnation
        self._outbox.broadcast(record.name, dead)
        on_purpose = dead.accuser == dead.node or self._serf.is_leaving(dead.node)
        self._become(record, MemberState.LEFT if on_purpose else MemberState.DEAD, now)

    def _merge(self, state: PushPull, now: float) -> None:
        reason = self._members.versions_refused(state.nodes)
        if reason is not None:
            self._outbox.order(Refused(reason))
            return
        strangers = False
        for node in state.nodes:
            mine, theirs = self._me.tags.get(CLUSTER_TAG), tags_of(node.meta).get(CLUSTER_TAG)
            if mine and theirs and mine != theirs:
                strangers = True
                self._outbox.order(OtherCluster(node.name, node.address, theirs))
            else:
                self._merge_node(node, now)
        if strangers or not state.user_state:
            return
        try:
            self._above(self._serf.merge(state.user_state, leaving=self._leaving), now)
        except MessageInvalid as error:
            self._outbox.order(Refused(f"Serf's part of the state: {error}"))

    def _merge_node(self, node: RemoteNode, now: float) -> None:
        match node.state:
            case MemberState.ALIVE:
                alive = Alive(node.incarnation, node.name, node.address, node.meta, node.versions)
                self._on_alive(alive, None, now)
            case MemberState.LEFT:
                self._on_dead(Dead(node.incarnation, node.name, node.name), now)
            case MemberState.SUSPECT | MemberState.DEAD:
                self._on_suspect(Suspect(node.incarnation, node.name, self._me.name), now)

    # What time brings

    def _on_deadline(self, now: float) -> None:
        failed = self._prober.advance(now)
        record = self._members.get(failed) if failed is not None else None
        if record is not None and record.present:
            self._on_suspect(Suspect(record.incarnation, record.name, self._me.name), now)
        for record in self._members:
            if record.suspicion is not None and record.suspicion.deadline() <= now:
                self._on_dead(Dead(record.incarnation, record.name, self._me.name), now)
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
        for record in self._members:
            gone_s = now - record.changed_at
            if not record.present and gone_s > self._config.forget_after_s:
                self._members.forget(record.name)
                self._serf.on_forgotten(record.name)
                self._outbox.order(MemberChanged(record.member(), record.state, forgotten=True))

    # What we do about ourselves

    def _on_tags(self, tags: Mapping[str, str]) -> None:
        meta = encode_tags(tags)
        if self._leaving or meta == self._me.meta:
            return
        self._me.meta, self._me.tags = meta, dict(tags)
        self._me.incarnation = min(self._me.incarnation + 1, INCARNATION_MAX)
        self._tell_alive(self._me)
        self._outbox.order(MemberChanged(self._me.member(), self._me.state))

    def _refute(self, incarnation: int) -> None:
        self._me.incarnation = min(max(self._me.incarnation, incarnation) + 1, INCARNATION_MAX)
        self._tell_alive(self._me)

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
            self._on_dead(Dead(self._me.incarnation, self._me.name, self._me.name), now)
        if self._dead_announced and (alone or now >= self._leave_step_ends_at()):
            self._left = True
            self._outbox.order(LeaveFinished())

    def _leave_step_ends_at(self) -> float:
        share = 1.0 if self._dead_announced else _LEAVE_STEP_SHARE
        return self._leave_began_at + share * self._config.leave_s

    # Records

    def _add(self, alive: Alive, tags: dict[str, str], now: float) -> None:
        record = Record(
            alive.node,
            alive.address,
            alive.meta,
            tags,
            alive.versions,
            alive.incarnation,
            MemberState.ALIVE,
            now,
        )
        self._members.add(record)
        self._prober.add(record.name)
        self._serf.on_joined(record.name)
        self._tell_alive(record)
        self._outbox.order(MemberChanged(record.member(), None))
        if self._members.count(now) <= _PUSH_PULL_BASE_MEMBERS:
            # Gossip reaches almost everyone; nodes that join together compare notes to be sure.
            soon_s = self._config.probe_interval_s * self._rng.uniform(1, 2)
            self._push_pull_at = min(self._push_pull_at, now + soon_s)

    def _revive(self, record: Record, alive: Alive, tags: dict[str, str], now: float) -> None:
        before = (record.address, record.tags)
        record.address, record.meta, record.tags = alive.address, alive.meta, tags
        record.versions, record.incarnation = alive.versions, alive.incarnation
        record.suspicion = None
        self._tell_alive(record)
        if not record.present:
            self._serf.on_joined(record.name)
        if record.state is not MemberState.ALIVE:
            self._become(record, MemberState.ALIVE, now)
        elif before != (record.address, record.tags):
            self._outbox.order(MemberChanged(record.member(), record.state))

    def _become(self, record: Record, state: MemberState, now: float) -> None:
        assert (record.suspicion is not None) == (state is MemberState.SUSPECT)
        previous, record.state, record.changed_at = record.state, state, now
        self._outbox.order(MemberChanged(record.member(), previous))

    def _tell_alive(self, record: Record) -> None:
        alive = Alive(record.incarnation, record.name, record.address, record.meta, record.versions)
        self._outbox.broadcast(record.name, alive)

    def _accusation(self, record: Record) -> Dead:
        left = record.state is MemberState.LEFT
        return Dead(record.incarnation, record.name, record.name if left else self._me.name)

    def _above(self, orders: Sequence[Broadcast | Leaving], now: float) -> None:
        """Carry out what the Serf layer wants."""
        for order in orders:
            match order:
                case Broadcast(key, payload):
                    self._outbox.broadcast_user(key, payload)
                case Leaving(name):
                    record = self._members.get(name)
                    if record is not None and record.state is MemberState.DEAD:
                        self._become(record, MemberState.LEFT, now)
                case _:
                    assert_never(order)


def push_pull_interval_s(base_s: float, members: int) -> float:
    """Return the pause between full exchanges: one `base_s` more per doubling above 32 members."""
    if members <= _PUSH_PULL_BASE_MEMBERS:
        return base_s
    return base_s * (math.ceil(math.log2(members) - math.log2(_PUSH_PULL_BASE_MEMBERS)) + 1)
