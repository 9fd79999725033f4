"""Three whole nodes in virtual time: elect, replicate, lose nodes, recover."""

import pytest
import trio

from tests import promises
from tests.simulation.deterministic import run_deterministically
from tests.simulation.world import SimulatedCluster


def simulate(seed: int, scenario: object) -> str:
    async def main() -> str:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed)
            await cluster.start()
            await cluster.wait_leader()
            # Browsers see what is published after they came.
            await cluster.wait_for(lambda: sum(c.clients for c in cluster.clients) == 4)
            await scenario(cluster)  # type: ignore[operator]
            await cluster.wait_everything_seen()
            cluster.check_browsers()
            digest = cluster.trace_hash()
            nursery.cancel_scope.cancel()
        return digest

    return run_deterministically(seed, main)


async def publish_quietly(cluster: SimulatedCluster) -> None:
    for _ in range(20):
        cluster.publish()
        await trio.sleep(0.05)


async def lose_the_leader(cluster: SimulatedCluster) -> None:
    cluster.publish(20)
    leader = await cluster.wait_leader()
    await leader.crash()
    cluster.publish(20)
    started = trio.current_time()
    await cluster.wait_for(lambda: cluster.last_seqs() == {cluster.published})
    assert trio.current_time() - started < 3.0
    await leader.start()
    cluster.publish(10)


async def lose_everybody(cluster: SimulatedCluster) -> None:
    cluster.publish(30)
    for simulated in cluster.nodes:
        await simulated.crash()
    cluster.publish(10)
    for simulated in cluster.nodes:
        await simulated.start()


async def lose_everybody_and_move(cluster: SimulatedCluster) -> None:
    """A full outage after which nobody has the address that the others remember."""
    cluster.publish(30)
    await cluster.wait_for(lambda: cluster.published in cluster.last_seqs())
    for simulated in cluster.nodes:
        await simulated.crash()
    for simulated in cluster.nodes:
        simulated.move()
    cluster.publish(10)
    for simulated in cluster.nodes:
        await simulated.start()


async def roll_all_nodes(cluster: SimulatedCluster) -> None:
    for simulated in cluster.nodes:
        cluster.publish(10)
        await simulated.stop()
        cluster.publish(10)
        await cluster.wait_leader()
        await simulated.start()
        await cluster.wait_for(lambda: cluster.last_seqs() == {cluster.published})


async def restart_the_source(cluster: SimulatedCluster) -> None:
    cluster.publish(10)
    cluster.stream.stop()
    cluster.publish(10)
    await trio.sleep(10)
    cluster.stream.start()


async def cut_the_leader_off(cluster: SimulatedCluster) -> None:
    """Its streams stall, as with SIGSTOP or a broken switch; the others go on."""
    leader = await cluster.wait_leader()
    for other in cluster.nodes:
        if other is not leader:
            cluster.hub.partition(leader.rpc, other.rpc)
    cluster.publish(20)
    others = [simulated for simulated in cluster.nodes if simulated is not leader]
    await cluster.wait_for(lambda: any(o.report and o.report.is_leader() for o in others))
    await trio.sleep(3)
    cluster.publish(5)
    cluster.hub.heal()


async def read_on_every_node(cluster: SimulatedCluster) -> None:
    """A read never shows less than was committed before it, on followers too."""
    for simulated in cluster.nodes:
        assert simulated.report is not None
        cluster.publish(5)
        await cluster.wait_for(lambda: cluster.published in cluster.last_seqs())
        await simulated.report.barrier()
        assert simulated.clients.feed.newest_seq >= cluster.published


async def replace_a_wiped_node(cluster: SimulatedCluster) -> None:
    """Its new self replaces the old one as a voter, and then the cluster survives another loss."""
    cluster.publish(20)
    leader = await cluster.wait_leader()
    wiped = next(simulated for simulated in cluster.nodes if simulated is not leader)
    await wiped.crash()
    wiped.wipe()
    await wiped.start()
    cluster.publish(20)
    await cluster.wait_for(lambda: cluster.voters() == {"node1", "node2", "node3"}, 60)
    other = next(s for s in cluster.nodes if s not in (leader, wiped))
    await other.crash()
    cluster.publish(20)
    await cluster.wait_for(lambda: cluster.last_seqs() == {cluster.published})
    await other.start()


async def grow_to_five(cluster: SimulatedCluster) -> None:
    cluster.publish(20)
    newcomers = [await cluster.add_machine(), await cluster.add_machine()]
    await cluster.wait_for(lambda: len(cluster.voters()) == 5)  # all have heard of it
    cluster.publish(10)
    for simulated in cluster.nodes[:2]:
        await simulated.crash()
    cluster.publish(10)
    await cluster.wait_for(lambda: cluster.last_seqs() == {cluster.published})
    for simulated in cluster.nodes[:2]:
        await simulated.start()
    assert all(newcomer.up for newcomer in newcomers)


SCENARIOS = [
    publish_quietly,
    lose_the_leader,
    lose_everybody,
    lose_everybody_and_move,
    roll_all_nodes,
    restart_the_source,
    cut_the_leader_off,
    read_on_every_node,
    replace_a_wiped_node,
    grow_to_five,
]


@promises.NO_DUPLICATES
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
@pytest.mark.parametrize("seed", range(2))
def test_every_browser_sees_every_event_once_and_in_order(scenario: object, seed: int) -> None:
    simulate(seed, scenario)


def test_crash_takes_no_time_however_cleanup_is_shielded() -> None:
    """Relies on a private name of Trio's, and fails loudly when it changes."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1)
            await cluster.start()
            leader = await cluster.wait_leader()
            before = trio.current_time()
            await leader.crash()
            assert (leader.down, trio.current_time()) == (True, before)
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)


def test_same_seed_gives_the_same_trace() -> None:
    assert simulate(11, lose_the_leader) == simulate(11, lose_the_leader)
    assert simulate(11, lose_the_leader) != simulate(12, lose_the_leader)
