"""More nodes than are expected, all started at once, as a Kubernetes StatefulSet does it."""

import pytest
import trio

from tests.simulation.deterministic import run_deterministically
from tests.simulation.world import SimulatedCluster

FOUNDED_WITHIN_S = 20.0
"""Virtual; gossip has to reach everybody, and then a proposal has to settle."""


@pytest.mark.parametrize("seed", range(8))
def test_five_nodes_found_one_cluster_of_the_three_that_are_expected(seed: int) -> None:
    """Each promised itself to the first that it saw, and three in four starts ended so."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed, 5)
            cluster.founders = 3
            await cluster.start()
            await cluster.wait_for(cluster.leader, FOUNDED_WITHIN_S)
            await cluster.wait_for(
                lambda: all(node.consensus().configuration.cluster_id for node in cluster.nodes),
                FOUNDED_WITHIN_S,
            )
            ids = {node.consensus().configuration.cluster_id for node in cluster.nodes}
            assert len(ids) == 1
            nursery.cancel_scope.cancel()

    run_deterministically(seed, main)
