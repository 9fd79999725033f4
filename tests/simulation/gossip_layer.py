"""Gossip of 3 to 100 members in virtual time, under a storm of faults and forgeries.

Enters: a seed. Leaves: an `Outcome`; the checks of `gossip_checks.py` ran all the time.
Never: Trio, real time.
"""

import random
from collections.abc import Callable

from noti.swim.core.timing import SwimConfig
from tests.simulation.gossip_checks import GossipChecks, detection_s, recovery_s
from tests.simulation.gossip_storm import GossipStorm, GossipSwarm, crash_some
from tests.simulation.gossip_world import GossipWorld
from tests.simulation.outcome import Outcome, outcome_of

KEY = bytes(range(32))
"""Of clusters that have one."""


def run_gossip(seed: int, show: Callable[[str], None] | None = None) -> Outcome:
    """Run one seed."""
    rng = random.Random(f"gossip:{seed}")
    swarm = GossipSwarm.draw(rng)
    world = GossipWorld(
        seed,
        swarm.size,
        swarm.config,
        clock_spread=swarm.clock_spread,
        key=KEY if swarm.keyed else None,
        show=show,
    )
    checks = GossipChecks(world, strangers_are_heard=swarm.strangers_are_heard)

    def run() -> None:
        world.timeline.note("swarm", str(swarm))
        world.latency_s, world.loss = swarm.latency_s, swarm.loss
        world.start()
        agree(world, checks, "the first time")
        storm = GossipStorm(world, swarm, checks, rng)
        storm.blow()
        storm.repair()
        agree(world, checks, "after the storm")
        detect(world, checks, rng)
        world.loss = 0.0
        checks.check_idle(30.0)
        for machine in world.machines.values():
            checks.check_memory(machine)

    outcome = outcome_of("gossip", seed, world.timeline, run)
    outcome.virtual_s = world.now
    outcome.trace_hash = world.timeline.digest()
    return outcome


def agree(world: GossipWorld, checks: GossipChecks, when: str) -> None:
    """Wait until all members see each other as they are."""
    within_s = recovery_s(world.config, len(world.machines))
    began_at = world.now
    if not world.run_until(lambda: checks.why_not_settled() is None, within_s):
        raise AssertionError(f"no agreement in {within_s:.0f} s: {checks.why_not_settled()}")
    world.timeline.note("check", f"all agree {when}, after {world.now - began_at:.1f} s")
    checks.check_packets()


def detect(world: GossipWorld, checks: GossipChecks, rng: random.Random) -> None:
    """Kill some; all others must notice in time."""
    world.run(10.0)
    victims = crash_some(world, rng)
    names = ", ".join(victim.name for victim in victims)
    world.timeline.note("check", f"killed {names}")
    within_s = detection_s(world.config, len(world.machines))
    began_at = world.now
    if not world.run_until(lambda: checks.why_not_settled() is None, within_s):
        raise AssertionError(f"not noticed in {within_s:.0f} s: {checks.why_not_settled()}")
    world.timeline.note("check", f"all know after {world.now - began_at:.1f} s")
    checks.check_packets()


def idle_gossip(seconds: float) -> GossipWorld:
    """Let three members do nothing but stay together; for measuring."""
    world = GossipWorld(0, 3, SwimConfig())
    world.start()
    world.run(seconds)
    return world
