"""The Raft core alone, in virtual time, under a storm of faults: the layer for volume.

Enters: a seed. Leaves: an `Outcome`; the checks of `tests/raft/core/cluster.py` ran at every step.
Never: Trio, real time.
"""

import random
from collections.abc import Callable
from dataclasses import replace

from tests.simulation.core_storm import Storm
from tests.simulation.core_world import StormyCluster
from tests.simulation.faults import CoreSwarm
from tests.simulation.outcome import Outcome, outcome_of

HEALED_WITHIN_S = 30.0
"""After the repair: some elections of at most a second, and snapshots for whoever lags."""


def recover(cluster: StormyCluster) -> None:
    """Repair all that can be; a leader must come, and all members the same state, in time."""
    cluster.timeline.note("storm", "over: everything is repaired")
    cluster.heal()
    # As on a stream: a snapshot with a doubled piece is begun anew.
    cluster.stragglers = cluster.duplicates = 0.0
    cluster.disk_delay_s, cluster.delay_s = (0.0005, 0.002), (0.001, 0.005)
    for machine in cluster.nodes.values():
        machine.heal_disk()
        if machine.frozen:
            machine.thaw()
        if machine.core is None and machine.name not in cluster.gone:
            machine.start()
    deadline = cluster.now + HEALED_WITHIN_S
    last = b"1" + b"0" * 9

    def settled() -> bool:
        leader = cluster.leader()
        if leader is None:
            return False
        configuration = leader.running.status().configuration
        if configuration.outgoing:
            return False
        members = [cluster.nodes[n] for n in configuration.members if n not in cluster.gone]
        return all(member.applied[-1:] == [last] for member in members)

    while not settled():
        assert cluster.now < deadline, "no agreement in time although everything is repaired"
        leader = cluster.leader()
        if leader is not None and last not in leader.applied:
            cluster.propose(leader, last)
        cluster.run(0.5)
    leader = cluster.leader()
    assert leader is not None
    for name in leader.running.status().configuration.members:
        if name not in cluster.gone:
            cluster.check_state(cluster.nodes[name])
    cluster.check_log_matching()


def run_core(seed: int, show: Callable[[str], None] | None = None) -> Outcome:
    """Run one seed."""
    rng = random.Random(f"core:{seed}")
    swarm = CoreSwarm.draw(rng)
    cluster = StormyCluster(seed, swarm, show)

    def run() -> None:
        cluster.timeline.note("swarm", str(swarm))
        cluster.run(1.0)  # the first configuration is on every disk
        cluster.disk_delay_s, cluster.delay_s = swarm.disk_delay_s, swarm.delay_s
        Storm(cluster, rng).blow()
        recover(cluster)

    outcome = outcome_of("core", seed, cluster.timeline, run)
    outcome.virtual_s = cluster.now
    for sent in cluster.trace:
        cluster.timeline.mix(str(sent))
    outcome.trace_hash = cluster.timeline.digest()
    return outcome


def idle_core(seconds: float) -> StormyCluster:
    """Let three nodes do nothing but elect and stay together; for measuring."""
    calm = replace(
        CoreSwarm.draw(random.Random(0)),
        size=3,
        duplicates=0.0,
        stragglers=0.0,
        clock_spread=0.0,
        snapshot_every=0,
    )
    cluster = StormyCluster(0, calm, None)
    cluster.elect()
    cluster.run(seconds)
    return cluster
