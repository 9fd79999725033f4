"""Publishers outside of the cluster, on any node, while leaders come and go."""

import random

import pytest
import trio

from noti.errors import NotiError, Unavailable
from noti.publishing.ports import Draft
from tests import promises
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.memory_rpc import MemoryRpcNetwork
from tests.simulation.world import SimulatedCluster

PUBLISHERS = 6
EVENTS_EACH = 15
WITHIN_S = 60
RETRY_S = 0.1
OUTSIDE = ("10.0.1.1", 9)


async def publish_all(cluster: SimulatedCluster, publisher: int, rng: random.Random) -> None:
    """Publish one event after the other, each until some node says that it is committed."""
    network = MemoryRpcNetwork(cluster.hub, OUTSIDE)
    for number in range(publisher, PUBLISHERS * EVENTS_EACH, PUBLISHERS):
        draft = Draft(("jobs.noti.x",), f'{{"user_id":{number + 1},"x":1}}', f"id-{number}")
        while True:
            try:
                outcome = await network.publish(rng.choice(cluster.nodes).rpc, [draft])
            except Unavailable:
                outcome = Unavailable("lost the way")
            if not isinstance(outcome, NotiError):
                break
            await trio.sleep(RETRY_S)


def shown_ids(simulated: SimulatedNode) -> list[str]:
    feed = simulated.clients.feed
    return [
        feed.retained.notifications[seq].id for seq in range(feed.oldest_seq, feed.newest_seq + 1)
    ]


@promises.RETRY_SHOWN_ONCE
@promises.PUBLISHER_GETS_ONE_ANSWER
@pytest.mark.parametrize("seed", range(3))
def test_every_acknowledged_event_is_shown_once_whatever_leader_died(seed: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed)
            await cluster.start()
            await cluster.wait_leader()
            with trio.fail_after(WITHIN_S):
                async with trio.open_nursery() as publishers:
                    for publisher in range(PUBLISHERS):
                        rng = random.Random(f"{seed}:{publisher}")
                        publishers.start_soon(publish_all, cluster, publisher, rng)
                    for _ in range(2):
                        leader = await cluster.wait_leader()
                        await trio.sleep(0.02)
                        await leader.crash()
                        await trio.sleep(0.5)
                        await leader.start()
            expected = {f"id-{number}" for number in range(PUBLISHERS * EVENTS_EACH)}
            await cluster.wait_for(lambda: len(cluster.last_seqs()) == 1)
            orders = {tuple(shown_ids(simulated)) for simulated in cluster.nodes}
            assert len(orders) == 1
            (order,) = orders
            assert len(order) == len(expected)
            assert set(order) == expected
            nursery.cancel_scope.cancel()

    run_deterministically(seed, main)
