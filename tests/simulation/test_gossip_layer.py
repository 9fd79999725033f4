"""Members that only gossip, up to a hundred: what is promised of them, and planted mistakes."""

import math
from collections.abc import Callable

import pytest

from noti.swim.core import newcomers, outbox
from noti.swim.core.exchanges import Exchanges
from noti.swim.core.members import Members
from noti.swim.core.own_state import OwnState
from noti.swim.core.probing import Prober
from noti.swim.core.suspicion import Suspicion
from noti.swim.core.timing import SwimConfig
from noti.swim.core.validate import Incarnations
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


def part_for_long_and_mend() -> None:
    """Cut three members off from three others, until nobody gossips to the others any more."""
    world, checks = world_of(6)
    ips = [machine.ip for machine in world.machines.values()]
    for one in ips[:3]:
        for other in ips[3:]:
            world.cut(one, other)
            world.cut(other, one)
    world.run(120.0)
    assert checks.why_not_settled() is not None
    world.mend()
    agree(world, checks, "again")


def test_members_agree_again_after_a_long_partition() -> None:
    part_for_long_and_mend()


# Mistakes


def never_refutes(patch: pytest.MonkeyPatch) -> None:
    """Who is accused stays what others say of it."""
    patch.setattr(OwnState, "_refute", lambda *_: None)


def believes_any_incarnation(patch: pytest.MonkeyPatch) -> None:
    """Nobody can object to the largest number."""
    patch.setattr(Incarnations, "why_invalid", lambda *_, **__: None)


def hears_no_answers(patch: pytest.MonkeyPatch) -> None:
    """Only who objects in time stays."""
    patch.setattr(Members, "note_ack", lambda *_: None)


def suspects_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A crash is noticed, and nothing comes of it."""
    patch.setattr(Suspicion, "deadline", lambda _: math.inf)


def probes_nobody(patch: pytest.MonkeyPatch) -> None:
    """A crash is not noticed."""
    patch.setattr(Prober, "_next_target", lambda _: None)


def never_dials_the_lost(patch: pytest.MonkeyPatch) -> None:
    """As memberlist alone: after a partition there are two clusters."""
    advance = Exchanges.advance
    patch.setattr(
        Exchanges,
        "advance",
        lambda self, now: [
            order for order in advance(self, now) if not order.join or len(self._members) == 1
        ],
    )


def repeats_for_ever(patch: pytest.MonkeyPatch) -> None:
    """What was broadcast once is broadcast again."""
    patch.setattr(outbox, "retransmit_limit", lambda *_: 10**6)


def asks_inventions_for_ever(patch: pytest.MonkeyPatch) -> None:
    """Whoever is said to be there is asked until it answers."""
    patch.setattr(newcomers, "_QUESTIONS_MAX", 10**9)


MISTAKES = (
    never_refutes,
    believes_any_incarnation,
    hears_no_answers,
    suspects_for_ever,
    probes_nobody,
    repeats_for_ever,
    asks_inventions_for_ever,
)


SEEN_IN = {
    "hears_no_answers": 15,
    "believes_any_incarnation": 8,
    "asks_inventions_for_ever": 9,
    "repeats_for_ever": 2,
}
"""Seeds that come first, as others take long and show nothing; a seed's story may change."""


@promises.CHECKS_FIND_MISTAKES
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_planted_mistake_is_found(
    mistake: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    seeds = (SEEN_IN.get(mistake.__name__, 0), *range(30))
    assert any(run_gossip(seed).failure is not None for seed in seeds)


@promises.CHECKS_FIND_MISTAKES
def test_cluster_that_never_dials_the_lost_is_found_in_two_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never_dials_the_lost(monkeypatch)
    with pytest.raises(AssertionError, match="no agreement"):
        part_for_long_and_mend()
