"""Remembers every member: its address, its state, since when.

Enters: records made by the core. Leaves: answers about them, in the same order for the same input.
Never: a decision about a member's state.

Iteration is by name, so that a trace depends on nothing but its inputs. What is asked for each
packet, `count` and `knows`, looks nothing up but what `set_state` and `move` keep.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from noti.errors import MessageInvalid
from noti.swim.core.coordinates import Coordinate
from noti.swim.core.messages import Address, Alive, Dead, Member, MemberState, RemoteNode
from noti.swim.core.packets import decode_tags
from noti.swim.core.suspicion import Suspicion

ID_TAG = "id"
"""The tag with the random identity of a node's data directory; real Serf agents have none."""

_METAS_CACHED_MAX = 1024
"""All gossip about a member repeats its tags, and they hardly ever change."""


@dataclass(slots=True)
class PendingClaim:
    """A claim that a member moved or left, while it is pinged at the address where it was."""

    claim: Alive | Dead
    verified_since: float
    verify_again_at: float
    ends_at: float
    """Then it is accepted, if the member has not answered since it was pinged."""
    gives_up_at: float
    """Then a member that still answers has not left, and the claim is dropped."""
    confirmed: bool = False
    """Whether it answered at the address where it is claimed to have moved."""


@dataclass(slots=True)
class Record:
    """All that is known about one member."""

    name: str
    address: Address
    meta: bytes
    tags: dict[str, str]
    versions: bytes
    incarnation: int
    state: MemberState
    changed_at: float
    """When it came into this state."""
    joined_at: float
    """When it became a member."""
    suspicion: Suspicion | None = None
    """Runs while the state is suspect."""
    pending_claim: PendingClaim | None = None
    acked_at: float = -math.inf
    """When it last answered a ping of ours."""
    refuted_unheard: int = 0
    """Suspicions refuted in its name since it last answered."""
    coordinate: Coordinate | None = None
    """Where it says that it is, in the space of round trips."""
    round_trips_s: list[float] = field(default_factory=list)
    """How long its last answers took."""

    @classmethod
    def of(cls, alive: Alive, tags: dict[str, str], now: float) -> "Record":
        """Return a new member, which has just answered, as a claim describes it."""
        place = (alive.node, alive.address, alive.meta, tags, alive.versions, alive.incarnation)
        return cls(*place, MemberState.ALIVE, now, now, acked_at=now)

    @property
    def present(self) -> bool:
        """Whether it counts as there: alive or suspect."""
        return self.state in (MemberState.ALIVE, MemberState.SUSPECT)

    def member(self, *, leaving: bool = False) -> Member:
        """Return what the rest of noti may see; `leaving` says Serf's layer."""
        seen = (self.name, self.address, dict(self.tags), self.state, self.incarnation)
        return Member(*seen, self.versions, leaving)

    def describes(self, alive: Alive) -> bool:
        """Whether a claim is about this address, with these tags and versions."""
        return (self.address, self.meta, self.versions) == (
            alive.address,
            alive.meta,
            alive.versions,
        )

    def remote_node(self) -> RemoteNode:
        """Return what peers receive in an exchange of states."""
        return RemoteNode(
            self.name, self.address, self.meta, self.incarnation, self.state, self.versions
        )


