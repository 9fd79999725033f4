"""Members that only gossip, up to a hundred: what is promised of them, and planted mistakes."""

import pytest

from noti.swim.core.timing import SwimConfig
from tests import promises
from tests.simulation.gossip_checks import GossipChecks
from tests.simulation.gossip_layer import agree, run_gossip
from tests.simulation.gossip_world import GossipWorld


@promises.FORGED_GOSSIP_HARMS_NOBODY
@pytest.mark.parametrize("seed", range(10))
def test_members_keep_their_promises_through_storms_and_forgeries(seed: int) -> None:
    outcome = run_gossip(seed)
    assert outcome.failure is None, outcome.report()


def world_of(size: int, config: SwimConfig | None = None) -> tuple[GossipWorld, GossipChecks]:
    """Members that know each other."""
    world = GossipWorld(1, size, config or SwimConfig.local())
    checks = GossipChecks(world)
    world.start()
    agree(world, checks, "at first")
    return world, checks


def test_sixty_members_agree_notice_a_crash_and_then_are_silent() -> None:
    world, checks = world_of(60, SwimConfig())
    world.machines["n30"].crash()
    assert world.run_until(lambda: checks.why_not_settled() is None, 30.0)
    world.run(20.0)
    checks.check_packets()
    checks.check_idle(10.0)


def test_member_whose_udp_is_blocked_stays_alive_for_all() -> None:
    world, checks = world_of(5)
    alone = world.machines["n3"]
    for machine in world.machines.values():
        if machine is not alone:
            world.cut_udp(alone.ip, machine.ip)
    for _ in range(60):
        world.run(1.0)
        assert not any("dead" in line or "left" in line for line in world.timeline.lines)
    world.mend()
    agree(world, checks, "at last")
