"""Claims about others: nobody is taken away who answers, whatever is said about it."""

import math
from dataclasses import replace

import msgpack
import pytest

from noti.swim.core.events import (
    GossipRejected,
    LeaveRequested,
    MemberChanged,
    MembersProtected,
    NameConflict,
    PingByStream,
    StateReceived,
    TagsChanged,
)
from noti.swim.core.messages import (
    INCARNATION_MAX,
    VERSIONS,
    Ack,
    Address,
    Alive,
    Dead,
    MemberState,
    Ping,
    PushPull,
    RemoteNode,
    Suspect,
    User,
)
from noti.swim.core.packets import encode_tags
from noti.swim.core.suspicion import suspicion_min_s
from noti.swim.core.timing import SwimConfig
from noti.swim.core.validate import AHEAD_S_MAX, REFUTATIONS_AHEAD_MAX
from tests import promises
from tests.swim.core.wire import Wire, address

NOW_S = 1_900_000_000
ELSEWHERE = ("203.0.113.9", 9)
LONG_S = 40.0
"""Longer than the longest suspicion and any rumour."""


def cluster(size: int, config: SwimConfig | None = None) -> Wire:
    """Cores n1, n2, … that know each other, with their clock as incarnation."""
    wire = Wire(config)
    for number in range(1, size + 1):
        name = f"n{number}"
        seeds = ["n1"] if number > 1 else []
        wire.add(name, seeds=seeds, tags={"id": f"id of {name}"}, incarnation=NOW_S)
    wire.run(5)
    return wire


def alive(name: str, incarnation: int, at: Address | None = None, **tags: str) -> Alive:
    return Alive(incarnation, name, at or address(name), encode_tags(tags), VERSIONS)


def seen(wire: Wire, name: str, of: str) -> set[str]:
    """Every state in which a core saw a member since the effects were cleared."""
    return {
        effect.member.state.name.lower()
        for _, core, effect in wire.effects
        if isinstance(effect, MemberChanged) and core == name and effect.member.name == of
    }


def asked(wire: Wire, name: str) -> set[str]:
    """Whom a core has pinged."""
    return {each.target for core, _, each in wire.sent if core == name and isinstance(each, Ping)}


def rejected(wire: Wire) -> set[str]:
    return {effect.reason for _, _, effect in wire.effects if isinstance(effect, GossipRejected)}


@promises.FORGED_GOSSIP_HARMS_NOBODY
@pytest.mark.parametrize("claim", [Suspect, Dead])
@pytest.mark.parametrize("incarnation", [INCARNATION_MAX, INCARNATION_MAX - 1, 3_000_000_000])
def test_claim_that_nobody_could_refute_is_rejected_and_counted(
    claim: type[Suspect] | type[Dead], incarnation: int
) -> None:
    wire = cluster(3)
    wire.effects.clear()
    for name in wire.cores:
        wire.deliver(name, claim(incarnation, "n2", "n1"))
    wire.run(LONG_S)
    assert rejected(wire) == {"incarnation"}
    assert not seen(wire, "n1", of="n2")
    assert wire.cores["n2"].members()[1].incarnation == NOW_S


@pytest.mark.parametrize("ahead", [0, 1, 1000, 2**28])
@pytest.mark.parametrize("claim", [Suspect, Dead])
def test_member_that_answers_refutes_a_valid_claim(
    claim: type[Suspect] | type[Dead], ahead: int
) -> None:
    wire = cluster(3)
    wire.effects.clear()
    wire.deliver("n1", claim(NOW_S + ahead, "n2", "n3"))
    wire.run(1)
    assert seen(wire, "n1", of="n2") <= {"suspect", "alive"}
    assert wire.view("n1")["n2"] == "alive"
    assert wire.cores["n1"].members()[1].incarnation == NOW_S + ahead + 1


def test_member_that_answers_stays_although_its_refutations_are_lost() -> None:
    wire = Wire()
    wire.add("n1")
    wire.deliver("n1", alive("n2", 5))
    wire.run(0.01)
    wire.effects.clear()
    wire.deliver("n1", Suspect(5, "n2", "n9"), Dead(5, "n2", "n9"))
    answer_pings(wire, LONG_S)
    assert seen(wire, "n1", of="n2") == {"suspect", "alive"}


