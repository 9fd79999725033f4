"""A storm over whole nodes: faults one after the other, and publishers and readers meanwhile.

What can be compared at any time is compared. Repairs at the end are made by `node_layer.py`.
"""

from collections.abc import Awaitable, Callable

import trio

from noti.history.store import Store
from tests.simulation.disk_faults import DiskFaults
from tests.simulation.faults import FOUNDING_FAULTS, NODE_FAULTS, SOURCE_FAULTS, choose
from tests.simulation.network_faults import NetworkFaults
from tests.simulation.process_faults import ProcessFaults
from tests.simulation.reads import read
from tests.simulation.scene import Scene, start_again
from tests.simulation.source_faults import SourceFaults
from tests.simulation.world import SimulatedCluster

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
            for kind in (*NODE_FAULTS, *SOURCE_FAULTS)
            for owner in made
            if hasattr(owner, kind)
        }

    async def blow(self) -> None:
        """Do all steps."""
        cluster, rng, swarm = self._cluster, self._rng, self._swarm
        for _ in range(swarm.steps):
            await self._do(choose(rng, swarm.weights))
            for _ in range(rng.randrange(3)):
                cluster.publish(rng.randrange(swarm.publishes_max + 1))
                self._publish_somewhere()
                self._read_somewhere()
                await trio.sleep(rng.uniform(0.0, swarm.pause_max_s / 3))
            self._look()

    async def found(self) -> None:
        """Start all machines for the first time, one after the other, and hurt them meanwhile."""
        cluster, rng = self._cluster, self._rng
        waiting = rng.sample(cluster.nodes, len(cluster.nodes))
        cluster.start_browsers()
        for _ in range(self._swarm.founding_steps):
            if waiting and rng.random() < 0.5:
                await start_again(waiting.pop())
            elif await self._do(rng.choice(FOUNDING_FAULTS)) and not cluster.checks.cluster_id:
                cluster.timeline.reach("a fault before there was a cluster")
            cluster.publish(rng.randrange(2))
            await trio.sleep(rng.uniform(0.0, 1.0))
        for machine in waiting:
            await start_again(machine)

    async def _do(self, kind: str) -> bool:
        """Return whether it could be done."""
        done = await self._faults[kind]()
        if done is not None:
            self._cluster.timeline.note("storm", f"{kind} {done}")
            self._cluster.timeline.reach(kind)
        return done is not None

    def _publish_somewhere(self) -> None:
        """To a node, instead of the source. Repeating is safe while history holds the id."""
        attempts = 3 if min(self._swarm.history_sizes) >= LONG_HISTORY else 1
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
        sizes = {machine.config().history_size for machine in cluster.nodes if machine.up}
        if len(sizes) > 1:
            cluster.timeline.reach("nodes had different settings")
        if len(leaders) > 1:
            cluster.timeline.reach("two nodes believed to lead")
        if leaders and any(m.clock.frozen for m in leaders) and len(leaders) > 1:
            cluster.timeline.reach("a frozen leader was replaced")
        compare_stores(cluster)


def who_knows_not_who_is_subscribed(cluster: SimulatedCluster) -> list[str]:
    """Return the machines whose table is not exactly what streams are open on all of them."""
    streams = {one for machine in cluster.nodes for one in machine.clients.subscribers.values()}
    return [
        f"the table of {machine.name}"
        for machine in cluster.nodes
        if machine.up and {one.id for one in machine.store().subscriptions.subscribers()} != streams
    ]


def floors_of(cluster: SimulatedCluster, store: Store) -> tuple[int, ...]:
    """Return up to where a store has taken each stream that there ever was."""
    return tuple(store.floor(name) for stream in cluster.streams for name in stream.identities)


def compare_stores(cluster: SimulatedCluster) -> None:
    """Equally far nodes have equal stores, and a snapshot of a store is all of it."""
    for machine in cluster.nodes:
        if machine.up:
            store = machine.store()
            table = store.subscriptions
            cluster.checks.store_is(
                machine.name,
                store.last_seq,
                store.limits.count,
                (
                    tuple((node_id, table.last_batch(node_id)) for node_id in table.lives()),
                    floors_of(cluster, store),
                    store.level,
                ),
                store.digest(),
            )
            cluster.checks.history_is(machine.name, machine.clients.feed.oldest_seq, store)
            restored = Store.decode(store.snapshot())
            cluster.checks.snapshot_is_whole(machine.name, store, restored)
