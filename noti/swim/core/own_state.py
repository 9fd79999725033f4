"""Speaks for this node: refutes what others claim about it, shows its tags, and leaves.

Enters: claims about this node, its tags, the order to leave, now. Leaves: effects through the
outbox.
Never: a claim about another member.

Leaving takes two broadcasts, each until it was sent often enough or its time is over: Serf's leave
intent, by which agents distinguish "left" from "failed", and then our own `Dead` message.
"""

import math
from collections.abc import Mapping, Sequence

from noti.swim.core.awareness import LocalHealth
from noti.swim.core.events import LeaveFinished, MemberChanged, NameConflict, Refuted
from noti.swim.core.members import ID_TAG, Members, Record
from noti.swim.core.messages import INCARNATION_MAX, Alive, Dead, MemberState, Message, Suspect
from noti.swim.core.outbox import Outbox
from noti.swim.core.packets import encode_tags
from noti.swim.core.serf.intents import Intents
from noti.swim.core.timing import SwimConfig

_LEAVE_STEP_SHARE = 0.4
"""Each of the two announcements of leaving gets at most this share of the time for leaving."""


class OwnState:
    """This node as a member."""

    def __init__(
        self,
        me: Record,
        *,
        members: Members,
        outbox: Outbox,
        intents: Intents,
        health: LocalHealth,
        config: SwimConfig,
    ) -> None:
        self._me = me
        self._members = members
        self._outbox = outbox
        self._intents = intents
        self._health = health
        self._config = config
        self.leaving = False
        """Whether this node was ordered to leave; then it refutes nothing any more."""
        self._leave_began_at = 0.0
        self._dead_announced = False
        self._left = False

    def on_alive(self, alive: Alive, tags: Mapping[str, str]) -> None:
        """Take a claim where this node is, and with which tags; another node may use its name."""
        if self.leaving:
            return
        moved = alive.address != self._me.address
        if moved and tags.get(ID_TAG, "") != self._me.tags.get(ID_TAG, ""):
            self._outbox.emit(NameConflict(self._me.name, self._me.address, alive.address))
        elif alive.incarnation >= self._me.incarnation:
            same = (alive.address, alive.meta, alive.versions) == (
                self._me.address,
                self._me.meta,
                self._me.versions,
            )
            if alive.incarnation > self._me.incarnation or not same:
                self._refute(alive.incarnation)

    def on_accusation(self, claim: Suspect | Dead) -> None:
        """Take a claim that this node does not answer, or is dead."""
        if claim.incarnation >= self._me.incarnation and not self.leaving:
            self._outbox.emit(Refuted(claim.accuser))
            self._health.on_accusation()
            self._refute(claim.incarnation)

    def _refute(self, incarnation: int) -> None:
        self._me.incarnation = min(max(self._me.incarnation, incarnation) + 1, INCARNATION_MAX)
        self._outbox.broadcast_alive(self._me)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Show everyone these tags from now on; raises `ConfigInvalid` when they do not fit."""
        meta = encode_tags(tags)
        if self.leaving or meta == self._me.meta:
            return
        self._me.meta, self._me.tags = meta, dict(tags)
        self._refute(self._me.incarnation)
        self._outbox.emit(MemberChanged(self._me.member(), self._me.state))

    def leave(self, now: float) -> None:
        """Begin to leave."""
        if self.leaving:
            return
        self.leaving = True
        self._leave_began_at = now
        intent = self._intents.leave_intent()
        self._outbox.broadcast_user(intent.key, intent.payload)

    def advance(self, now: float) -> bool:
        """Take the next step of leaving once the last one is through, or has had its time.

        Returns whether there is another announcement to be gossiped.
        """
        if not self.leaving or self._left:
            return False
        alone = not self._members.pick(1, without=(self._me.name,))
        sent = not self._outbox.waiting_user(self._intents.intent_key)
        announces = not self._dead_announced and (alone or sent or now >= self.deadline())
        if announces:
            self._dead_announced = True
            name = self._me.name
            self._outbox.broadcast(name, Dead(self._me.incarnation, name, name))
            self._members.set_state(self._me, MemberState.LEFT, now)
            self._outbox.emit(MemberChanged(self._me.member(), MemberState.ALIVE))
        if self._dead_announced and (alone or now >= self.deadline()):
            self._left = True
            self._outbox.emit(LeaveFinished())
        return announces

    def deadline(self) -> float:
        """Return when `advance` is due at the latest; infinite while this node is not leaving."""
        if not self.leaving or self._left:
            return math.inf
        share = 1.0 if self._dead_announced else _LEAVE_STEP_SHARE
        return self._leave_began_at + share * self._config.leave_s

    @property
    def has_left(self) -> bool:
        """Whether this node announced that it is gone; pings over TCP carry no question of that."""
        return self._dead_announced

    def is_silent(self, messages: Sequence[Message]) -> bool:
        """Whether these ask if this node left, or is alive, and it left: silence is the answer."""
        return self._dead_announced and any(
            isinstance(each, Dead | Alive) and each.node == self._me.name for each in messages
        )

    def objects_to(self, messages: Sequence[Message]) -> bool:
        """Whether these claim something about this node that is not so.

        Then what is so goes with the answer to the ping that came with them: who answers and does
        not object agrees.
        """
        own = self.alive()
        claims = [each for each in messages if isinstance(each, Alive) and each.node == own.node]
        return not self.leaving and any(each != own for each in claims)

    def alive(self) -> Alive:
        """Return what this node says about itself."""
        me = self._me
        return Alive(me.incarnation, me.name, me.address, me.meta, me.versions)
