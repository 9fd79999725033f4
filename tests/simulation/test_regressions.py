"""Mistakes that the simulator found, each as the shortest story that shows it."""

import pytest
import trio

from noti.raft.core.events import ChangeRejected
from noti.raft.core.membership import Change
from tests.raft.core.cluster import Cluster
from tests.simulation.deterministic import run_deterministically
from tests.simulation.scene import start_again
from tests.simulation.sim import LAYERS
from tests.simulation.world import SimulatedCluster


@pytest.mark.parametrize(
    ("layer", "seed"),
    [
        ("core", 111),  # a leader that removed itself and crashed could not campaign
        (
            "core",
            1125,
        ),  # the last word of a voter that forgot waited for its disk
        ("core", 1356),  # the simulator's own: a repaired network went on doubling messages
        ("core", 1417),  # the simulator's own: a stopped process may win an old election
        ("core", 3049),  # a learner without a log was promoted, and had no vote to give
        ("core", 629204819),  # a log was compacted while its first entry was read for a follower
        ("core", 2119928958),  # the simulator's own: a candidate's disk hung, and a voter was added
        ("nodes", 0),  # a gap was hidden from a browser that came before the first event
        ("nodes", 1003),  # a read was answered in the middle of a replay
        ("nodes", 1018),  # a node was told to stop in the moment in which a part got ready
        ("nodes", 1039),  # a founder forgot its promise, and the cluster had no majority
        ("nodes", 67),  # the simulator's own: stores of two levels were to be equal
        ("nodes", 2841756055),  # its own, too: no node can miss its last entry if that went astray
        ("gossip", 50073),  # the simulator's own: strangers lied to one whose clock was years ahead
    ],
)
def test_seed_that_failed_once_passes(layer: str, seed: int) -> None:
    """The story of a seed changes with the product, so what it showed has a test of its own too."""
    outcome = LAYERS[layer](seed)
    assert outcome.failure is None, outcome.report()


def test_leader_that_crashed_while_it_removed_itself_still_campaigns() -> None:
    """Thesis 4.2.2, figure 4.6. Found by: just sim seed=111 layer=core"""
    cluster = Cluster(2)
    leader = cluster.elect()
    [other] = [node for node in cluster.nodes.values() if node is not leader]
    cluster.isolate(other.name)
    cluster.change(leader, Change(remove=frozenset({leader.name})))
    cluster.run(0.1)  # on its disk, and only there
    leader.crash()
    cluster.heal()
    leader.start()
    cluster.run_until(lambda: cluster.leader() is other)
    assert other.running.status().configuration.voters == (other.name,)


def test_learner_that_has_nothing_yet_is_not_promoted() -> None:
    """Its vote would count and it would refuse it, so a lonely old voter could never lead again.
    Found by: just sim seed=3049 layer=core"""
    cluster = Cluster(1)
    leader = cluster.elect()
    newcomer = cluster.add_machine()
    cluster.isolate(newcomer.name)
    cluster.change(leader, Change(add=frozenset({newcomer.name})))
    cluster.run(0.5)
    promotion = Change(promote=frozenset({newcomer.name}))
    refused = leader.outcomes[cluster.change(leader, promotion)]
    assert isinstance(refused, ChangeRejected)
    leader.crash()
    leader.start()
    cluster.elect()
    cluster.heal()
    cluster.run(1.0)
    cluster.change(leader, promotion)
    cluster.run_until(lambda: newcomer.name in newcomer.running.status().configuration.voters)


def test_start_waits_for_a_disk_that_hangs() -> None:
    """The simulator's own, found by: just sim seed=3408523174 layer=nodes"""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1, size=1)
            [machine] = cluster.nodes
            machine.disk.hang()
            nursery.start_soon(start_again, machine)
            await trio.sleep(57.0)
            assert not machine.up
            machine.disk.answer()
            await cluster.wait_leader()
            nursery.cancel_scope.cancel()

    run_deterministically(1, main)