def answer_pings(wire: Wire, duration_s: float) -> None:
    """Let n2, which is no core, answer every ping and say nothing else."""
    end = wire.now + duration_s
    while wire.now < end:
        pings = [each for _, to, each in wire.sent if to == address("n2")]
        wire.sent.clear()
        for message in pings:
            if isinstance(message, Ping):
                wire.deliver("n1", Ack(message.sequence, None), source=address("n2"))
        wire.run(0.05)


def test_member_that_answers_has_not_left_whatever_is_claimed() -> None:
    wire = Wire()
    wire.add("n1")
    wire.deliver("n1", alive("n2", 5))
    wire.run(0.01)
    wire.effects.clear()
    wire.deliver("n1", Dead(5, "n2", "n2"))
    answer_pings(wire, LONG_S)
    assert not seen(wire, "n1", of="n2")


def test_member_that_leaves_is_left_at_once_although_it_still_answers_probes() -> None:
    wire = cluster(3)
    wire.give("n2", LeaveRequested())
    wire.run(1.0)
    assert wire.view("n1")["n2"] == "left"
    assert wire.view("n3")["n2"] == "left"


def test_silent_member_that_is_claimed_to_be_dead_is_dead_within_a_probe() -> None:
    wire = cluster(5)
    wire.stopped.add("n2")
    wire.deliver("n1", Dead(NOW_S, "n2", "n9"))
    wire.run(wire.config.probe_interval_s + 0.01)
    assert wire.view("n1")["n2"] == "dead"


def test_living_member_is_not_moved_by_what_strangers_claim() -> None:
    wire = Wire()
    wire.add("n1")
    wire.deliver("n1", alive("n2", 5, id="id of n2"))
    wire.run(0.01)
    wire.effects.clear()
    wire.deliver("n1", alive("n2", 6, ELSEWHERE, id="id of n2"))
    answer_pings(wire, LONG_S)
    conflicts = [each for _, _, each in wire.effects if isinstance(each, NameConflict)]
    assert conflicts == [NameConflict("n2", address("n2"), ELSEWHERE)]
    assert wire.cores["n1"].members()[1].address == address("n2")


def test_tags_that_a_member_does_not_have_are_corrected_by_it() -> None:
    wire = cluster(3)
    wire.deliver("n1", alive("n2", NOW_S + 5, id="id of n2", rpc="203.0.113.9:1"))
    wire.run(0.01)
    assert wire.cores["n1"].members()[1].tags == {"id": "id of n2"}


@promises.FORGED_GOSSIP_HARMS_NOBODY
def test_members_are_bounded_and_new_ones_displace_no_present_one() -> None:
    config = replace(SwimConfig.local(), members_max=20)
    wire = cluster(3, config)
    for number in range(50):
        wire.deliver("n1", alive(f"x{number}", 1))
    assert len(wire.view("n1")) == 20
    assert {"n1", "n2", "n3"} < wire.view("n1").keys()
    nodes = tuple(
        RemoteNode(f"y{number}", ELSEWHERE, b"", 1, MemberState.ALIVE, VERSIONS)
        for number in range(4000)
    )
    wire.effects.clear()
    wire.give("n1", StateReceived(PushPull(True, nodes, b"")))
    assert len(wire.view("n1")) == 20
    assert {"n1", "n2", "n3"} < wire.view("n1").keys()
    assert rejected(wire) == {"members"}


def test_real_member_finds_room_among_invented_ones() -> None:
    wire = cluster(2, replace(SwimConfig.local(), members_max=10))
    for number in range(50):
        wire.deliver("n1", alive(f"x{number}", 1, ELSEWHERE), invented=True)
    wire.add("n9", seeds=["n1"], incarnation=NOW_S)
    wire.run(5)
    assert wire.view("n1") == {"n1": "alive", "n2": "alive", "n9": "alive"}


def test_invented_members_are_forgotten_soon_and_real_ones_are_kept() -> None:
    wire = cluster(3)
    wire.deliver("n1", alive("x1", 1, ELSEWHERE), invented=True)
    wire.stopped.add("n3")
    wire.run(2 * wire.config.push_pull_interval_s + wire.config.gossip_to_dead_s + 20)
    assert wire.view("n1") == {"n1": "alive", "n2": "alive", "n3": "dead"}


