"""Judges the other members: who is there, who is suspected, who is gone, and where they are.

Enters: claims about them from anywhere, now. Leaves: changed records, effects through the outbox.
Never: taking a member away, or moving it, before it was asked at the address where it was.

Anybody can send a packet under any name, so a claim that a member is gone only makes it a suspect.
A suspect is told what is said about it and pinged until its time is over; if it answers it stays,
and if the claim is wrong it objects with a higher incarnation, which ends the suspicion. Whoever is
said to have left by itself is asked likewise, and has left when it does not answer: one of ours
that really leaves is silent when it is told so, and a Serf agent is a little later.

Sources: SWIM (Das, Gupta, Motivala 2002) 4.2; memberlist, which believes claims without asking.
"""

import math
from collections.abc import Mapping

from noti.swim.core.events import MemberChanged, NameConflict, OtherCluster, Refused
from noti.swim.core.members import Members, Record, Rumour, tags_of
from noti.swim.core.messages import Address, Alive, Dead, MemberState, Suspect
from noti.swim.core.outbox import Outbox
from noti.swim.core.probing import Prober
from noti.swim.core.serf import Serf
from noti.swim.core.suspicion import Suspicion
from noti.swim.core.timing import SwimConfig
from noti.swim.core.validate import Incarnations, versions_refused

ID_TAG = "id"
"""The tag with the random identity of a node's data directory; real Serf agents have none."""

CLUSTER_TAG = "cluster"
"""The tag with the cluster's identity; empty or missing while a node belongs to none."""

_LEAVING_S_MAX = 15.0
"""So long a member that says that it leaves may go on answering; Serf agents take up to 11 s."""


