"""Whole nodes under a storm of faults, in virtual time: the layer for everything around the core.

Enters: a seed. Leaves: an `Outcome`; what nodes said, showed and acknowledged, and what browsers
saw, was checked as it happened (`checks.py`), and once all is repaired the cluster came to rest.
Never: real time, threads.
"""

import random
from collections.abc import Callable, Iterator

import trio

from noti.assembly import LogLimits
from tests.simulation import load
from tests.simulation.deterministic import run_deterministically
from tests.simulation.faults import NodeSwarm
from tests.simulation.node_storm import (
    Storm,
    compare_stores,
    floors_of,
    who_knows_not_who_is_subscribed,
)
from tests.simulation.outcome import Outcome, outcome_of
from tests.simulation.scene import Scene, start_again
from tests.simulation.source_faults import invalid_for
from tests.simulation.timeline import Timeline, in_time
from tests.simulation.world import Settings, SimulatedCluster

LEADER_WITHIN_S = 20.0
"""After the repair: gossip finds everybody again, streams are dialed, some elections."""
HEALED_WITHIN_S = 90.0
"""After the repair: a lost voter is replaced after 15 s, browsers come back from 30 s."""
END_WITHIN_S = 9.0
"""After its disk failed: as after a signal to stop."""


def repair(cluster: SimulatedCluster, swarm: NodeSwarm) -> None:
    """Repair all that can be; processes are still to be started."""
    cluster.mend()
    cluster.net.loss = cluster.net.duplicates = 0.0
    cluster.hub.latency_s = (0.0002, 0.002)
    for stream in cluster.streams:
        stream.loses = stream.holds = lambda: False
        if not stream.up:
            stream.start()
    for machine in cluster.nodes:
        machine.thaw()
        machine.spare()
        machine.disk.answer()
        machine.disk.full = machine.disk.fail_reads = False
        machine.disk.fail_next(None)
        machine.disk.latency_s = (0.0002, 0.002)
        for source in machine.sources.values():
            source.reachable = True
            source.stumbles = lambda at: None
    for browser in cluster.browsers:
        browser.vanish, browser.away_max_s, browser.slow_s = 0.0, 1.0, 0.0


async def recover(cluster: SimulatedCluster, swarm: NodeSwarm) -> None:
    """Repair everything; in time there is a leader, and everybody has everything."""
    cluster.timeline.note("storm", "over: everything is repaired")
    repair(cluster, swarm)
    await trio.sleep(0.5)  # what was to die in a fault dies now
    with in_time(cluster.timeline, END_WITHIN_S, "a node outlived its disk"):
        await cluster.wait_for(
            lambda: all(
                machine.down or not (machine.disk.failed or machine.falls())
                for machine in cluster.nodes
            ),
            END_WITHIN_S,
        )
    for machine in cluster.nodes:
        await start_again(machine)
    with in_time(cluster.timeline, LEADER_WITHIN_S, "no leader"):
        await cluster.wait_for(cluster.leader, LEADER_WITHIN_S)
    cluster.publish(3)
    for stream in cluster.streams:
        cluster.publish_invalid(stream, invalid_for(stream)[0])  # at the end, above all events
    await come_to_rest(cluster)
    if any(browser.gaps for browser in cluster.browsers):
        cluster.timeline.reach("a browser was told of a gap")


async def come_to_rest(cluster: SimulatedCluster) -> None:
    """Return when everybody has everything."""

    def is_at_rest() -> bool:
        return next(_who_lags(cluster), None) is None

    def missing() -> list[str]:
        return list(_who_lags(cluster))

    with in_time(cluster.timeline, HEALED_WITHIN_S, "no agreement", missing):
        await cluster.wait_for(is_at_rest, HEALED_WITHIN_S)
    compare_stores(cluster)
    cluster.check_nothing_is_missing()


