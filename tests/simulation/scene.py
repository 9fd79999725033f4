"""What all faults of the node layer choose from, and what they must not take away.

Enters: the cluster, the swarm, the seed's generator. Leaves: machines to hurt.
Never: hurts; lets a disk be lost that a majority needs: disks are lost one at a time, and only
while everybody else holds everything.
"""

import random
from contextlib import suppress

import trio

from tests.simulation.faults import NodeSwarm
from tests.simulation.machine import SimulatedNode
from tests.simulation.world import SimulatedCluster

DISK_HANGS_S_MAX = 60.0
STARTED_WITHIN_S = 30.0
"""And once the disk answers."""
REST_WITHIN_S = 3.0


class Scene:
    """One run, as the faults see it."""

    def __init__(self, cluster: SimulatedCluster, swarm: NodeSwarm, rng: random.Random) -> None:
        self.cluster = cluster
        self.swarm = swarm
        self.rng = rng
        self.lost: set[str] = set()
        """Ids of nodes whose disk was lost; nobody with these returns."""

    def any(self) -> SimulatedNode:
        """One machine; the leader more often than others."""
        leader = self.cluster.leader()
        if leader is not None and self.rng.random() < 0.3:
            return leader
        return self.rng.choice(self.cluster.nodes)

    def running(self) -> SimulatedNode | None:
        machine = self.any()
        return machine if machine.up and not machine.crashed and not machine.clock.frozen else None

    def pair(self) -> tuple[SimulatedNode, SimulatedNode] | None:
        if len(self.cluster.nodes) < 2:
            return None
        one, other = self.rng.sample(self.cluster.nodes, 2)
        return one, other

    def may_lose_a_disk(self) -> bool:
        """Whether all are up, connected and equal, and no other loss is still to be made good.

        The leader must know that they are: what it has not heard of may be forgotten.
        """
        cluster, leader = self.cluster, self.cluster.leader()
        if leader is None or not cluster.connected() or not self.may_be_strange():
            return False
        states = {
            (status.commit_index, status.last_index, status.applied_index, status.configuration)
            for status in (machine.consensus() for machine in cluster.nodes if machine.up)
        }
        leading = leader.consensus()
        configuration = leading.configuration
        return (
            all(machine.up and not machine.clock.frozen for machine in cluster.nodes)
            and len(states) == 1
            and all(commit == last == applied for commit, last, applied, _ in states)
            and all(match == leading.last_index for _, match in leading.followers)
            and not configuration.outgoing
            and len(configuration.voters) >= 3
            and not self.lost.intersection(configuration.voters)
            and all(machine.disk_is_idle() for machine in cluster.nodes)
        )

    async def may_soon_lose_a_disk(self) -> bool:
        """Give a cluster that is whole the time to come to rest."""
        cluster = self.cluster
        if cluster.connected() and all(m.up and not m.clock.frozen for m in cluster.nodes):
            with suppress(trio.TooSlowError):
                await cluster.wait_for(self.may_lose_a_disk, REST_WITHIN_S)
        return self.may_lose_a_disk()

    def may_be_strange(self) -> bool:
        """Whether there can be one more node without a cluster, and they could still not found one
        of their own.
        """
        cluster = self.cluster
        strangers = sum(machine.is_stranger() for machine in cluster.nodes)
        return cluster.founders == 1 or strangers + 1 < cluster.founders


async def start_again(machine: SimulatedNode) -> None:
    """Start a machine; one whose disk is broken may end at once, one whose disk hangs waits."""
    if machine.down:
        with trio.fail_after(STARTED_WITHIN_S + (DISK_HANGS_S_MAX if machine.disk.hangs else 0)):
            await machine.start()


class Faults:
    """Some faults of a scene. Each public method is one; None means that it could not be done."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._cluster, self._swarm, self._rng = scene.cluster, scene.swarm, scene.rng
