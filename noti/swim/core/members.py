"""Remembers every member: where it is, how it is, since when.

Enters: records made by the core. Leaves: answers about them, in the same order for the same input.
Never: deciding about anybody's state.

Iteration is by name, so that a trace depends on nothing but its inputs.
"""

import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from noti.errors import MessageInvalid
from noti.swim.core.messages import Address, Alive, Dead, Member, MemberState, RemoteNode
from noti.swim.core.packets import decode_tags
from noti.swim.core.suspicion import Suspicion


@dataclass(slots=True)
class Rumour:
    """A member is said to have moved, or to have left by itself, and is asked where it was."""

    claim: Alive | Dead
    asked_at: float
    ask_again_at: float
    ends_at: float
    """Then it is believed, if the member has not answered since it was asked."""
    given_up_at: float
    """Then a member that still answers has not left, whatever is said."""


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
    suspicion: Suspicion | None = None
    """Runs while the state is suspect."""
    rumour: Rumour | None = None
    heard_at: float = -math.inf
    """When it last answered a ping of ours."""

    @property
    def present(self) -> bool:
        """Whether it counts as there: alive or suspect."""
        return self.state in (MemberState.ALIVE, MemberState.SUSPECT)

    def member(self) -> Member:
        """Return what the rest of noti may see."""
        return Member(self.name, self.address, dict(self.tags), self.state, self.incarnation)

    def remote_node(self) -> RemoteNode:
        """Return what peers learn in an exchange of states."""
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
        self._unheard: dict[str, float] = {}
        """Who never answered us, with the time at which we heard of it, oldest first."""

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

    def get(self, name: str) -> Record | None:
        """Return a member's record, if it is known."""
        return self._records.get(name)

    def add(self, record: Record) -> None:
        """Remember a new member."""
        assert record.name not in self._records
        self._records[record.name] = record
        self._sorted = False
        if record.heard_at == -math.inf:
            self._unheard[record.name] = record.changed_at

    def forget(self, name: str) -> None:
        """Drop a member."""
        del self._records[name]
        self._unheard.pop(name, None)

    def note_answer(self, name: str, now: float) -> None:
        """Note that a member, if it is one, answered a ping of ours."""
        record = self._records.get(name)
        if record is not None:
            record.heard_at = now
            self._unheard.pop(name, None)

    @property
    def unheard(self) -> Mapping[str, float]:
        """Whom we know from hearsay alone, and since when, the oldest first."""
        return self._unheard

    def longest_gone(self) -> Record | None:
        """Return who can best be forgotten, if anybody is gone."""
        gone = (record for record in self if not record.present)
        return min(gone, key=lambda record: record.changed_at, default=None)

    def at(self, address: Address) -> Record | None:
        """Return a present member with this address."""
        matches = (each for each in self._records.values() if each.address == address)
        return next((each for each in matches if each.present), None)

    def knows(self, address: Address) -> bool:
        """Whether a member, present or not, has this address."""
        return any(record.address == address for record in self._records.values())

    def count(self, now: float) -> int:
        """Return the size of the cluster for the formulas: all but those long gone."""
        return sum(record.present or self._recent(record, now) for record in self)

    def pick(
        self, count: int, *, without: Iterable[str], among: Iterable[Record] | None = None
    ) -> list[Record]:
        """Return up to `count` different members at random, from `among` or else the alive ones."""
        excluded = frozenset(without)
        if among is None:
            among = (record for record in self if record.state is MemberState.ALIVE)
        candidates = [record for record in among if record.name not in excluded]
        return self._rng.sample(candidates, min(count, len(candidates)))

    def listeners(self, now: float) -> list[Record]:
        """Return whom gossip goes to: all present, and those who died lately, who may object."""
        return [
            record
            for record in self
            if record.present or (record.state is MemberState.DEAD and self._recent(record, now))
        ]

    def versions_refused(self, remote: Iterable[RemoteNode]) -> str | None:
        """Return why a remote state may not be merged, or None.

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


def tags_of(meta: bytes) -> dict[str, str]:
    """Return a member's tags; none when they do not decode, for the member itself is sound."""
    try:
        return decode_tags(meta)
    except MessageInvalid:
        return {}