def test_member_that_speaks_no_version_of_ours_keeps_nobody_out() -> None:
    wire = cluster(2)
    wire.deliver("n1", Alive(1, "x1", ELSEWHERE, b"", bytes([9, 9, 9, 9, 9, 9])))
    assert "x1" not in wire.view("n1")
    assert rejected(wire) == {"versions"}
    wire.add("n3", seeds=["n1"], incarnation=NOW_S)
    wire.run(2)
    assert wire.view("n1")["n3"] == "alive"


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("time", [2**25, 2**62, 2**62 + 1])
def test_lamport_time_that_nobody_counted_up_to_is_rejected(kind: int, time: int) -> None:
    wire = cluster(3)
    body = msgpack.packb({"LTime": time, "Node": "n2"}, use_bin_type=False)
    wire.effects.clear()
    wire.deliver("n1", User(bytes([kind]) + body))
    assert rejected(wire) == {"Serf message"}
    wire.give("n2", LeaveRequested())
    wire.run(1)
    assert wire.view("n1")["n2"] == "left", "its own intent still counts"


def test_member_that_never_answered_is_broadcast_to_no_other() -> None:
    wire = cluster(3)
    wire.deliver("n1", alive("x1", 1, ELSEWHERE), invented=True)
    assert "x1" not in wire.view("n1")
    assert "x1" not in {node.name for node in wire.cores["n1"].state(join=False).nodes}
    wire.run(2 * wire.config.probe_interval_s)
    assert "x1" not in wire.view("n2")
    assert "x1" not in wire.view("n3")


def test_inventions_wait_for_those_before_them_and_leave_room_for_a_real_one() -> None:
    config = replace(SwimConfig.local(), unacked_max=5)
    wire = cluster(2, config)
    for number in range(20):
        wire.deliver("n1", alive(f"x{number}", 1, ELSEWHERE), invented=True)
    assert asked(wire, "n1") - {"n2"} == {"x0", "x1", "x2", "x3", "x4"}
    wire.add("n9", seeds=["n1"], incarnation=NOW_S)
    wire.run(5)
    assert wire.view("n1")["n9"] == "alive"
    assert wire.view("n2")["n9"] == "alive"


# Going and coming back


def test_member_that_left_and_returns_with_other_tags_is_alive_with_these() -> None:
    wire = cluster(3)
    for number in range(3):
        wire.give("n3", LeaveRequested())
        wire.run(1.5)
        assert wire.view("n1")["n3"] == wire.view("n2")["n3"] == "left"
        tags = {"id": "id of n3", "visit": str(number)}
        wire.add("n3", seeds=["n1"], tags=tags, incarnation=NOW_S + int(wire.now))
        wire.run(3)
        for name in ("n1", "n2"):
            assert wire.view(name)["n3"] == "alive"
            assert wire.cores[name].members()[2].tags == tags


@pytest.mark.parametrize("incarnation", [1, NOW_S + 2000])
def test_member_that_failed_and_returns_to_its_address_is_alive(incarnation: int) -> None:
    wire = cluster(3)
    wire.stopped.add("n3")
    wire.run(30)
    assert wire.view("n1")["n3"] == "dead"
    wire.stopped.clear()
    wire.add("n3", seeds=["n1"], tags={"id": "id of n3"}, incarnation=incarnation)
    wire.run(5)
    assert wire.view("n1")["n3"] == wire.view("n2")["n3"] == "alive"


def forgotten_at(wire: Wire, name: str, within_s: float) -> float | None:
    """When n1 forgot a member, in steps of a minute."""
    for _ in range(math.ceil(within_s / 60)):
        wire.run(60)
        if name not in wire.view("n1"):
            return wire.now
    return None


def test_member_that_left_is_forgotten_after_an_hour_and_not_before() -> None:
    wire = cluster(1)
    wire.deliver("n1", alive("n2", 5))
    wire.deliver("n1", Dead(5, "n2", "n2"))
    left_at = wire.now
    at = forgotten_at(wire, "n2", 2 * 3600)
    assert at is not None
    assert 3600 < at - left_at < 3600 + 180


def test_member_that_failed_is_forgotten_after_its_time_and_not_before() -> None:
    assert SwimConfig().forget_after_s == 24 * 3600
    wire = cluster(1, replace(SwimConfig.local(), forget_after_s=7200))
    wire.deliver("n1", alive("n2", 5))
    failed_at = wire.now
    at = forgotten_at(wire, "n2", 3 * 3600)
    assert at is not None
    assert 7200 < at - failed_at < 7200 + 180


