"""A node of which a part fails, with many browsers to part with, neither leads nor is elected."""

import pytest
import trio

from tests import promises
from tests.simulation.deterministic import run_deterministically
from tests.simulation.world import SimulatedCluster

LINGERS_S = 20.0
"""A real hub parts with its browsers within so long."""


@promises.BROKEN_NODE_ENDS
@pytest.mark.parametrize("leads", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_node_of_which_a_part_fails_is_out_of_the_cluster_at_once(seed: int, leads: bool) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed)
            await cluster.start()
            leader = await cluster.wait_leader()
            victim = leader if leads else next(m for m in cluster.nodes if m is not leader)
            others = [machine for machine in cluster.nodes if machine is not victim]
            own_id, fell_at = victim.node_id(), trio.current_time()
            victim.fall(LINGERS_S)
            await cluster.wait_for(lambda: any(machine.leads() for machine in others), 2.0)
            terms = set(cluster.checks.leaders)
            while not victim.down:
                # Events are read and shown by the others, whoever of them leads.
                cluster.publish(1)
                await cluster.wait_for(
                    lambda: all(m.clients.feed.newest_seq == cluster.published for m in others), 3.0
                )
                for machine in others:
                    if machine.leads():
                        machine.hand_over()
                await trio.sleep(1.0)
            assert victim.clients.clients == 0
            assert trio.current_time() - fell_at >= LINGERS_S
            later = {cluster.checks.leaders[term] for term in set(cluster.checks.leaders) - terms}
            assert later
            assert own_id not in later
            nursery.cancel_scope.cancel()

    run_deterministically(seed, main)


def test_browsers_of_a_node_that_falls_are_not_kept() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1)
            await cluster.start()
            leader = await cluster.wait_leader()
            clients = leader.clients
            leader.fall(0.0)
            with trio.fail_after(1.0):
                await leader.stopped.wait()
            assert clients.abandoned
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)
