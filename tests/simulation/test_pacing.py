"""Publishers faster than hubs, in a cluster of whole nodes."""

import math
import random
from collections.abc import Awaitable, Callable

import pytest
import trio

from noti.errors import ProposalUncertain
from noti.publishing.ports import Draft, Outcome
from tests import promises
from tests.simulation import load
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.world import Settings, SimulatedCluster

SETTINGS = Settings(browsers=2, pacing_s=2.0, history_sizes=(5,))
"""Far fewer events than come: a burst is beyond history."""


def in_cluster(
    scenario: Callable[[SimulatedCluster, SimulatedNode], Awaitable[None]],
    seed: int = 1,
    settings: Settings = SETTINGS,
) -> None:
    """Run a scenario with a whole cluster of three and its leader."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed, settings=settings)
            await cluster.start()
            leader = await cluster.wait_leader()
            await cluster.wait_for(lambda: len(leader.consensus().configuration.voters) == 3)
            await scenario(cluster, leader)
            nursery.cancel_scope.cancel()

    run_deterministically(seed, main)


@promises.PUBLISHERS_SLOWED_FIRST
@pytest.mark.parametrize("name", ["overload_all", "overload_one", "lie"])
def test_load_is_borne(name: str) -> None:
    async def scenario(cluster: SimulatedCluster, leader: SimulatedNode) -> None:
        await load.bear(cluster, name, random.Random(name))

    in_cluster(scenario)


def test_follower_that_cannot_follow_slows_the_leader_down() -> None:
    """Alone with its readers, for as long as it takes: far longer than one node may hold others
    back."""

    async def scenario(cluster: SimulatedCluster, leader: SimulatedNode) -> None:
        follower = next(machine for machine in cluster.nodes if machine is not leader)
        await spared(cluster, follower)

    in_cluster(scenario, settings=Settings(browsers=0, pacing_s=2.0, history_sizes=(5,)))


@promises.PUBLISHERS_SLOWED_FIRST
def test_learner_that_cannot_follow_slows_the_leader_down() -> None:
    async def scenario(cluster: SimulatedCluster, leader: SimulatedNode) -> None:
        learner = await cluster.add_machine()

        def learns() -> bool:
            return learner.node_id() in leader.consensus().configuration.learners

        await cluster.wait_for(learns)
        await spared(cluster, learner)
        assert learns()

    in_cluster(
        scenario, settings=Settings(browsers=0, pacing_s=2.0, history_sizes=(5,), voters_max=3)
    )


async def spared(cluster: SimulatedCluster, slow: SimulatedNode) -> None:
    for machine in cluster.nodes:
        machine.clients.sending.readers = 0
    sending = slow.clients.sending
    sending.bytes_per_s, sending.readers = load.SLOW_BYTES_PER_S, load.READERS
    await load.publish(cluster, random.Random(1), 8.0)
    assert 0.0 < sending.peak < 1.0
    leader = cluster.leader()
    assert leader is not None
    members = leader.status()["members"]
    pressures = {m["name"]: m["pressure"] for m in members}  # type: ignore[attr-defined]
    assert pressures[slow.name] > 0.0
    assert leader.status()["intake"]["disregarded"] == []  # type: ignore[index]


def test_slow_node_that_is_cut_off_holds_nobody_back() -> None:
    async def scenario(cluster: SimulatedCluster, leader: SimulatedNode) -> None:
        slow = next(machine for machine in cluster.nodes if machine is not leader)
        for machine in cluster.nodes:
            machine.clients.sending.readers = load.READERS
        slow.clients.sending.lies = True
        await trio.sleep(0.3)
        cluster.hub.partition(slow.rpc, leader.rpc)
        await trio.sleep(0.7)
        before = len(cluster.checks.shown)
        others = [machine for machine in cluster.nodes if machine is not slow]
        for number in range(25):
            cluster.nursery.start_soon(cluster.publish_to, others[number % 2], 1, load.EVENT_BYTES)
            await trio.sleep(0.04)
        assert len(cluster.checks.shown) - before >= 20

    in_cluster(scenario, settings=Settings(browsers=0, pacing_s=600.0))


@pytest.mark.parametrize("how", ["stops", "is lost"])
def test_what_waits_at_a_leader_goes_to_its_successor(how: str) -> None:
    """Nothing was done with it, so only who was cut off from it without a word is in doubt."""

    async def scenario(cluster: SimulatedCluster, leader: SimulatedNode) -> None:
        outcomes: list[Outcome] = []

        async def publish(number: int) -> None:
            data = f'{{"user_id":{number},"category_from":"a"}}'.ljust(200_000)
            draft = Draft(("jobs.noti.b",), data, id=f"publisher-{number}")
            outcomes.append(await cluster.outside.publish(follower.rpc, [draft]))

        follower = next(machine for machine in cluster.nodes if machine is not leader)
        for machine in cluster.nodes:
            machine.clients.sending.readers = load.READERS
            machine.clients.sending.lies = True
        await trio.sleep(0.3)
        for number in range(1, 7):
            cluster.nursery.start_soon(publish, number)
            await trio.sleep(0.1)
        held = leader.status()["intake"]["held"]  # type: ignore[index]
        assert held
        shown = len(cluster.checks.shown)
        if how == "stops":
            await leader.stop()
        else:
            leader.freeze()
        await cluster.wait_for(lambda: cluster.leader() not in (None, leader))
        for machine in cluster.nodes:
            machine.clients.sending.lies = False
        await cluster.wait_for(lambda: len(outcomes) == 6, 40.0)
        doubts = sum(isinstance(outcome, ProposalUncertain) for outcome in outcomes)
        if how == "stops":
            assert not doubts
            assert len(cluster.checks.shown) - shown >= held

    in_cluster(scenario, settings=Settings(browsers=0, pacing_s=600.0))


def test_slow_hub_slows_nobody_down_while_nothing_comes_too_fast() -> None:
    async def scenario(cluster: SimulatedCluster, leader: SimulatedNode) -> None:
        for machine in cluster.nodes:
            machine.clients.sending.bytes_per_s = 10 * load.EVENT_BYTES * load.EVENTS_PER_S
            machine.clients.sending.readers = load.READERS
        await load.publish(cluster, random.Random(1), 3.0)
        await trio.sleep(0.2)
        assert len(cluster.checks.shown) == cluster.published
        assert math.isclose(leader.clients.pressure, 0.0)

    in_cluster(scenario)
