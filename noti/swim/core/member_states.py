"""Decides the states of the other members, alive, suspect, dead or left, and their addresses.

Enters: claims about them from anywhere, answers, now. Leaves: changed records, effects through the
outbox.
Never: a member dead, left or moved before it was pinged at the address where it was; a new member,
address or tag that the address itself has not confirmed.

Anybody can send a packet under any name, so a claim that somebody is alive, back, elsewhere, or has
other tags waits among the newcomers until that address has answered a ping that carried the claim;
what it says about itself with the answer counts instead of the claim. Only a newer incarnation of
what is known already counts at once, as it ends a suspicion; but not for ever without an answer, or
a stranger could hide a crash. A claim that a member is dead only makes it a suspect.
A suspect is sent the claim and pinged until its time is over; if it answers it stays, and if the
claim is wrong it refutes it with a higher incarnation, which ends the suspicion. A member that is
claimed to have left is pinged likewise, and has left when it does not answer: one of ours that
really leaves does not answer a ping with this claim, and a Serf agent a little later.

Sources: SWIM (Das, Gupta, Motivala 2002) 4.2; memberlist, which believes claims without a ping.
"""

import math
from collections.abc import Mapping

from noti.swim.core.events import (
    GossipRejected,
    IdentityConflict,
    MemberChanged,
    NameConflict,
    OtherCluster,
)
from noti.swim.core.identities import Identities
from noti.swim.core.members import ID_TAG, Members, PendingClaim, Record, tags_of
from noti.swim.core.messages import STREAM_PING_VERSION, Address, Alive, Dead, MemberState, Suspect
from noti.swim.core.newcomers import Backing, Newcomers
from noti.swim.core.outbox import Outbox
from noti.swim.core.probing import Prober
from noti.swim.core.serf.intents import Intents
from noti.swim.core.suspicion import Suspicion
from noti.swim.core.timing import SwimConfig
from noti.swim.core.validate import Incarnations, why_versions_invalid
from noti.swim.core.verification import Question, Verifier

CLUSTER_TAG = "cluster"
"""The tag with the cluster's identity; empty or missing while a node belongs to none."""

_LEAVING_S_MAX = 15.0
"""So long a member that leaves may go on answering; Serf agents take up to 11 s."""

_MOVING_S_MAX = 3.0
"""So long a member that is claimed to have moved has to answer there, some packets being lost."""

_ALSO_BY_STREAM = (2, 4, 8, 16)
"""Which pings of a suspect are sent over TCP, too: one of them after a second, and before the end
of any suspicion, and not so many that a lost half of a cluster is dialled all the time."""

_REFUTED_UNHEARD_MAX = 3
"""Suspicions that are refuted in the name of a member which answers nobody; where it is reached by
others only, it answers them within a round of probes, which is shorter than this takes."""