class Members:
    """The records, by name."""

    def __init__(self, rng: random.Random, gossip_to_dead_s: float) -> None:
        self._rng = rng
        self._gossip_to_dead_s = gossip_to_dead_s
        self._records: dict[str, Record] = {}
        self._sorted = True
        self._absent: set[str] = set()
        """Names of members that are dead or left."""
        self._newly_absent: dict[str, float] = {}
        """Of these, the ones that `count` still counts, with since when, oldest first."""
        self._by_address: dict[Address, set[str]] = {}

    def __iter__(self) -> Iterator[Record]:
        """All records, by name, as they are now."""
        if not self._sorted:
            self._records = dict(sorted(self._records.items()))
            self._sorted = True
        return iter(tuple(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def __getitem__(self, name: str) -> Record:
        return self._records[name]

    def get(self, name: str) -> Record | None:
        """Return a member's record, if it is known."""
        return self._records.get(name)

    def add(self, record: Record) -> None:
        """Remember a new member."""
        assert record.name not in self._records
        assert record.present
        self._records[record.name] = record
        self._by_address.setdefault(record.address, set()).add(record.name)
        self._sorted = False

    def forget(self, name: str) -> None:
        """Forget a member."""
        record = self._records.pop(name)
        self._leave_address(record)
        self._absent.discard(name)
        self._newly_absent.pop(name, None)

    def set_state(self, record: Record, state: MemberState, now: float) -> None:
        """Change the state of a member."""
        record.state, record.changed_at = state, now
        self._absent.discard(record.name)
        self._newly_absent.pop(record.name, None)
        if not record.present:
            self._absent.add(record.name)
            self._newly_absent[record.name] = now

    def move(self, record: Record, address: Address) -> None:
        """Change the address of a member."""
        self._leave_address(record)
        record.address = address
        self._by_address.setdefault(address, set()).add(record.name)

    def _leave_address(self, record: Record) -> None:
        names = self._by_address[record.address]
        names.remove(record.name)
        if not names:
            del self._by_address[record.address]

    def note_ack(self, name: str, now: float) -> None:
        """Note that a member, if it is one, answered a ping of ours."""
        record = self._records.get(name)
        if record is not None:
            record.acked_at = now
            record.refuted_unheard = 0

    def at(self, address: Address) -> Record | None:
        """Return a present member with this address."""
        matches = [self._records[name] for name in sorted(self._by_address.get(address, ()))]
        return next((each for each in matches if each.present), None)

    def knows(self, address: Address) -> bool:
        """Whether a member, present or not, has this address."""
        return address in self._by_address

    def count(self, now: float) -> int:
        """Return the size of the cluster for the formulas: all but those that are long absent."""
        while self._newly_absent:
            name, since = next(iter(self._newly_absent.items()))
            if now - since <= self._gossip_to_dead_s:
                break
            del self._newly_absent[name]
        return len(self._records) - len(self._absent) + len(self._newly_absent)

    def pick(
        self, count: int, *, without: Iterable[str], among: Iterable[Record] | None = None
    ) -> list[Record]:
        """Return up to `count` different members at random, from `among` or else the alive ones."""
        excluded = frozenset(without)
        if among is None:
            among = (record for record in self if record.state is MemberState.ALIVE)
        candidates = [record for record in among if record.name not in excluded]
        return self._rng.sample(candidates, min(count, len(candidates)))

    def gossip_targets(self, now: float) -> list[Record]:
        """Return those whom gossip goes to: all present, and the recently dead, who may refute."""
        return [
            record
            for record in self
            if record.present or (record.state is MemberState.DEAD and self._recent(record, now))
        ]

    def versions_violation(self, remote: Iterable[RemoteNode]) -> str | None:
        """Return in what a remote state violates the protocol, or None if it may be merged.

        Every node, dead ones included, must speak versions that every live node understands.
        """
        remote = list(remote)
        live = [node.versions for node in remote if node.state is MemberState.ALIVE]
        live += [record.versions for record in self if record.state is MemberState.ALIVE]
        everyone = [(node.name, node.versions) for node in remote]
        everyone += [(record.name, record.versions) for record in self]
        for layer, (low, high, current) in (("protocol", (0, 1, 2)), ("delegate", (3, 4, 5))):
            floor = max((versions[low] for versions in live), default=0)
            ceiling = min((versions[high] for versions in live), default=255)
            for name, versions in everyone:
                if not floor <= versions[current] <= ceiling:
                    return (
                        f"{name} speaks {layer} version {versions[current]}, "
                        f"not one from {floor} to {ceiling}"
                    )
        return None

    def _recent(self, record: Record, now: float) -> bool:
        return now - record.changed_at <= self._gossip_to_dead_s


@lru_cache(_METAS_CACHED_MAX)
def tags_of(meta: bytes) -> Mapping[str, str]:
    """Return a member's tags; none when they do not decode, as the member itself is valid."""
    try:
        return decode_tags(meta)
    except MessageInvalid:
        return {}
