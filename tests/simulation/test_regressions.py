"""Mistakes that the simulator found, each as the shortest story that shows it."""

from noti.raft.changes import Change
from tests.raft.cluster import Cluster


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
