"""What a stranger could say about the members of a gossip cluster, none of it true.

Enters: a generator, a victim as somebody sees it. Leaves: messages and states.
Never: sending; what only the network between nodes could do.
"""

import random
from collections.abc import Callable, Collection, Iterable, Sequence

import msgpack

from noti.swim.core.messages import (
    INCARNATION_MAX,
    VERSIONS,
    Address,
    Alive,
    Dead,
    Member,
    MemberState,
    Message,
    PushPull,
    RemoteNode,
    Suspect,
    User,
)
from noti.swim.core.packets import encode_tags

STRANGER = "10.9.9.9"
INVENTED_MAX = 300
"""Members in a forged state."""


class Forgeries:
    """One stranger's imagination."""

    def __init__(self, rng: random.Random, names: Sequence[str]) -> None:
        """`names` are those of the real members."""
        self._rng = rng
        self._names = names
        self._kinds: list[Callable[[Member], Message]] = [
            self._suspect,
            self._dead,
            self._gone_by_itself,
            self._elsewhere,
            self._changed,
            self._invented,
            self._intent,
            self._event,
        ]

    def messages(self, victim: Member, count: int) -> list[Message]:
        """Return some messages, most of them about this member."""
        return [kind(victim) for kind in self._rng.choices(self._kinds, k=count)]

    def state(self, victims: Iterable[Member]) -> PushPull:
        """Return a full state with members that were never there."""
        states = list(MemberState)
        nodes = [
            RemoteNode(f"x{number}", (STRANGER, 9), b"", 1, self._rng.choice(states), VERSIONS)
            for number in range(self._rng.randrange(1, INVENTED_MAX))
        ]
        nodes += [
            RemoteNode(
                victim.name,
                victim.address,
                b"",
                self._incarnation(victim),
                self._rng.choice(states),
                VERSIONS,
            )
            for victim in victims
        ]
        return PushPull(True, tuple(nodes), b"")

    def _incarnation(self, victim: Member) -> int:
        highest = victim.incarnation + self._rng.choice([2**28, 2**28 + 2**16])
        return min(
            INCARNATION_MAX,
            self._rng.choice(
                [
                    victim.incarnation,
                    victim.incarnation + self._rng.randrange(1, 1000),
                    highest - self._rng.randrange(10),
                    INCARNATION_MAX - self._rng.randrange(3),
                ]
            ),
        )

    def _accuser(self) -> str:
        return self._rng.choice([*self._names, "nobody"])

    def _suspect(self, victim: Member) -> Message:
        return Suspect(self._incarnation(victim), victim.name, self._accuser())

    def _dead(self, victim: Member) -> Message:
        return Dead(self._incarnation(victim), victim.name, self._accuser())

    def _gone_by_itself(self, victim: Member) -> Message:
        return Dead(self._incarnation(victim), victim.name, victim.name)

    def _elsewhere(self, victim: Member) -> Message:
        address = (STRANGER, self._rng.randrange(1, 65536))
        return self._alive(victim, address, encode_tags(victim.tags))

    def _changed(self, victim: Member) -> Message:
        tags = dict(victim.tags) | {"rpc": f"{STRANGER}:1"}
        return self._alive(victim, victim.address, encode_tags(tags))

    def _alive(self, victim: Member, address: Address, meta: bytes) -> Message:
        return Alive(self._incarnation(victim), victim.name, address, meta, VERSIONS)

    def _invented(self, victim: Member) -> Message:
        name = f"x{self._rng.randrange(10**6)}"
        versions = self._rng.choice([VERSIONS, bytes([9, 9, 9, 9, 9, 9])])
        return Alive(self._incarnation(victim), name, (STRANGER, 9), b"", versions)

    def _intent(self, victim: Member) -> Message:
        time = self._rng.choice([self._rng.randrange(100), 2**23, 2**40, 2**62, 2**64 - 1])
        name = self._rng.choice([victim.name, f"x{self._rng.randrange(10**6)}"])
        body: bytes = msgpack.packb({"LTime": time, "Node": name}, use_bin_type=False)
        return User(bytes([self._rng.randrange(2)]) + body)

    def _event(self, _: Member) -> Message:
        fields = {"Name": "x", "LTime": 1, "Payload": self._rng.randbytes(2000)}
        body: bytes = msgpack.packb(fields, use_bin_type=False)
        return User(bytes([3]) + body[: self._rng.choice([100, len(body)])])


def real_ones(members: Collection[Member]) -> list[Member]:
    """Return those whom no forger has invented."""
    return [member for member in members if not member.name.startswith("x")]
