"""A storm over whole nodes: faults one after the other, and publishers and readers meanwhile.

Enters: a scene. Leaves: a cluster in trouble; what can be compared at any time was.
Never: repairs at the end (`node_layer.py` does).
"""

from collections.abc import Awaitable, Callable

import trio

from noti.notifications.store import Store
from tests.simulation.disk_faults import DiskFaults
from tests.simulation.faults import NODE_FAULTS, choose
from tests.simulation.machine import SimulatedNode
from tests.simulation.network_faults import NetworkFaults
from tests.simulation.process_faults import ProcessFaults
from tests.simulation.scene import Scene
from tests.simulation.source_faults import SourceFaults
from tests.simulation.world import SimulatedCluster

READ_WITHIN_S = 5.0
LONG_HISTORY = 2000
"""More events than a run has."""


class Storm:
    """Carries out what the swarm draws."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._cluster, self._swarm, self._rng = scene.cluster, scene.swarm, scene.rng
        groups = (ProcessFaults, DiskFaults, NetworkFaults, SourceFaults)
        made = [group(scene) for group in groups]
        self._faults: dict[str, Callable[[], Awaitable[str | None]]] = {
            kind: getattr(owner, kind)
            for kind in NODE_FAULTS
            for owner in made
            if hasattr(owner, kind)
        }

    async def blow(self) -> None:
        """Do all steps."""
        cluster, rng, swarm = self._cluster, self._rng, self._swarm
        for _ in range(swarm.steps):
            kind = choose(rng, swarm.weights)
            done = await self._faults[kind]()
            if done is not None:
                cluster.timeline.note("storm", f"{kind} {done}")
                cluster.timeline.reach(kind)
            for _ in range(rng.randrange(3)):
                cluster.publish(rng.randrange(swarm.publishes_max + 1))
                self._publish_somewhere()
                self._read_somewhere()
                await trio.sleep(rng.uniform(0.0, swarm.pause_max_s / 3))
            self._look()

    def _publish_somewhere(self) -> None:
        """To a node, instead of the source. Repeating is safe while history holds the id."""
        attempts = 3 if self._swarm.history_size >= LONG_HISTORY else 1
        for _ in range(self._rng.randrange(3)):
            machine = self._rng.choice(self._cluster.nodes)
            self._cluster.nursery.start_soon(self._cluster.publish_to, machine, attempts)

    def _read_somewhere(self) -> None:
        machines = [machine for machine in self._cluster.nodes if machine.up]
        if machines and self._rng.random() < 0.5:
            self._cluster.nursery.start_soon(read, self._cluster, self._rng.choice(machines))

    def _look(self) -> None:
        """Compare what can be compared at any time."""
        cluster = self._cluster
        leaders = [machine for machine in cluster.nodes if machine.leads()]
        if len(leaders) > 1:
            cluster.timeline.reach("two nodes believed to lead")
        if leaders and any(m.clock.frozen for m in leaders) and len(leaders) > 1:
            cluster.timeline.reach("a frozen leader was replaced")
        compare_stores(cluster)


async def read(cluster: SimulatedCluster, machine: SimulatedNode) -> None:
    """A consistent read shows all that was shown anywhere before it was asked for."""
    report, clients, shown = machine.report, machine.clients, len(cluster.checks.shown)
    assert report is not None
    with trio.move_on_after(READ_WITHIN_S) as patience:
        await report.barrier()
    if not patience.cancelled_caught and machine.report is report and not machine.crashed:
        assert clients.feed.newest_seq >= shown, (
            f"{machine.name} answered a read with {clients.feed.newest_seq} of {shown}"
        )
        cluster.timeline.reach("a read was confirmed")


def compare_stores(cluster: SimulatedCluster) -> None:
    """Equally far nodes have equal stores, and a snapshot of a store is all of it."""
    for machine in cluster.nodes:
        if machine.up:
            store = machine.store()
            cluster.checks.store_is(
                machine.name, store.last_seq, store.history_size, store.digest()
            )
            restored = Store()
            restored.restore(store.snapshot())
            cluster.checks.snapshot_is_whole(machine.name, store, restored)