class Judge:
    """One node's judgement of the others."""

    def __init__(
        self,
        me: Record,
        *,
        members: Members,
        outbox: Outbox,
        prober: Prober,
        serf: Serf,
        config: SwimConfig,
        incarnations: Incarnations,
    ) -> None:
        self._me = me
        self._members = members
        self._outbox = outbox
        self._prober = prober
        self._serf = serf
        self._config = config
        self._incarnations = incarnations
        self._doubted: dict[str, None] = {}
        """Names of those in doubt, and of some who no longer are."""
        self._no_room_at = -math.inf
        """When there was none: a state with thousands of inventions is refused at once."""

    def deadline(self) -> float:
        """Return when `advance` is due; infinite when nobody is in doubt."""
        moments = [math.inf]
        for record in self._in_doubt():
            if record.suspicion is not None:
                moments += [record.suspicion.deadline(), record.suspicion.ask_at]
            if record.rumour is not None:
                moments += [record.rumour.ask_again_at, record.rumour.ends_at]
        return min(moments)

    def advance(self, now: float) -> None:
        """Ask those in doubt again, and decide about those whose time is over."""
        for record in self._in_doubt():
            suspicion, rumour = record.suspicion, record.rumour
            if suspicion is not None and suspicion.deadline() <= now:
                self._decide(record, suspicion, now)
            elif suspicion is not None and suspicion.ask_at <= now:
                self._ask(record, suspicion, now)
            if rumour is not None and rumour.ends_at <= now:
                self._decide_rumour(record, rumour, now)
            elif rumour is not None and rumour.ask_again_at <= now:
                rumour.ask_again_at = math.inf
                self._prober.ask(record, rumour.claim)

    def _in_doubt(self) -> list[Record]:
        """Return who is suspected, or the subject of a rumour."""
        doubted = [self._members.get(name) for name in self._doubted]
        found = [one for one in doubted if one is not None and (one.suspicion or one.rumour)]
        if len(found) < len(self._doubted):
            self._doubted = {record.name: None for record in found}
        return found

    # Claims

    def is_stranger(self, tags: Mapping[str, str], name: str, address: Address) -> bool:
        """Whether a node belongs to another cluster, which is told; it is to be ignored."""
        mine, theirs = self._me.tags.get(CLUSTER_TAG), tags.get(CLUSTER_TAG)
        if not (mine and theirs and mine != theirs):
            return False
        self._outbox.order(OtherCluster(name, address, theirs))
        return True

    def believes(self, claim: Alive | Suspect | Dead, now: float) -> bool:
        """Whether a claim can be true at all, as far as its numbers tell; if not, that is told."""
        reason, kind = None, "incarnation"
        if isinstance(claim, Alive):
            reason, kind = versions_refused(claim.versions, claim.node), "versions"
        if reason is None:
            alive = isinstance(claim, Alive)
            reason = self._incarnations.refused(claim.incarnation, claim.node, now, alive=alive)
            kind = "incarnation" if reason is not None else kind
        if reason is not None:
            self._outbox.order(Refused(reason, kind))
        return reason is None

    def on_alive(self, alive: Alive, source: Address | None, now: float) -> None:
        """Take a claim, which can be true, that somebody else is there."""
        tags = tags_of(alive.meta)
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
        elif moved and record.present:
            if record.rumour is None:
                self._hear(record, alive, now, now)
            return
        self._revive(record, alive, tags, now)

    def on_suspect(self, suspect: Suspect, now: float) -> None:
        """Take a claim, which can be true, that somebody else does not answer."""
        record = self._members.get(suspect.node)
        if record is None or suspect.incarnation < record.incarnation:
            return
        if record.suspicion is not None:
            if record.suspicion.confirm(suspect.accuser):
                self._outbox.broadcast(record.name, suspect)
        elif record.state is MemberState.ALIVE:
            self._outbox.broadcast(record.name, suspect)
            self._suspect(record, suspect.incarnation, suspect.accuser, now)

    def on_dead(self, dead: Dead, now: float) -> None:
        """Take a claim, which can be true, that somebody else is gone: ask it, and soon decide."""
        record = self._members.get(dead.node)
        if record is None or dead.incarnation < record.incarnation or not record.present:
            return
        if dead.accuser == dead.node or self._serf.is_leaving(dead.node):
            if record.rumour is None or isinstance(record.rumour.claim, Alive):
                self._outbox.broadcast(record.name, dead)
                self._hear(record, dead, now + _LEAVING_S_MAX, now)
            return
        if record.suspicion is None:
            # Passed on as what it is worth; whoever finds it confirmed says so itself.
            self.on_suspect(Suspect(dead.incarnation, dead.node, dead.accuser), now)
        if record.suspicion is not None:
            ends_by = record.suspicion.started_at + self._config.probe_interval_s
            record.suspicion.shorten(ends_by, self._config.probe_timeout_s)

    # Decisions

    def _suspect(self, record: Record, incarnation: int, accuser: str, now: float) -> None:
        record.incarnation = incarnation
        self._doubted[record.name] = None
        record.suspicion = Suspicion.begin(accuser, self._members.count(now), self._config, now)
        self.become(record, MemberState.SUSPECT, now)

    def _ask(self, record: Record, suspicion: Suspicion, now: float) -> None:
        if record.heard_at > suspicion.started_at:
            suspicion.ask_at = math.inf
            return
        suspicion.ask_at = now + suspicion.ask_every_s
        self._prober.ask(record, Suspect(record.incarnation, record.name, self._me.name))

    def _decide(self, record: Record, suspicion: Suspicion, now: float) -> None:
        record.suspicion = None
        if record.heard_at > suspicion.started_at:
            # Not to be told to others: it has to object itself, or they have to ask it, too.
            self.become(record, MemberState.ALIVE, now)
            return
        self._outbox.broadcast(record.name, Dead(record.incarnation, record.name, self._me.name))
        self._take_away(record, on_purpose=self._serf.is_leaving(record.name), now=now)

    def _hear(self, record: Record, claim: Alive | Dead, given_up_at: float, now: float) -> None:
        """Ask a member about a rumour, twice: one packet may be lost."""
        until_s = self._config.probe_timeout_s
        self._doubted[record.name] = None
        record.rumour = Rumour(claim, now, now + until_s / 2, now + until_s, given_up_at)
        self._prober.ask(record, claim)

    def _decide_rumour(self, record: Record, rumour: Rumour, now: float) -> None:
        record.rumour = None
        claim = rumour.claim
        answered = record.heard_at > rumour.asked_at
        if claim.incarnation < record.incarnation or not record.present:
            return
        if isinstance(claim, Alive):
            if answered:
                self._outbox.order(NameConflict(record.name, record.address, claim.address))
            else:
                self._revive(record, claim, tags_of(claim.meta), now)
        elif not answered:
            record.incarnation = claim.incarnation
            self._take_away(record, on_purpose=True, now=now)
        elif now < rumour.given_up_at:
            self._hear(record, claim, rumour.given_up_at, now)

    def _take_away(self, record: Record, *, on_purpose: bool, now: float) -> None:
        record.suspicion = record.rumour = None
        self.become(record, MemberState.LEFT if on_purpose else MemberState.DEAD, now)

    # Records

    def _add(self, alive: Alive, tags: dict[str, str], now: float) -> None:
        if not self._make_room(now):
            reason = f"no room for {alive.node}: there are {len(self._members)} members"
            self._outbox.order(Refused(reason, "members"))
            return
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
        self._outbox.order(MemberChanged(record.member(), None))
        self._prober.ask(record, None)  # others are told of it when it answers

    def _make_room(self, now: float) -> bool:
        """Whether there is room for a newcomer, if need be after forgetting somebody."""
        unheard = self._members.unheard
        full = len(self._members) >= self._config.members_max
        if not full and len(unheard) < self._config.unheard_max:
            return True
        oldest, since = next(iter(unheard.items()), ("", now))
        if now - since > self._config.probe_timeout_s:  # or it may be about to answer
            self._forget_named(oldest)
            return True
        if full and self._no_room_at < now:
            longest_gone = self._members.longest_gone()
            if longest_gone is not None:
                self.forget(longest_gone)
                return True
            self._no_room_at = now
        return False

    def _forget_named(self, name: str) -> None:
        record = self._members.get(name)
        assert record is not None
        self.forget(record)

    def _revive(self, record: Record, alive: Alive, tags: dict[str, str], now: float) -> None:
        before = (record.address, record.tags)
        record.address, record.meta, record.tags = alive.address, alive.meta, tags
        record.versions, record.incarnation = alive.versions, alive.incarnation
        record.suspicion = None
        rumour = record.rumour
        if rumour is not None and alive.incarnation > rumour.claim.incarnation:
            record.rumour = None
        self._outbox.tell_alive(record)
        if not record.present:
            self._serf.on_joined(record.name)
        if record.state is not MemberState.ALIVE:
            self.become(record, MemberState.ALIVE, now)
        elif before != (record.address, record.tags):
            # Whoever was given tags that it does not have objects at once.
            self._prober.ask(record, alive)
            self._outbox.order(MemberChanged(record.member(), record.state))

    def become(self, record: Record, state: MemberState, now: float) -> None:
        """Change a member's state."""
        assert (record.suspicion is not None) == (state is MemberState.SUSPECT)
        previous, record.state, record.changed_at = record.state, state, now
        self._outbox.order(MemberChanged(record.member(), previous))

    def forget_those_long_gone(self, now: float) -> None:
        """Drop whoever is gone for so long that it will not return, rumours soon."""
        for record in self._members:
            unheard = record.name in self._members.unheard
            kept_s = self._config.gossip_to_dead_s if unheard else self._config.forget_after_s
            if not record.present and now - record.changed_at > kept_s:
                self.forget(record)

    def forget(self, record: Record) -> None:
        """Drop a member."""
        self._members.forget(record.name)
        self._serf.on_forgotten(record.name)
        self._outbox.order(MemberChanged(record.member(), record.state, forgotten=True))

    def _accusation(self, record: Record) -> Dead:
        left = record.state is MemberState.LEFT
        return Dead(record.incarnation, record.name, record.name if left else self._me.name)
