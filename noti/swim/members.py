"""Remembers every member: where it is, how it is, since when.

Enters: records made by the core. Leaves: answers about them, in the same order for the same input.
Never: deciding about anybody's state.

Iteration is by name, so that a trace depends on nothing but its inputs.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from noti.errors import MessageInvalid
from noti.swim.messages import Address, Member, MemberState, RemoteNode
from noti.swim.packets import decode_tags
from noti.swim.suspicion import Suspicion


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

    def __iter__(self) -> Iterator[Record]:
        """All records, by name."""
        return iter(sorted(self._records.values(), key=lambda record: record.name))

    def __contains__(self, name: str) -> bool:
        return name in self._records

    def get(self, name: str) -> Record | None:
        """Return a member's record, if it is known."""
        return self._records.get(name)

    def add(self, record: Record) -> None:
        """Remember a new member."""
        assert record.name not in self._records
        self._records[record.name] = record

    def forget(self, name: str) -> None:
        """Drop a member that is gone."""
        assert not self._records[name].present
        del self._records[name]

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
