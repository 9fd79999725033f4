"""A stranger that knows all about a gossip cluster and says what is not true.

Enters: a cluster, a seed. Leaves: packets and streams that nobody who belongs to it would send.
Never: what only the network between nodes could do: it neither reads nor holds back theirs.
"""

import random

import trio

from noti.errors import PeerUnavailable
from noti.swim.core.messages import Address
from noti.swim.core.packets import encode, encode_packet
from noti.swim.core.streams import encode_stream
from tests.simulation.forgeries import STRANGER, Forgeries, real_ones
from tests.simulation.gossip_cluster import PORT, GossipCluster


class Forger:
    """One stranger."""

    def __init__(self, cluster: GossipCluster, seed: int) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"forger {seed}")
        self._network = cluster.net.host(STRANGER)
        self._forgeries = Forgeries(self._rng, [node.name for node in cluster.nodes])

    async def run(self, packets: int, pause_s: float) -> None:
        """Send so many packets, and a state now and then, to nodes at random."""
        for _ in range(packets):
            node = self._rng.choice(self._cluster.nodes)
            members = real_ones(node.gossip.members())
            if members:
                victim = self._rng.choice(members)
                messages = self._forgeries.messages(victim, 2)
                source = self._rng.choice([victim.address, (STRANGER, PORT)])
                payload = encode_packet([encode(message) for message in messages])
                self._cluster.net.forge(payload, source, (node.ip, PORT))
                if self._rng.random() < 0.02:
                    await self._exchange((node.ip, PORT))
            await trio.sleep(self._rng.uniform(0, 2 * pause_s))

    async def _exchange(self, to: Address) -> None:
        """Send a forged state, and read the answer."""
        state = self._forgeries.state(real_ones(self._cluster.nodes[0].gossip.members()))
        with trio.move_on_after(1.0):
            try:
                async with await self._network.open_stream(to) as stream:
                    await stream.send_all(encode_stream(state))
                    async for _ in stream:
                        pass
            except (PeerUnavailable, trio.BrokenResourceError):
                return
