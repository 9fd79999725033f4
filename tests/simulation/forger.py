"""A stranger that knows all about a gossip cluster and says what is not true.

Enters: a cluster, a seed. Leaves: packets and streams that nobody who belongs to it would send.
Never: what only the network between nodes could do: it neither reads nor holds back theirs.
"""

import random
from collections.abc import Callable

import msgpack
import trio

from noti.errors import PeerUnavailable
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
from noti.swim.core.packets import encode, encode_packet, encode_tags
from noti.swim.core.streams import encode_stream
from tests.simulation.gossip_cluster import PORT, GossipCluster

STRANGER = "10.9.9.9"
INVENTED_MAX = 300
"""Members in a forged state."""


class Forger:
    """One stranger."""

    def __init__(self, cluster: GossipCluster, seed: int) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"forger {seed}")
        self._network = cluster.net.host(STRANGER)
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

    async def run(self, packets: int, pause_s: float) -> None:
        """Send so many packets, and a state now and then, to nodes at random."""
        for _ in range(packets):
            node = self._rng.choice(self._cluster.nodes)
            members = [each for each in node.gossip.members() if not each.name.startswith("x")]
            if members:
                victim = self._rng.choice(members)
                messages = [kind(victim) for kind in self._rng.choices(self._kinds, k=2)]
                source = self._rng.choice([victim.address, (STRANGER, PORT)])
                payload = encode_packet([encode(message) for message in messages])
                self._cluster.net.forge(payload, source, (node.ip, PORT))
                if self._rng.random() < 0.02:
                    await self._exchange((node.ip, PORT))
            await trio.sleep(self._rng.uniform(0, 2 * pause_s))

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
        return self._rng.choice([node.name for node in self._cluster.nodes] + ["nobody"])

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

    async def _exchange(self, to: Address) -> None:
        """Send a full state with members that were never there, and read the answer."""
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
            for victim in self._cluster.nodes[0].gossip.members()
            if not victim.name.startswith("x")
        ]
        with trio.move_on_after(1.0):
            try:
                async with await self._network.open_stream(to) as stream:
                    await stream.send_all(encode_stream(PushPull(True, tuple(nodes), b"")))
                    async for _ in stream:
                        pass
            except (PeerUnavailable, trio.BrokenResourceError):
                return
