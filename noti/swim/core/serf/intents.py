"""The part of Serf's own layer by which Serf agents show our nodes as they are.

Enters: payloads of user messages and states, from anywhere. Leaves: broadcasts, and who left.
Never: use of Serf's events and queries, which are only passed on to other agents.

Serf tells "left" from "failed" by an intent, which goes out before the node's `Dead` message.
Intents are ordered by a Lamport clock. Payloads are a type byte and a map, in the dialect of
`packets.py`.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from enum import IntEnum

import msgpack

from noti.errors import MessageInvalid
from noti.swim.core.encoding import MessageFields, unpack

_TIME_MAX = 2**62
"""Lamport times are 64 bits; this leaves room above."""

_AHEAD_MAX = 2**24
"""A Lamport time so far above our clock is invalid: no cluster counts up to it, as each intent adds
one; accepted, a few of them would exhaust the clock, and no node could refute any more."""

_PAYLOAD_BYTES_MAX = 1300
"""A longer message fits into no packet of ours, and would never be passed on. Agents
send events up to 512 bytes and queries up to 1024."""

_NAMES_MAX = 1024
"""Intents remembered about nodes that are no members (yet); attackers can invent more."""

_SEEN_MAX = 2048
"""Events and queries remembered to pass each on once; Serf's own rings hold 512 each."""

_STATE_ITEMS_MAX = 4096
"""Members in a state's maps and lists; see `NODES_MAX` in `streams.py`."""

_QUERY_NO_BROADCAST = 2
"""Flag of a query that is not to be passed on."""


class _Kind(IntEnum):
    LEAVE = 0
    JOIN = 1
    PUSH_PULL = 2
    EVENT = 3
    QUERY = 4


@dataclass(frozen=True, slots=True)
class Broadcast:
    """A message for all members; a later broadcast with the same key replaces this one."""

    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class LeaveIntent:
    """A member announced, or its operator did, that it leaves."""

    name: str


