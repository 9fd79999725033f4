"""Nodes that are decommissioned, alone and together, while everything else goes wrong."""

import pytest
import trio

from noti.errors import DecommissionRejected
from tests import promises
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.world import SimulatedCluster

PATIENCE_S = 60.0
"""Elections, lost requests and frozen leaders included."""


async def leave(machine: SimulatedNode, within_s: float = PATIENCE_S) -> None:
    assert machine.control.leave is not None
    await machine.control.leave(within_s)


async def scale_down(cluster: SimulatedCluster, leavers: list[SimulatedNode]) -> None:
    """What a StatefulSet with parallel pod management does: all at once, each waits for its own."""

    async def go(machine: SimulatedNode) -> None:
        await leave(machine)
        cluster.note(f"{machine.name} has left")
        name = machine.name
        assert name not in voters_of(cluster, machine)
        await machine.stop()

    async with trio.open_nursery() as nursery:
        for machine in leavers:
            nursery.start_soon(go, machine)


def voters_of(cluster: SimulatedCluster, machine: SimulatedNode) -> set[str]:
    """Return the names of the voters as one machine has them in its log."""
    configuration = machine.consensus().configuration
    names = {other.node_id(): other.name for other in cluster.nodes if other.up}
    return {names.get(node, node) for node in configuration.voters}


async def trouble(cluster: SimulatedCluster, stayers: list[SimulatedNode]) -> None:
    """Crashes, freezes and cuts among those who stay, one at a time."""
    rng = cluster.rng
    for _ in range(4):
        await trio.sleep(rng.uniform(0.0, 0.5))
        machine = rng.choice(stayers)
        match rng.randrange(3):
            case 0:
                await machine.crash(unnoticed=rng.random() < 0.5)
                await trio.sleep(rng.uniform(0.0, 3.0))
                await machine.start()
            case 1:
                machine.freeze()
                await trio.sleep(rng.uniform(0.0, 3.0))
                machine.thaw()
            case _:
                for other in cluster.nodes:
                    if other is not machine:
                        cluster.hub.partition(machine.rpc, other.rpc)
                await trio.sleep(rng.uniform(0.0, 3.0))
                cluster.hub.heal()
        cluster.publish()


async def only_these_vote(cluster: SimulatedCluster, names: set[str]) -> None:
    await cluster.wait_for(lambda: cluster.voters() == names, PATIENCE_S)


async def shrink_and_grow(cluster: SimulatedCluster) -> None:
    """5 -> 3 and 3 -> 1, the leader among the leavers or not, and back to 5."""
    order = list(cluster.nodes)
    cluster.rng.shuffle(order)
    for stayers, leavers in ((order[:3], order[3:]), (order[:1], order[1:3])):
        cluster.publish(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trouble, cluster, stayers)
            nursery.start_soon(scale_down, cluster, leavers)
        await only_these_vote(cluster, {machine.name for machine in stayers})
        cluster.publish(5)
        await cluster.wait_for(lambda: cluster.last_seqs() == {cluster.published})
    [last] = order[:1]
    with pytest.raises(DecommissionRejected, match="is the last voter of its cluster"):
        await leave(last)
    for machine in order[1:]:
        await machine.start()
    await cluster.wait_for(lambda: len(cluster.voters()) == 5, PATIENCE_S)


@promises.DECOMMISSION_KEEPS_QUORUM
@pytest.mark.parametrize("seed", range(8))
def test_nodes_leave_under_faults_and_come_back_as_voters(seed: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed, size=5)
            await cluster.start()
            await cluster.wait_leader()
            await cluster.wait_for(lambda: sum(c.clients for c in cluster.clients) == 4)
            await shrink_and_grow(cluster)
            cluster.publish(5)
            await cluster.wait_everything_seen()
            cluster.check_browsers()
            nursery.cancel_scope.cancel()

    run_deterministically(seed, main)


def test_leaver_gets_no_seat_from_the_next_leader_either() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1, size=5)
            await cluster.start()
            leader = await cluster.wait_leader()
            leaver = next(machine for machine in cluster.nodes if machine is not leader)
            await leave(leaver)
            await leave(leaver)  # asking twice does no harm
            await leader.crash()
            await cluster.wait_for(lambda: cluster.leader() is not None)
            await leader.start()
            await cluster.wait_for(lambda: len(cluster.voters()) == 4)
            await trio.sleep(30)
            assert len(cluster.voters()) == 4
            assert leaver.name not in cluster.voters()
            await leaver.stop()
            await leaver.start()
            await cluster.wait_for(lambda: len(cluster.voters()) == 5)
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)


def test_leaver_reports_who_is_missing_and_waits_for_the_seat_of_the_dead() -> None:
    """3 -> 1 while one of the three is dead: the last one must be able to commit alone."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 2)
            await cluster.start()
            leader = await cluster.wait_leader()
            leaver, dead = (machine for machine in cluster.nodes if machine is not leader)
            await cluster.wait_for(lambda: len(cluster.voters()) == 3)
            await dead.crash()
            await trio.sleep(5)
            with pytest.raises(DecommissionRejected, match=f"{dead.name} of the voters"):
                await leave(leaver, 1.0)
            await leave(leaver, 30.0)
            await leaver.stop()
            assert len(leader.consensus().configuration.voters) == 1
            cluster.publish(3)
            await cluster.wait_for(lambda: cluster.last_seqs() == {cluster.published})
            nursery.cancel_scope.cancel()

    run_deterministically(2, main)
