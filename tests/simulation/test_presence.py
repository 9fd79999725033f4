"""Who is subscribed, on whole nodes in virtual time: known to all, whatever dies."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from tests import promises
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.node_storm import compare_stores, who_knows_not_who_is_subscribed
from tests.simulation.world import Settings, SimulatedCluster

DETECTED_WITHIN_S = 8.0
"""The failure detector's time on one machine (up to 6 s when the probe of the dead is the last in
turn), the leader's look, two commits, and an election where the leader died."""


def simulate(seed: int, scenario: Callable[[SimulatedCluster], Awaitable[None]]) -> None:
    async def main() -> None:
        settings = Settings(subscriptions=True, browsers=8)
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed, settings=settings)
            await cluster.start()
            await everybody_knows(cluster, 8, within_s=30)
            await scenario(cluster)
            compare_stores(cluster)
            nursery.cancel_scope.cancel()

    run_deterministically(seed, main)


async def everybody_knows(
    cluster: SimulatedCluster, streams: int, within_s: float = DETECTED_WITHIN_S
) -> None:
    """Wait until so many streams are open, and every node knows exactly these."""

    def agreed() -> bool:
        is_open = sum(len(machine.clients.subscribers) for machine in cluster.nodes)
        return is_open == streams and not who_knows_not_who_is_subscribed(cluster)

    await cluster.wait_for(agreed, within_s)


def known_of(cluster: SimulatedCluster, node_id: str) -> set[bool]:
    """Whether running nodes know of anything that a node announced."""
    return {
        node_id in machine.store().subscriptions.lives() for machine in cluster.nodes if machine.up
    }


async def other_than_leader(cluster: SimulatedCluster) -> SimulatedNode:
    leader = await cluster.wait_leader()
    return next(machine for machine in cluster.nodes if machine is not leader)


async def kill_a_follower(cluster: SimulatedCluster) -> None:
    machine = await other_than_leader(cluster)
    node_id = machine.node_id()
    await machine.crash()
    await cluster.wait_for(lambda: known_of(cluster, node_id) == {False}, DETECTED_WITHIN_S)
    await everybody_knows(cluster, 8, within_s=20)


async def kill_the_leader(cluster: SimulatedCluster) -> None:
    leader = await cluster.wait_leader()
    node_id = leader.node_id()
    await leader.crash()
    await cluster.wait_for(lambda: known_of(cluster, node_id) == {False}, DETECTED_WITHIN_S)
    await everybody_knows(cluster, 8, within_s=20)


async def stop_a_node_in_order(cluster: SimulatedCluster) -> None:
    machine = await other_than_leader(cluster)
    node_id = machine.node_id()
    await machine.stop()
    await cluster.wait_for(lambda: known_of(cluster, node_id) == {False}, DETECTED_WITHIN_S)
    await trio.sleep(40)
    assert known_of(cluster, node_id) == {False}


async def restart_a_node_before_anybody_notices(cluster: SimulatedCluster) -> None:
    machine = await other_than_leader(cluster)
    await machine.crash()
    await machine.start()
    await everybody_knows(cluster, 8, within_s=20)


async def restart_everybody(cluster: SimulatedCluster) -> None:
    for machine in cluster.nodes:
        await machine.crash()
    for machine in cluster.nodes:
        await machine.start()
    await everybody_knows(cluster, 8, within_s=30)


async def take_a_node_for_dead_that_lives(cluster: SimulatedCluster) -> None:
    """Its gossip is lost, and later it is heard again; its streams go on all the time."""
    machine = await other_than_leader(cluster)
    told_before = len(cluster.checks.shown)
    for other in cluster.nodes:
        if other is not machine:
            cluster.net.block(machine.host, other.host)
    await trio.sleep(DETECTED_WITHIN_S)
    assert len(cluster.checks.shown) > told_before, "nobody was taken for dead"
    cluster.net.heal()
    await everybody_knows(cluster, 8, within_s=20)


async def cut_a_node_off(cluster: SimulatedCluster) -> None:
    machine = await other_than_leader(cluster)
    node_id = machine.node_id()
    others = [other for other in cluster.nodes if other is not machine]
    for other in others:
        cluster.net.block(machine.host, other.host)
        cluster.hub.partition(machine.rpc, other.rpc)
    await cluster.wait_for(
        lambda: all(node_id not in one.store().subscriptions.lives() for one in others),
        DETECTED_WITHIN_S,
    )
    cluster.mend()
    await everybody_knows(cluster, 8, within_s=30)


SCENARIOS = [
    kill_a_follower,
    kill_the_leader,
    stop_a_node_in_order,
    restart_a_node_before_anybody_notices,
    restart_everybody,
    take_a_node_for_dead_that_lives,
    cut_a_node_off,
]


@promises.SUBSCRIPTIONS_KNOWN
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("seed", range(2))
def test_all_nodes_know_exactly_who_is_subscribed(
    scenario: Callable[[SimulatedCluster], Awaitable[None]], seed: int
) -> None:
    simulate(seed, scenario)


def test_ended_subscriber_is_disconnected_at_whichever_node_it_is() -> None:
    async def end_one(cluster: SimulatedCluster) -> None:
        asked = await other_than_leader(cluster)
        presence = asked.clients._presence
        assert presence is not None
        for machine in cluster.nodes:
            for subscriber in list(machine.clients.subscribers.values()):
                await presence.end(subscriber)
                assert subscriber not in presence.table
        await trio.sleep(0.1)
        assert not any(machine.clients.subscribers for machine in cluster.nodes)
        await everybody_knows(cluster, 8, within_s=20)

    simulate(1, end_one)
