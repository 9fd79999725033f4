"""What goes wrong between the nodes of a simulated cluster.

Cables are cut, slow or lossy; no process is ended.
"""

from tests.simulation.machine import SimulatedNode
from tests.simulation.scene import Faults


class NetworkFaults(Faults):
    """See `Faults`."""

    async def isolate(self) -> str:
        machine = self._scene.any()
        for other in self._cluster.nodes:
            if other is not machine:
                self._cut(machine, other)
        return machine.name

    async def cut_pair(self) -> str | None:
        pair = self._scene.pair()
        if pair is None:
            return None
        self._cut(*pair)
        return f"{pair[0].name} {pair[1].name}"

    def _cut(self, one: SimulatedNode, other: SimulatedNode) -> None:
        self._cluster.net.block(one.host, other.host)
        fault = self._rng.choice(["stall", "drop"])
        self._cluster.hub.partition(one.rpc, other.rpc, fault)  # type: ignore[arg-type]

    async def cut_one_way(self) -> str | None:
        pair = self._scene.pair()
        if pair is None:
            return None
        sender, to = pair
        self._cluster.net.block_one_way(sender.host, to.host)
        fault = self._rng.choice(["stall", "drop"])
        self._cluster.hub.partition(sender.rpc, to.rpc, fault, one_way=True)  # type: ignore[arg-type]
        return f"{sender.name} > {to.name}"

    async def mend(self) -> None:
        self._cluster.mend()

    async def lose_packets(self) -> str:
        net = self._cluster.net
        net.loss, net.duplicates = self._rng.choice([(0.05, 0.0), (0.3, 0.1), (0.0, 0.5)])
        return f"{net.loss:.0%} lost, {net.duplicates:.0%} twice"

    async def delay_messages(self) -> str:
        hub, usual = self._cluster.hub, self._swarm.rpc_latency_s
        hub.latency_s = self._rng.choice([usual, (0.02, 0.2), (0.1, 0.6)])
        return str(hub.latency_s)

    async def reset_stream(self) -> str | None:
        pair = self._scene.pair()
        if pair is None:
            return None
        self._cluster.hub.reset(pair[0].rpc, pair[1].rpc)
        return f"{pair[0].name} {pair[1].name}"