def test_member_that_returns_in_time_is_not_forgotten_for_its_absence_before() -> None:
    wire = cluster(2)
    wire.give("n2", LeaveRequested())
    wire.run(3500)
    assert wire.view("n1")["n2"] == "left"
    wire.add("n2", seeds=["n1"], tags={"id": "id of n2"}, incarnation=NOW_S + int(wire.now))
    wire.run(600)
    assert wire.view("n1")["n2"] == "alive"


@pytest.mark.parametrize("accuser", ["n2", "n9"], ids=["left", "failed"])
def test_node_of_the_cluster_is_never_forgotten(accuser: str) -> None:
    wire = cluster(1, replace(SwimConfig.local(), forget_after_s=600, left_forget_s=600))
    wire.give("n1", MembersProtected({"id of n2": ""}))
    wire.deliver("n1", alive("n2", 5, id="id of n2"), alive("n3", 5, id="id of n3"))
    wire.deliver("n1", Dead(5, "n2", accuser), Dead(5, "n3", accuser))
    assert forgotten_at(wire, "n3", 800) is not None
    wire.run(1800)
    assert "n2" in wire.view("n1")


def test_node_that_was_lost_with_the_highest_incarnation_can_return() -> None:
    """Its accusers name an incarnation that no accusation may have, and it must refute that."""
    wire = cluster(3)
    highest = NOW_S + AHEAD_S_MAX + REFUTATIONS_AHEAD_MAX - 100
    for name in ("n1", "n2"):
        wire.deliver(name, alive("n3", highest, id="id of n3"), source=address("n3"))
    wire.run(2)
    wire.stopped.add("n3")
    wire.run(LONG_S)
    assert wire.view("n1")["n3"] == "dead"
    assert wire.cores["n1"].members()[2].incarnation >= highest
    wire.stopped.remove("n3")
    wire.add("n3", seeds=["n1"], tags={"id": "id of n3"}, incarnation=NOW_S + 60)
    wire.run(20)
    assert [wire.view(name)["n3"] for name in wire.cores] == ["alive"] * 3


def cluster_with_a_fast_clock(ahead_s: int) -> Wire:
    """Two nodes, and n3 whose clock is ahead, and which a stranger made say what that allows."""
    wire = cluster(2)
    wire.add("n3", seeds=["n1"], tags={"id": "id of n3"}, incarnation=NOW_S + ahead_s)
    wire.run(5)
    highest = NOW_S + ahead_s + AHEAD_S_MAX + REFUTATIONS_AHEAD_MAX
    wire.deliver("n3", Suspect(highest, "n3", "n1"))
    wire.add("n4", seeds=["n1"], tags={"id": "id of n4"}, incarnation=NOW_S)
    wire.run(10)
    return wire


def test_node_that_a_stranger_made_say_too_much_is_believed_once_other_clocks_are_there() -> None:
    wire = cluster_with_a_fast_clock(60)
    assert "n3" not in wire.view("n4")
    wire.run(90)
    assert [wire.view(name)["n3"] for name in wire.cores] == ["alive"] * 4
    assert len({wire.cores[name].members()[2].incarnation for name in wire.cores}) == 1


def test_node_that_a_stranger_made_say_too_much_returns_with_its_clock_set_right() -> None:
    """Until then newcomers do not let it in, and say why. Found by: just sim seed=50073"""
    wire = cluster_with_a_fast_clock(3 * 365 * 86_400)
    wire.run(60)
    assert "n3" not in wire.view("n4")
    assert any(
        name == "n4" and isinstance(effect, GossipRejected) and "of n3" in effect.text
        for _, name, effect in wire.effects
    )
    wire.add("n3", seeds=["n1"], tags={"id": "id of n3"}, incarnation=NOW_S + 60)
    wire.run(40)
    assert [wire.view(name)["n3"] for name in wire.cores] == ["alive"] * 4


def test_suspicion_of_a_member_with_the_highest_incarnation_is_heard() -> None:
    """Or each member would have to find out by itself, and nobody could confirm it."""
    wire = cluster(3)
    highest = NOW_S + AHEAD_S_MAX + REFUTATIONS_AHEAD_MAX - 100
    wire.deliver("n1", alive("n3", highest, id="id of n3"), source=address("n3"))
    wire.run(2)
    wire.stopped.add("n3")
    incarnation = wire.cores["n1"].members()[2].incarnation
    assert incarnation >= highest
    wire.deliver("n1", Suspect(incarnation, "n3", "n2"))
    assert wire.view("n1")["n3"] == "suspect"


