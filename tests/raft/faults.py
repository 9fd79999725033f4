"""Random faults against a cluster of cores: crashes, cuts, loss, slow disks, transfers.

Enters: a seed, and the core to torment. Leaves: the cluster, healed and in agreement, or an
`AssertionError` of a check. Never: faults that no majority survives for ever.
"""

import random

from noti.raft.core.machine import Raft
from tests.raft.core.cluster import Cluster


def misbehave(cluster: Cluster, rng: random.Random) -> None:
    """One random fault or repair."""
    node = cluster.nodes[rng.choice(cluster.names)]
    match rng.randrange(9):
        case 0 | 1:
            if node.core is not None:
                node.crash()
        case 2 | 3 | 4:
            for other in cluster.nodes.values():
                if other.core is None:
                    other.start()
        case 5:
            cluster.isolate(node.name)
        case 6:
            cluster.blocked.add((rng.choice(cluster.names), rng.choice(cluster.names)))
        case 7:
            cluster.heal()
        case _:
            cluster.loss = rng.choice([0.0, 0.05, 0.3])
            leader = cluster.leader()
            if leader is not None:
                cluster.transfer(leader)


def torment(seed: int, core: type[Raft] = Raft) -> Cluster:
    """Let faults rain while commands are proposed, then heal and demand that all agree."""
    rng = random.Random(seed)
    size = rng.choice([3, 3, 5])
    snapshot_every, keep_entries = rng.choice([0, 7, 20]), rng.choice([0, 3, 1000])
    cluster = Cluster(
        size, seed, snapshot_every=snapshot_every, keep_entries=keep_entries, core=core
    )
    cluster.run(1.0)  # the first configuration is on every disk
    cluster.disk_delay_s = rng.choice([(0.0005, 0.002), (0.001, 0.1), (0.0, 0.4)])
    cluster.delay_s = rng.choice([(0.001, 0.005), (0.001, 0.08)])
    number = 0
    for _ in range(60):
        misbehave(cluster, rng)
        for _ in range(rng.randrange(4)):
            leader = cluster.leader()
            if leader is not None:
                number += 1
                cluster.propose(leader, b"%d" % number)
            cluster.run(rng.uniform(0.0, 0.4))
        cluster.check_log_matching()
    recover(cluster)
    return cluster


def recover(cluster: Cluster) -> None:
    """Repair everything; all must reach the same state within a bounded time."""
    cluster.heal()
    for node in cluster.nodes.values():
        if node.core is None:
            node.start()
    cluster.disk_delay_s = (0.0005, 0.002)
    cluster.delay_s = (0.001, 0.005)
    cluster.run(8.0)
    leader = cluster.elect()
    cluster.propose(leader, b"end")
    cluster.run_until(
        lambda: all(node.applied and node.applied[-1] == b"end" for node in cluster.nodes.values()),
        seconds=20.0,
    )
    assert len({tuple(node.applied) for node in cluster.nodes.values()}) == 1
    cluster.check_log_matching()