def _who_lags(cluster: SimulatedCluster) -> Iterator[str]:
    """What is still to come until the cluster is at rest; what is told by a glance comes first."""
    leader = cluster.leader()
    if leader is None:
        yield "no leader"
        return
    newest = len(cluster.checks.shown)
    for browser in cluster.browsers:
        if browser.position is None or browser.position < newest:
            yield browser.name
    yield from cluster.missing()
    floors = floors_of(cluster, leader.store())
    configuration = leader.consensus().configuration
    if configuration.outgoing:
        yield "a joint configuration"
    ids = {machine.node_id() for machine in cluster.nodes if machine.up}
    yield from (f"lost voter {gone}" for gone in configuration.voters if gone not in ids)
    for machine in cluster.nodes:
        if not machine.up or machine.store().last_seq < newest:
            yield machine.name
        elif machine is not leader and floors_of(cluster, machine.store()) != floors:
            yield f"floors of {machine.name}"
    for stream in cluster.streams:
        if not stream.acknowledges and leader.store().floor(stream.identity) < stream.last_seq:
            yield f"the floor of stream {stream.name}"
        for identity, seq in sorted(cluster.invalid):
            if identity == stream.identity and f"{identity}:{seq}" not in stream.dead_letters:
                yield f"a copy of message {seq}"
    yield from (f"news of deleted message {seq} of {name}" for name, seq in cluster.untold())
    if cluster.settings.subscriptions:
        yield from who_knows_not_who_is_subscribed(cluster)


def settings_of(swarm: NodeSwarm) -> Settings:
    """Return what the swarm means for the world."""
    return Settings(
        history_sizes=swarm.history_sizes,
        token_s=swarm.token_s,
        retention=swarm.retention,
        second_retention=swarm.second_retention,
        history_per_topic=swarm.history_per_topic,
        topics_max=swarm.topics_max,
        log_memory_bytes=swarm.log_memory_bytes,
        browsers=swarm.browsers,
        vanish=swarm.vanish,
        away_max_s=swarm.away_max_s,
        slow_s=swarm.slow_s,
        disk_latency_s=swarm.disk_latency_s,
        rpc_latency_s=swarm.rpc_latency_s,
        packet_loss=swarm.packet_loss,
        clock_spread=swarm.clock_spread,
        hub_sends_bytes_per_s=swarm.hub_sends_bytes_per_s,
        pacing_s=swarm.pacing_s,
        subscriptions=swarm.subscriptions,
        log_limits=LogLimits(
            snapshot_every_bytes=swarm.snapshot_every_bytes,
            keep_entries=swarm.keep_entries,
            keep_bytes=swarm.keep_bytes,
            segment_bytes=swarm.segment_bytes,
        ),
    )


def run_nodes(seed: int, show: Callable[[str], None] | None = None) -> Outcome:
    """Run one seed."""
    rng = random.Random(f"nodes:{seed}")
    swarm = NodeSwarm.draw(rng)
    now = 0.0

    def time() -> float:
        nonlocal now
        now = trio.current_time()
        return now

    timeline = Timeline(time, show)
    hashes: list[str] = []

    async def main() -> None:
        timeline.note("swarm", str(swarm))
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, seed, swarm.size, settings_of(swarm), timeline)
            storm = Storm(Scene(cluster, swarm, rng))
            if swarm.founding_steps:
                await storm.found()
            else:
                await cluster.start()
                with in_time(timeline, LEADER_WITHIN_S, "no leader after the start"):
                    await cluster.wait_for(cluster.leader, LEADER_WITHIN_S)
            await storm.blow()
            await recover(cluster, swarm)
            if swarm.load is not None:
                await load.bear(cluster, swarm.load, rng)
                await come_to_rest(cluster)
            hashes.append(cluster.trace_hash())
            nursery.cancel_scope.cancel()

    def run() -> None:
        with timeline.capture_logs():
            run_deterministically(seed, main)

    outcome = outcome_of("nodes", seed, timeline, run)
    outcome.virtual_s = now
    outcome.trace_hash = (hashes or [timeline.digest()])[0][:32]
    return outcome


def idle_nodes(seconds: float) -> None:
    """Let three whole nodes do nothing but elect and stay together; for measuring."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 0)
            await cluster.start()
            await trio.sleep(seconds)
            nursery.cancel_scope.cancel()

    with Timeline(trio.current_time).capture_logs():
        run_deterministically(0, main)
