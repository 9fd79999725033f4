"""Who announced to join and to leave, by which Serf agents tell "left" from "failed".

Enters: intents, the lists of a state, members that come and go, now.
Leaves: broadcasts, and who leaves.
Never: a leave believed of this node while it stays; more names than agreed.

An intent goes out before the node's own `Dead` message. Intents are ordered by a Lamport clock, and
only the newest about each member counts.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from noti.swim.core.serf.lamport import LamportClock
from noti.swim.core.serf.messages import Intent, encode_serf

_NAMES_MAX = 1024
"""Intents remembered about nodes that are no members (yet); attackers can invent more."""

_BUFFERED_S = 300.0
"""So long an intent about a node that is no member is remembered (Serf's RecentIntentTimeout)."""


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A message for all members; a later broadcast with the same key replaces this one."""

    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class LeaveIntent:
    """A member announced, or an operator did, that it leaves."""

    name: str
    prune: bool = False
    """It is to be forgotten, once it is gone."""


class Intents:
    """One node's view of who means to be there."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.clock = LamportClock()
        self._times: dict[str, int] = {name: 0}
        """Time of the newest intent about each member, and about others."""
        self._others: OrderedDict[str, float] = OrderedDict()
        """Who of these is no member, and since when it is known, the longest known first."""
        self._now = 0.0
        """When we last heard of any intent."""
        self._left: set[str] = set()
        """Whose newest intent was to leave."""

    @property
    def intent_key(self) -> str:
        """Key of the broadcasts of our own intents."""
        return _key(self._name)

    def join_intent(self) -> Broadcast:
        """Return our announcement after joining."""
        self._left.discard(self._name)
        return self._announce(Intent(False, self._name, self.clock.tick()))

    def leave_intent(self) -> Broadcast:
        """Return our announcement that we leave."""
        self._left.add(self._name)
        return self._announce(Intent(True, self._name, self.clock.tick()))

    def force_leave(self, node: str, now: float, *, prune: bool) -> list[Broadcast | LeaveIntent]:
        """Announce for a member that it leaves; it refutes that if it is alive, as we do."""
        if node == self._name:
            return [self._refutation()]
        self._drop_old(now)
        self._skip_one()
        intent = Intent(True, node, self.clock.tick(), prune)
        return [self._announce(intent), *self._note(intent)]

    def receive(
        self, intent: Intent, payload: bytes, now: float, *, leaving: bool
    ) -> list[Broadcast | LeaveIntent]:
        """Take an intent and the message that it came in, `leaving` if we are.

        Raises `MessageInvalid`.
        """
        self.clock.witness(intent.time)
        self._drop_old(now)
        known_time = self._times.get(intent.node, 0)
        # With the time of our own announcement, others may have heard it before that.
        if intent.time >= known_time and self._refutes(intent, leaving=leaving):
            return [self._refutation()]
        if intent.time <= known_time:
            return []
        return [Broadcast(_key(intent.node), payload), *self._note(intent)]

    def merge(
        self, times: Mapping[str, int], left: frozenset[str], now: float, *, leaving: bool
    ) -> list[Broadcast | LeaveIntent]:
        """Take the times of a peer's members, and who of them left; invalid ones are skipped."""
        self._drop_old(now)
        orders: list[Broadcast | LeaveIntent] = []
        for node, time in sorted(times.items()):
            # A state has no time of the intent to leave, which was newer than that to join. If we
            # know it, it is not counted up again: it would never end.
            leave = node in left
            intent = Intent(leave, node, time + (leave and node not in self._left))
            if intent.time <= self._times.get(node, 0) or self.clock.is_far_behind(intent.time):
                continue
            self.clock.witness(intent.time)
            if self._refutes(intent, leaving=leaving):
                orders.append(self._refutation())
            else:
                orders += self._note(intent)
        return orders

    def times(self) -> dict[str, int]:
        """Return the times of the newest intents about members, by name."""
        members = (each for each in self._times.items() if each[0] not in self._others)
        return dict(sorted(members))

    def left(self) -> list[str]:
        """Return the names of members whose newest intent was to leave."""
        return sorted(self._left - self._others.keys())

    def is_leaving(self, name: str) -> bool:
        """Whether this member's newest intent was to leave."""
        return name in self._left

    def on_joined(self, name: str) -> None:
        """Note that a member is there (again).

        Of one that was known, what it intended before no longer counts. An intent that arrived
        before its node was known does.
        """
        if name in self._others:
            del self._others[name]
        else:
            self._times.setdefault(name, 0)
            self._left.discard(name)

    def on_forgotten(self, name: str) -> None:
        """Drop what is known about a member, soon: first what is under way should have passed."""
        self._left.discard(name)
        if name in self._times:
            self._buffer(name)

    def _refutation(self) -> Broadcast:
        """Return the answer to an intent in our name to leave."""
        self._skip_one()
        return self.join_intent()

    def _skip_one(self) -> None:
        """Let our next intent be newer than the last one also for who has that from a state.

        States show a leave as one later than it was: see `merge`.
        """
        self.clock.tick()

    def _announce(self, intent: Intent) -> Broadcast:
        self._times[intent.node] = intent.time
        return Broadcast(_key(intent.node), encode_serf(intent))

    def _refutes(self, intent: Intent, *, leaving: bool) -> bool:
        """Whether it is an intent in our name to leave, and we do not."""
        return intent.leave and intent.node == self._name and not leaving

    def _note(self, intent: Intent) -> list[LeaveIntent]:
        # The time is kept whatever comes of the intent: otherwise two intents about one node
        # are passed on endlessly (hashicorp/serf PR 606).
        known = intent.node in self._times and intent.node not in self._others
        self._times[intent.node] = intent.time
        if not known:
            self._buffer(intent.node)
        if not intent.leave:
            self._left.discard(intent.node)
            return []
        self._left.add(intent.node)
        return [LeaveIntent(intent.node, intent.prune)]

    def _buffer(self, node: str) -> None:
        self._others.pop(node, None)
        self._others[node] = self._now
        if len(self._others) > _NAMES_MAX:
            self._drop_first()

    def _drop_old(self, now: float) -> None:
        self._now = now
        while self._others and next(iter(self._others.values())) + _BUFFERED_S < now:
            self._drop_first()

    def _drop_first(self) -> None:
        name, _ = self._others.popitem(last=False)
        del self._times[name]
        self._left.discard(name)


def _key(node: str) -> str:
    return f"intent {node}"
