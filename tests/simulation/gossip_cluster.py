"""Gossip nodes on an in-memory network, each to be started, stopped, cut off and asked.

Everything follows from a seed; there is no real time.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import trio

from noti.address import Address
from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from tests.simulation.memory_gossip import MemoryNet, VirtualClock

PORT = 7946


MEMBERS_MAX = 64
"""What a node remembers here: enough for all, and quick to be overrun."""


class GossipNode:
    """One node, which may run several times."""

    def __init__(self, net: MemoryNet, name: str, ip: str, seeds: Sequence[Address], seed: int):
        self.name, self.ip = name, ip
        self._network = net.host(ip, name)
        self._seeds = seeds
        self._rng = random.Random(f"{seed} {name}")
        self._scope = trio.CancelScope()
        self.gossip = self._make()

    def _make(self) -> Gossip:
        gossip = Gossip(
            name=self.name,
            bind=(self.ip, PORT),
            advertise=None,
            seeds=self._seeds,
            timing=replace(SwimConfig.local(), members_max=MEMBERS_MAX),
            network=self._network,
            clock=VirtualClock(),
            rng=self._rng,
        )
        gossip.set_tags({"id": f"id of {self.name}", "role": "noti"})
        return gossip

    async def start(self, nursery: trio.Nursery) -> None:
        self.gossip = self._make()
        self._scope = trio.CancelScope()
        await nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[Address]) -> None:
        with self._scope:
            await self.gossip.run(task_status=task_status)

    def kill(self) -> None:
        self._scope.cancel()

    def view(self) -> dict[str, str]:
        """What this node thinks of everyone."""
        return {member.name: member.state.name.lower() for member in self.gossip.members()}


class GossipCluster:
    """Some nodes; all but the first have the first as their seed."""

    def __init__(self, size: int, seed: int, *, loss: float = 0.0) -> None:
        self.net = MemoryNet(random.Random(seed), loss=loss)
        self.nodes = [
            GossipNode(
                self.net,
                f"node{number}",
                f"10.0.0.{number}",
                [("node1", PORT)] if number > 1 else [],
                seed,
            )
            for number in range(1, size + 1)
        ]

    async def start(self, nursery: trio.Nursery) -> None:
        for node in self.nodes:
            await node.start(nursery)

    async def until(
        self, described: Callable[[GossipNode], bool], *, within_s: float, but: str = ""
    ) -> None:
        """Wait until every node (except the one named) is as described."""
        nodes = [node for node in self.nodes if node.name != but]
        with trio.move_on_after(within_s):
            while not all(described(node) for node in nodes):  # noqa: ASYNC110 - of many nodes
                await trio.sleep(0.05)
            return
        views = {node.name: node.view() for node in nodes}
        raise AssertionError(f"not so after {within_s} s: {views}")

    async def until_all_alive(self, *, within_s: float) -> None:
        everyone = {node.name: "alive" for node in self.nodes}
        await self.until(lambda node: node.view() == everyone, within_s=within_s)