class Serf:
    """One node's Lamport clock and intents."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._clock = 1
        self._status_times: dict[str, int] = {}
        """Time of the newest intent about each member, and about others."""
        self._others: OrderedDict[str, None] = OrderedDict()
        """Who of these is no member, the longest known first."""
        self._members = {name}
        self._left: set[str] = set()
        """Whose newest intent was to leave."""
        self._seen: OrderedDict[bytes, None] = OrderedDict()

    @property
    def intent_key(self) -> str:
        """Key of the broadcasts of our own intents."""
        return _key(self._name)

    def join_intent(self) -> Broadcast:
        """Return our announcement after joining, or the refutation of an intent in our name."""
        return self._own_intent(_Kind.JOIN)

    def leave_intent(self) -> Broadcast:
        """Return our announcement that we leave."""
        return self._own_intent(_Kind.LEAVE)

    def receive(self, payload: bytes, *, leaving: bool) -> list[Broadcast | LeaveIntent]:
        """Take a user message, `leaving` if we are; raises `MessageInvalid`."""
        if not payload:
            raise MessageInvalid("empty Serf message")
        if len(payload) > _PAYLOAD_BYTES_MAX:
            raise MessageInvalid(f"a Serf message of {len(payload)} bytes fits into no packet")
        match payload[0]:
            case _Kind.LEAVE | _Kind.JOIN as kind:
                fields = MessageFields(unpack(payload[1:]))
                node, time = fields.name("Node"), self._time(fields, "LTime")
                self._witness(time)
                if not self._is_news(node, time):
                    return []
                if self._refutes(kind, node, leaving=leaving):
                    return [self.join_intent()]
                effect = self._note(kind, node, time)
                return [Broadcast(_key(node), payload), *effect]
            case _Kind.EVENT:
                return self._pass_on(payload)
            case _Kind.QUERY:
                flags = MessageFields(unpack(payload[1:])).number("Flags")
                return [] if flags & _QUERY_NO_BROADCAST else self._pass_on(payload)
            case _:
                return []

    def merge(self, state: bytes, *, leaving: bool) -> list[Broadcast | LeaveIntent]:
        """Take the Serf part of a peer's state, which may be empty; raises `MessageInvalid`."""
        if not state:
            return []
        if state[0] != _Kind.PUSH_PULL:
            raise MessageInvalid("a Serf state of another type")
        fields = unpack(state[1:], _STATE_ITEMS_MAX)
        self._witness(max(0, self._time(MessageFields(fields), "LTime") - 1))
        times = fields.get(b"StatusLTimes") or {}
        left = fields.get(b"LeftMembers") or []
        if not isinstance(times, dict) or not isinstance(left, list):
            raise MessageInvalid("a Serf state whose members are no map or list")
        left_names = {name for name in left if isinstance(name, bytes)}
        effects: list[Broadcast | LeaveIntent] = []
        for raw_name in sorted(name for name in times if isinstance(name, bytes)):
            node = _name_of(raw_name)
            time = self._time(MessageFields(times), node)
            kind = _Kind.LEAVE if raw_name in left_names else _Kind.JOIN
            time += kind is _Kind.LEAVE
            if not self._is_news(node, time):
                continue
            self._witness(time)
            if self._refutes(kind, node, leaving=leaving):
                effects.append(self.join_intent())
            else:
                effects += self._note(kind, node, time)
        return effects

    def state(self) -> bytes:
        """Return our part of a full state."""
        fields = {
            "EventLTime": 1,
            "Events": None,
            "LTime": self._clock,
            "LeftMembers": sorted(self._left),
            "QueryLTime": 1,
            "StatusLTimes": dict(sorted(self._status_times.items())),
        }
        body: bytes = msgpack.packb(fields, use_bin_type=False)
        return bytes([_Kind.PUSH_PULL]) + body

    def is_leaving(self, name: str) -> bool:
        """Whether this member's newest intent was to leave."""
        return name in self._left

    def on_joined(self, name: str) -> None:
        """Note that a member is there (again): what it intended before no longer counts."""
        self._left.discard(name)
        self._members.add(name)
        self._others.pop(name, None)

    def on_forgotten(self, name: str) -> None:
        """Drop what is known about a member."""
        self._members.discard(name)
        self._left.discard(name)
        self._status_times.pop(name, None)

    def _own_intent(self, kind: _Kind) -> Broadcast:
        time = self._clock
        self._clock += 1
        self._note(kind, self._name, time)
        fields: dict[str, object] = {"LTime": time, "Node": self._name}
        if kind is _Kind.LEAVE:
            fields["Prune"] = False
        body: bytes = msgpack.packb(fields, use_bin_type=False)
        return Broadcast(_key(self._name), bytes([kind]) + body)

    def _is_news(self, node: str, time: int) -> bool:
        return time > self._status_times.get(node, 0)

    def _refutes(self, kind: int, node: str, *, leaving: bool) -> bool:
        """Whether it is an intent in our name to leave, and we do not."""
        return kind == _Kind.LEAVE and node == self._name and not leaving

    def _note(self, kind: int, node: str, time: int) -> list[LeaveIntent]:
        # The time is kept whatever comes of the intent: otherwise two intents about one node
        # are passed on endlessly (hashicorp/serf PR 606).
        self._status_times[node] = time
        if node not in self._members:
            self._others[node] = None
            if len(self._others) > _NAMES_MAX:
                forgotten, _ = self._others.popitem(last=False)
                self._status_times.pop(forgotten)
                self._left.discard(forgotten)
        if kind == _Kind.JOIN:
            self._left.discard(node)
            return []
        self._left.add(node)
        return [LeaveIntent(node)]

    def _time(self, fields: MessageFields, key: str) -> int:
        time = fields.number(key, _TIME_MAX)
        if time > self._clock + _AHEAD_MAX:
            raise MessageInvalid(
                f"Lamport time {time} is far ahead of this cluster's {self._clock}"
            )
        return time

    def _witness(self, time: int) -> None:
        self._clock = max(self._clock, time + 1)

    def _pass_on(self, payload: bytes) -> list[Broadcast | LeaveIntent]:
        digest = hashlib.blake2b(payload, digest_size=16).digest()
        if digest in self._seen:
            return []
        self._seen[digest] = None
        if len(self._seen) > _SEEN_MAX:
            self._seen.popitem(last=False)
        return [Broadcast(digest.hex(), payload)]


def _key(node: str) -> str:
    return f"intent {node}"


def _name_of(raw: bytes) -> str:
    return MessageFields({b"Name": raw}).name("Name")