class MemberStates:
    """The other members, as one node sees them."""

    def __init__(
        self,
        me: Record,
        *,
        members: Members,
        outbox: Outbox,
        prober: Prober,
        verifier: Verifier,
        identities: Identities,
        intents: Intents,
        config: SwimConfig,
        incarnations: Incarnations,
    ) -> None:
        self._me = me
        self._members = members
        self._outbox = outbox
        self._prober = prober
        self._verifier = verifier
        self._identities = identities
        self._newcomers = Newcomers(me.name, members=members, verifier=verifier, config=config)
        self._intents = intents
        self._config = config
        self._incarnations = incarnations
        self._unresolved: dict[str, None] = {}
        """Names of those with a suspicion or a pending claim, and of some who had one."""
        self._due_at = math.inf
        """No later than the first of them needs something; may be too early until `advance`."""

    def deadline(self) -> float:
        """Return when `advance` is due; infinite without newcomer, suspicion or pending claim."""
        return min(self._due_at, self._newcomers.deadline())

    def advance(self, now: float) -> None:
        """Ping whoever is to be pinged again, and decide when time is over."""
        self._newcomers.advance(now)
        for record in self._unresolved_members():
            suspicion, pending_claim = record.suspicion, record.pending_claim
            if suspicion is not None and suspicion.deadline() <= now:
                self._end_suspicion(record, suspicion, now)
            elif suspicion is not None and suspicion.ping_at <= now:
                self._ping_suspect(record, suspicion, now)
            if pending_claim is not None and pending_claim.ends_at <= now:
                self._end_pending_claim(record, pending_claim, now)
            elif pending_claim is not None and pending_claim.verify_again_at <= now:
                pending_claim.verify_again_at = math.inf
                if record.acked_at <= pending_claim.verified_since:
                    self._ask(record, pending_claim.claim, now)
                    self._ask_by_stream(record, now)
        self._due_at = math.inf
        for record in self._unresolved_members():
            self._expect(record)

    def _expect(self, record: Record) -> None:
        """Be there when a member with a suspicion or a pending claim needs something."""
        suspicion, pending_claim = record.suspicion, record.pending_claim
        self._unresolved[record.name] = None
        if suspicion is not None:
            self._due_at = min(self._due_at, suspicion.deadline(), suspicion.ping_at)
        if pending_claim is not None:
            claim_due_at = min(pending_claim.verify_again_at, pending_claim.ends_at)
            self._due_at = min(self._due_at, claim_due_at)

    def postpone(self, until: float) -> None:
        """Decide about nobody before a time: we come late, and did not read what was answered."""
        for record in self._unresolved_members():
            if record.suspicion is not None:
                record.suspicion.not_before = until
            if record.pending_claim is not None:
                record.pending_claim.ends_at = max(record.pending_claim.ends_at, until)

    def _unresolved_members(self) -> list[Record]:
        """Return the members with a suspicion or a pending claim."""
        doubted = [self._members.get(name) for name in self._unresolved]
        found = [one for one in doubted if one is not None and (one.suspicion or one.pending_claim)]
        if len(found) < len(self._unresolved):
            self._unresolved = {record.name: None for record in found}
        return found

    # Claims

    def is_of_other_cluster(self, tags: Mapping[str, str], name: str, address: Address) -> bool:
        """Whether a node belongs to another cluster, which is reported; it is to be ignored."""
        mine, theirs = self._me.tags.get(CLUSTER_TAG), tags.get(CLUSTER_TAG)
        if not (mine and theirs and mine != theirs):
            return False
        self._outbox.emit(OtherCluster(name, address, theirs))
        return True

    def is_valid(self, claim: Alive | Suspect | Dead, now: float) -> bool:
        """Whether the numbers in a claim are valid; if not, that is reported."""
        node = claim.node
        if text := self._why_incarnation_invalid(claim, now):
            self._outbox.emit(GossipRejected("incarnation", text))
            return False
        if isinstance(claim, Alive) and (text := why_versions_invalid(claim.versions, node)):
            self._outbox.emit(GossipRejected("versions", text))
            return False
        return True

    def _why_incarnation_invalid(self, claim: Alive | Suspect | Dead, now: float) -> str | None:
        record = self._members.get(claim.node)
        if record is not None and claim.incarnation <= record.incarnation:
            return None  # it is news to nobody; without it, others could not confirm a suspicion
        # We refute any accusation that could be a true one: who still accuses us of what we said
        # before a restart, at the limit, would not let us return otherwise.
        high = isinstance(claim, Alive) or record is self._me
        return self._incarnations.why_invalid(claim.incarnation, claim.node, now, high=high)

    def on_alive(self, alive: Alive, source: Address | None, backing: Backing, now: float) -> None:
        """Take a valid claim that another member is alive."""
        record = self._members.get(alive.node)
        if record is not None and not self._may_count(record, alive, source):
            return
        if backing is Backing.PROVEN:
            self._take(record, alive, now)
            return
        if record is not None and record.describes(alive) and record.present:
            self._refresh(record, alive, now)
            return
        if record is not None and record.address == alive.address:
            # One that is just leaving may still answer those who do not ask whether it is there.
            leaving = record.state is MemberState.LEFT and now - record.changed_at < _LEAVING_S_MAX
            backing = backing if leaving else Backing.KNOWN
        if not self._newcomers.add(alive, backing, now):
            text = f"too many others are being asked whether they are there, so {alive.node} is not"
            self._outbox.emit(GossipRejected("members", text))
        elif record is not None and record.present and record.address != alive.address:
            self._doubt_place(record, alive, now)

    def _may_count(self, record: Record, alive: Alive, source: Address | None) -> bool:
        """Whether a claim that a known member is alive is news, or is to be asked about."""
        identity = tags_of(alive.meta).get(ID_TAG)
        moved = record.address != alive.address
        if moved and not (identity and identity == record.tags.get(ID_TAG)):
            if record.present:
                self._outbox.emit(NameConflict(alive.node, record.address, alive.address))
            # A name that is free again is taken whatever the incarnation: it is another node.
            return not record.present
        if alive.incarnation > record.incarnation:
            return True
        if not record.present and source == alive.address:
            # It is back and does not know that it is dead here (hashicorp/memberlist#311).
            self._outbox.send(source, self._accusation(record))
        return False

    def on_answer(self, question: Question, said: Alive | None, now: float) -> None:
        """Take the answer to a question; `said` is what the node said about itself with it.

        That was taken before; where it is missing, the node agrees with what was claimed.
        """
        record = self._members.get(question.name)
        if record is not None and record.address == question.address:
            self._members.note_ack(question.name, now)
        self._newcomers.discard(question.name, question.address)
        if said is None and isinstance(question.claim, Alive):
            self.on_alive(question.claim, None, Backing.PROVEN, now)

    def on_suspect(self, suspect: Suspect, now: float) -> None:
        """Take a valid claim that another member does not answer."""
        record = self._members.get(suspect.node)
        if record is None or suspect.incarnation < record.incarnation:
            return
        if record.suspicion is not None:
            if record.suspicion.confirm(suspect.accuser):
                self._expect(record)
                self._outbox.broadcast(record.name, suspect)
        elif record.state is MemberState.ALIVE:
            self._outbox.broadcast(record.name, suspect)
            self._suspect(record, suspect.incarnation, suspect.accuser, now)

    def on_dead(self, dead: Dead, now: float) -> None:
        """Take a valid claim that another member is dead or left: ping it, and soon decide."""
        record = self._members.get(dead.node)
        if record is None or dead.incarnation < record.incarnation or not record.present:
            return
        if dead.accuser == dead.node or self._intents.is_leaving(dead.node):
            if record.pending_claim is None or isinstance(record.pending_claim.claim, Alive):
                self._outbox.broadcast(record.name, dead)
                self._verify(record, dead, now + _LEAVING_S_MAX, now)
            return
        if record.suspicion is None:
            # Passed on as a suspicion; members that confirm it broadcast that themselves.
            self.on_suspect(Suspect(dead.incarnation, dead.node, dead.accuser), now)
        if record.suspicion is not None:
            ends_by = record.suspicion.started_at + self._config.probe_interval_s
            if record.suspicion.shorten(ends_by, self._config.probe_timeout_s):
                self._ask_by_stream(record, now)
            self._expect(record)

    # Decisions

    def _suspect(self, record: Record, incarnation: int, accuser: str, now: float) -> None:
        record.incarnation = incarnation
        record.suspicion = Suspicion.begin(accuser, self._members.count(now), self._config, now)
        self._expect(record)
        self.set_state(record, MemberState.SUSPECT, now)

    def _ping_suspect(self, record: Record, suspicion: Suspicion, now: float) -> None:
        if record.acked_at > suspicion.started_at:
            suspicion.ping_at = math.inf
            return
        suspicion.ping_at = now + suspicion.ping_every_s
        suspicion.pings += 1
        self._ask(record, Suspect(record.incarnation, record.name, self._me.name), now)
        if suspicion.pings in _ALSO_BY_STREAM:
            # Packets were lost, if not the member, and TCP repeats what is lost.
            self._ask_by_stream(record, now)

    def _end_suspicion(self, record: Record, suspicion: Suspicion, now: float) -> None:
        record.suspicion = None
        if record.acked_at > suspicion.started_at:
            # Not for others: it has to refute this itself, or they have to ping it, too.
            self.set_state(record, MemberState.ALIVE, now)
            return
        self._outbox.broadcast(record.name, Dead(record.incarnation, record.name, self._me.name))
        self._lose(record, on_purpose=self._intents.is_leaving(record.name), now=now)

    def _verify(self, record: Record, claim: Alive | Dead, gives_up_at: float, now: float) -> None:
        """Ping a member with a claim about it, and again, also over TCP: packets may be lost."""
        again_at = now + self._config.probe_timeout_s / 2
        # Whoever leaves says so to Serf's layer first; where nobody did, packets get more time.
        unannounced = isinstance(claim, Dead) and not self._intents.is_leaving(record.name)
        config = self._config
        ends_at = now + (config.probe_interval_s if unannounced else config.probe_timeout_s)
        record.pending_claim = PendingClaim(claim, now, again_at, ends_at, gives_up_at)
        self._expect(record)
        self._ask(record, claim, now)

    def _ask(self, record: Record, claim: Alive | Dead | Suspect, now: float) -> None:
        self._verifier.ask(record.name, record.address, claim, now)

    def _ask_by_stream(self, record: Record, now: float) -> None:
        if record.versions[1] >= STREAM_PING_VERSION:
            self._verifier.ask_by_stream(record.name, record.address, None, now)

    def _doubt_place(self, record: Record, alive: Alive, now: float) -> None:
        if record.pending_claim is None:
            self._verify(record, alive, now + _MOVING_S_MAX, now)

    def _end_pending_claim(self, record: Record, pending_claim: PendingClaim, now: float) -> None:
        record.pending_claim = None
        claim = pending_claim.claim
        answered = record.acked_at > pending_claim.verified_since
        if claim.incarnation < record.incarnation or not record.present:
            return
        if isinstance(claim, Alive):
            if answered:
                self._outbox.emit(NameConflict(record.name, record.address, claim.address))
            elif pending_claim.confirmed:
                self._revive(record, claim, now)
            elif now < pending_claim.gives_up_at:
                self._verify(record, claim, pending_claim.gives_up_at, now)
        elif not answered:
            record.incarnation = claim.incarnation
            self._lose(record, on_purpose=True, now=now)
        elif now < pending_claim.gives_up_at:
            self._verify(record, claim, pending_claim.gives_up_at, now)

    def _lose(self, record: Record, *, on_purpose: bool, now: float) -> None:
        record.suspicion = record.pending_claim = None
        self.set_state(record, MemberState.LEFT if on_purpose else MemberState.DEAD, now)

    # Records

    def _take(self, record: Record | None, alive: Alive, now: float) -> None:
        """Take what the address of a claim itself confirmed."""
        self._newcomers.discard(alive.node, alive.address)
        if record is None:
            self._add(alive, now)
        elif record.present and record.address != alive.address:
            pending_claim = record.pending_claim
            if pending_claim is not None and pending_claim.claim.incarnation <= alive.incarnation:
                pending_claim.claim, pending_claim.confirmed = alive, True
        else:
            self._revive(record, alive, now)
        if record is not None and record.address == alive.address:
            self._members.note_ack(alive.node, now)

    def _add(self, alive: Alive, now: float) -> None:
        record = Record.of(alive, self._tags_shown(alive.node, alive.address, alive.meta), now)
        if not self._make_room(record):
            text = f"no room for {alive.node}: there are {len(self._members)} members"
            self._outbox.emit(GossipRejected("members", text))
            return
        self._members.add(record)
        self._identities.note(record)
        self._prober.add(record.name)
        self._intents.on_joined(record.name)
        self._outbox.broadcast_alive(record)
        self._outbox.emit(MemberChanged(record.member(), None))

    def _make_room(self, newcomer: Record) -> bool:
        """Whether there is room for a new member, if need be after forgetting one.

        The cluster's own nodes always find room: whoever joined last gives way.
        """
        if len(self._members) < self._config.members_max:
            return True
        displaced = self._identities.longest_absent()
        if displaced is None and self._identities.is_protected(newcomer):
            displaced = self._identities.latest_foreigner()
            if displaced is None:
                return True
        if displaced is None:
            return False
        self.forget(displaced)
        return True

    def _tags_shown(self, name: str, address: Address, meta: bytes) -> dict[str, str]:
        """Return the tags of a member, without an identity that is another's, which is reported."""
        tags = dict(tags_of(meta))
        identity = tags.get(ID_TAG, "")
        owner = self._identities.owner_of(identity) if identity else None
        if owner is not None and owner != name:
            del tags[ID_TAG]
            self._outbox.emit(IdentityConflict(name, address, identity, owner))
        return tags

    def _refresh(self, record: Record, alive: Alive, now: float) -> None:
        """Take a newer incarnation of what is known, which ends a suspicion."""
        if record.suspicion is not None:
            if record.refuted_unheard >= _REFUTED_UNHEARD_MAX:
                record.incarnation = alive.incarnation
                return
            if record.acked_at <= record.suspicion.started_at:
                record.refuted_unheard += 1
        self._revive(record, alive, now)

    def _revive(self, record: Record, alive: Alive, now: float) -> None:
        tags = (
            record.tags
            if alive.meta == record.meta
            else self._tags_shown(alive.node, alive.address, alive.meta)
        )
        before = (record.address, record.tags)
        self._members.move(record, alive.address)
        record.meta, record.tags = alive.meta, tags
        record.versions, record.incarnation = alive.versions, alive.incarnation
        record.suspicion = None
        pending_claim = record.pending_claim
        if pending_claim is not None and alive.incarnation > pending_claim.claim.incarnation:
            record.pending_claim = None
        self._identities.note(record)
        self._outbox.broadcast_alive(record)
        if not record.present:
            self._intents.on_joined(record.name)
        if record.state is not MemberState.ALIVE:
            self.set_state(record, MemberState.ALIVE, now)
        elif before != (record.address, record.tags):
            self._outbox.emit(MemberChanged(record.member(), record.state))

    def set_state(self, record: Record, state: MemberState, now: float) -> None:
        """Change a member's state."""
        assert (record.suspicion is not None) == (state is MemberState.SUSPECT)
        previous = record.state
        self._members.set_state(record, state, now)
        self._outbox.emit(MemberChanged(record.member(), previous))

    def reap(self, now: float) -> None:
        """Forget members that have been gone for long, and are no nodes of the cluster."""
        for record in self._members:
            left = record.state is MemberState.LEFT
            kept_s = self._config.left_forget_s if left else self._config.forget_after_s
            gone = not record.present and now - record.changed_at > kept_s
            if gone and not self._identities.is_protected(record):
                self.forget(record)

    def check_identities(self) -> None:
        """Take identities from members that turned out not to be the nodes that these belong to."""
        for record in self._members:
            owner = self._identities.owner_of(record.tags.get(ID_TAG, ""))
            if record is not self._me and owner not in (None, record.name):
                record.tags = self._tags_shown(record.name, record.address, record.meta)
                self._outbox.emit(MemberChanged(record.member(), record.state))

    def forget(self, record: Record) -> None:
        """Forget a member."""
        self._members.forget(record.name)
        self._intents.on_forgotten(record.name)
        self._outbox.emit(MemberChanged(record.member(), record.state, forgotten=True))

    def _accusation(self, record: Record) -> Dead:
        left = record.state is MemberState.LEFT
        return Dead(record.incarnation, record.name, record.name if left else self._me.name)