def test_one_blocked_cable_hides_no_change_of_a_member() -> None:
    wire = cluster(3)
    wire.passes_udp = lambda sender, receiver: {sender, receiver} != {"n1", "n2"}
    wire.passes_tcp = wire.passes_udp
    wire.give("n2", TagsChanged({"id": "id of n2", "new": "tag"}))
    wire.run(20)
    assert wire.cores["n1"].members()[1].tags == {"id": "id of n2", "new": "tag"}
    wire.give("n2", LeaveRequested())
    wire.run(2)
    assert wire.view("n1")["n2"] == "left"
    tags = {"id": "id of n2"}
    wire.add("n2", seeds=["n3"], tags=tags, incarnation=NOW_S + int(wire.now))
    wire.run(60)
    assert wire.view("n1")["n2"] == "alive"
    assert wire.cores["n1"].members()[1].tags == tags


def test_member_that_only_tcp_reaches_shows_its_new_tags() -> None:
    wire = cluster(2)
    wire.passes_udp = lambda sender, receiver: False
    wire.give("n2", TagsChanged({"id": "id of n2", "new": "tag"}))
    wire.run(40)
    assert wire.cores["n1"].members()[1].tags == {"id": "id of n2", "new": "tag"}


@pytest.mark.parametrize("accuser", ["n2", "n9"], ids=["left", "dead"])
def test_member_whose_answers_are_lost_is_asked_over_tcp_before_a_claim_counts(
    accuser: str,
) -> None:
    wire = cluster(2, SwimConfig())
    wire.passes_udp = lambda sender, receiver: False
    wire.effects.clear()
    wire.deliver("n1", Dead(wire.cores["n1"].members()[1].incarnation, "n2", accuser))
    wire.run(1.5)
    assert seen(wire, "n1", "n2") <= {"alive", "suspect"}
    assert wire.view("n1")["n2"] == "alive"


# To the moment


def suspected_by_one() -> Wire:
    """One core, n1, which knows thirteen members and just heard n3 accuse n2."""
    wire = Wire(SwimConfig())
    wire.add("n1", incarnation=10)
    for number in range(2, 14):
        wire.deliver("n1", alive(f"n{number}", 5))
    wire.deliver("n1", Suspect(5, "n2", "n3"))
    assert wire.view("n1")["n2"] == "suspect"
    return wire


def test_suspicion_that_has_lasted_long_enough_ends_at_once_when_others_share_it() -> None:
    wire = suspected_by_one()
    wire.run(suspicion_min_s(4, 13, 1.0) + 0.05)
    assert wire.view("n1")["n2"] == "suspect"
    wire.deliver("n1", Suspect(5, "n2", "n4"), Suspect(5, "n2", "n5"))
    wire.run(0.0)
    assert wire.view("n1")["n2"] == "dead"


def test_suspicion_that_has_lasted_long_enough_ends_at_once_when_another_says_dead() -> None:
    wire = suspected_by_one()
    wire.run(wire.config.probe_interval_s + 0.05)
    assert wire.view("n1")["n2"] == "suspect"
    wire.deliver("n1", Dead(5, "n2", "n4"))
    wire.run(0.0)
    assert wire.view("n1")["n2"] == "dead"


def test_member_that_is_claimed_dead_stays_while_it_is_reached_over_tcp() -> None:
    wire = cluster(2)
    wire.passes_udp = lambda sender, receiver: False
    wire.effects.clear()
    for _ in range(20):
        wire.deliver("n1", Dead(wire.cores["n1"].members()[1].incarnation, "n2", "n3"))
        wire.run(3.3)
    assert "dead" not in seen(wire, "n1", of="n2")


def test_suspect_whose_packets_are_lost_is_asked_over_tcp_again_and_again() -> None:
    wire = cluster(3, SwimConfig())
    wire.passes_udp = lambda sender, receiver: {sender, receiver} != {"n1", "n2"}
    wire.stopped.add("n2")
    incarnation = wire.cores["n1"].members()[1].incarnation
    wire.deliver("n1", Suspect(incarnation, "n2", "n9"))
    wire.run(1.5)
    wire.effects.clear()
    wire.run(2.0)
    asked = [e.node for _, name, e in wire.effects if isinstance(e, PingByStream) and name == "n1"]
    assert "n2" in asked
