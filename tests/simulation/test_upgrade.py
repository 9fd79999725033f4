"""Nodes of an older release are replaced one by one, and back again, under load."""

import pytest
import trio

from noti.assembly import LogLimits
from tests import promises
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.world import Settings, SimulatedCluster

OLD, NEW = 0, 1
"""What a release supports."""


async def replace(cluster: SimulatedCluster, machine: SimulatedNode, supports: int) -> None:
    """Run another release on a machine, after a stop or a crash; return when it is ready."""
    await (machine.stop() if cluster.rng.random() < 0.5 else machine.crash())
    machine.supports = supports
    cluster.publish(3)
    await machine.start()
    await cluster.wait_for(lambda: is_ready(machine))
    cluster.publish(3)


def is_ready(machine: SimulatedNode) -> bool:
    return machine.report is not None and machine.report.ready()


def levels(cluster: SimulatedCluster) -> set[int]:
    return {machine.store().level for machine in cluster.nodes if machine.up}


async def old_cluster(nursery: trio.Nursery, seed: int) -> SimulatedCluster:
    cluster = SimulatedCluster(nursery, seed)
    for machine in cluster.nodes:
        machine.supports = OLD
    await cluster.start()
    await cluster.wait_leader()
    return cluster


@promises.UPGRADED_ONE_BY_ONE
@pytest.mark.parametrize("seed", range(6))
def test_nodes_are_replaced_one_by_one_and_back_until_all_are_new(seed: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = await old_cluster(nursery, seed)
            order = list(cluster.nodes)
            cluster.rng.shuffle(order)
            for supports in (NEW, OLD):
                for machine in order[:2]:
                    await replace(cluster, machine, supports)
                await trio.sleep(5)
                assert levels(cluster) == {OLD}
            for machine in order:
                await replace(cluster, machine, NEW)
            await cluster.wait_for(lambda: levels(cluster) == {NEW})

            [too_old, *_] = order
            await too_old.stop()
            too_old.supports = OLD
            await too_old.start()
            cluster.publish(3)
            await trio.sleep(10)
            assert too_old.store().level == OLD, "it applied what it cannot read"
            assert not is_ready(too_old)
            await replace(cluster, too_old, NEW)
            await cluster.wait_everything_seen()
            cluster.check_browsers()
            nursery.cancel_scope.cancel()

    run_deterministically(seed, main)


@pytest.mark.parametrize(
    ("snapshot_every_bytes", "at_start"),
    [(64 * 1024**2, False), (500, True)],
    ids=["log", "snapshot"],
)
def test_cluster_that_is_taken_back_as_a_whole_stops_and_loses_nothing(
    snapshot_every_bytes: int, at_start: bool
) -> None:
    """Each node meets the level in its log, or already in its snapshot."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            limits = LogLimits(segment_bytes=65_536, snapshot_every_bytes=snapshot_every_bytes)
            cluster = SimulatedCluster(nursery, 3, settings=Settings(log_limits=limits))
            await cluster.start()
            await cluster.wait_for(lambda: levels(cluster) == {NEW})
            cluster.publish(20)
            await cluster.wait_for(lambda: cluster.last_seqs() == {cluster.published})
            for machine in cluster.nodes:
                await machine.stop()
                machine.supports = OLD
            for machine in cluster.nodes:
                await machine.start()
                assert machine.down or not at_start
            await cluster.wait_for(lambda: sum(machine.down for machine in cluster.nodes) >= 1)
            await trio.sleep(10)
            told = [machine.end_reason for machine in cluster.nodes if machine.down]
            assert all("at level 1" in text and "install 0.7.0 or newer" in text for text in told)
            for machine in cluster.nodes:
                if machine.up:
                    await machine.stop()
                machine.supports = NEW
                await machine.start()
            cluster.publish(5)
            await cluster.wait_everything_seen()
            cluster.check_browsers()
            nursery.cancel_scope.cancel()

    run_deterministically(3, main)
