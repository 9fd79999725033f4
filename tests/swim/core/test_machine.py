"""The gossip core: what it believes, what it answers, whom it accuses."""

from itertools import pairwise

import pytest

from noti.swim.core.events import (
    Effect,
    ExchangeState,
    GossipRejected,
    LeaveFinished,
    LeaveRequested,
    MemberChanged,
    NameConflict,
    OtherCluster,
    PacketUnsendable,
    PingByStream,
    ReachedByStreamOnly,
    Refuted,
    TagsChanged,
    TimerExpired,
)
from noti.swim.core.messages import (
    VERSIONS,
    VERSIONS_UNKNOWN,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    MemberState,
    Nack,
    Ping,
    PushPull,
    RemoteNode,
    Suspect,
    User,
)
from noti.swim.core.packets import encode_tags
from noti.swim.core.timing import SwimConfig
from tests.swim.core.wire import Wire, address


def cluster(size: int, config: SwimConfig | None = None) -> Wire:
    """Cores n1, n2, … that know each other."""
    wire = Wire(config)
    for number in range(1, size + 1):
        wire.add(f"n{number}", seeds=["n1"] if number > 1 else [])
    wire.run(5)
    everyone = {f"n{number}": "alive" for number in range(1, size + 1)}
    assert all(wire.view(name) == everyone for name in wire.cores)
    return wire


def alive(name: str, incarnation: int = 1, at: Address | None = None, **tags: str) -> Alive:
    return Alive(incarnation, name, at or address(name), encode_tags(tags), VERSIONS)


def remote(name: str, state: MemberState, versions: bytes = VERSIONS, **tags: str) -> RemoteNode:
    return RemoteNode(name, address(name), encode_tags(tags), 1, state, versions)


def one() -> Wire:
    """One core, n1, which knows n2."""
    wire = Wire()
    wire.add("n1", incarnation=10)
    wire.deliver("n1", alive("n2", 5))
    return wire


def gone(wire: Wire, claim: Dead) -> Wire:
    """Let `n2`, which answers nothing, be said to be gone, and wait until that is believed."""
    wire.deliver("n1", claim)
    wire.run(1.1)
    assert wire.view("n1")["n2"] == ("left" if claim.accuser == claim.node else "dead")
    return wire


def of_type(wire: Wire, kind: type[Effect]) -> list[Effect]:
    return [effect for _, _, effect in wire.effects if isinstance(effect, kind)]


# Answering


def test_ping_is_answered_and_ping_for_another_name_is_not() -> None:
    wire = one()
    source = address("n2")
    answer = wire.acks(wire.deliver("n1", Ping(7, "n1", None, ""), source=source))
    assert answer == [(source, 7)]
    assert wire.acks(wire.deliver("n1", Ping(8, "", None, ""), source=source)) == [(source, 8)]
    assert wire.deliver("n1", Ping(9, "n3", None, ""), source=source) == []


def test_ack_goes_where_a_member_asks_for_it_but_never_to_a_stranger() -> None:
    wire = one()
    behind_nat = ("192.0.2.1", 999)
    to_member = wire.deliver("n1", Ping(1, "n1", address("n2"), "n2"), source=behind_nat)
    assert wire.acks(to_member) == [(address("n2"), 1)]
    victim = ("203.0.113.9", 53)
    forged = wire.deliver("n1", Ping(2, "n1", victim, "x"), source=behind_nat)
    assert wire.messages(forged) == [(behind_nat, Ack(2, None))]


def test_indirect_ping_is_relayed_and_its_ack_returned_under_the_requesters_number() -> None:
    wire = cluster(3)
    request = IndirectPing(77, "n3", address("n3"), True, address("n1"), "n1")
    wire.deliver("n2", request, source=address("n1"))
    wire.sent.clear()
    wire.run(0.1)
    assert ("n2", address("n1"), Ack(77, None)) in wire.sent
    wire.run(1)
    assert ("n2", address("n1"), Nack(77)) not in wire.sent


@pytest.mark.parametrize("wanted", [True, False])
def test_nack_is_sent_for_a_silent_target_when_it_is_wanted(wanted: bool) -> None:
    wire = cluster(3)
    wire.stopped.add("n3")
    request = IndirectPing(77, "n3", address("n3"), wanted, address("n1"), "n1")
    wire.deliver("n2", request, source=address("n1"))
    wire.run(wire.config.probe_timeout_s + 0.01)
    assert (("n2", address("n1"), Nack(77)) in wire.sent) is wanted


def test_indirect_ping_of_a_stranger_is_ignored() -> None:
    wire = one()
    request = IndirectPing(77, "n2", address("n2"), True, None, "")
    assert wire.deliver("n1", request, source=("203.0.113.9", 53)) == []


# Probing


def test_silent_member_is_suspected_then_dead_within_its_time() -> None:
    wire = cluster(3)
    wire.stopped.add("n3")
    wire.run(2.5 * wire.config.probe_interval_s)
    assert wire.view("n1")["n3"] == "suspect"
    # Three members cannot confirm: the shortest suspicion applies.
    wire.run(wire.config.suspicion_multiplier * wire.config.probe_interval_s + 0.5)
    assert wire.view("n1")["n3"] == "dead"
    assert wire.view("n2")["n3"] == "dead"


def test_udp_blocked_between_two_members_is_bridged_by_a_third() -> None:
    wire = cluster(3)
    wire.passes_udp = lambda sender, receiver: {sender, receiver} != {"n1", "n2"}
    wire.passes_tcp = wire.passes_udp
    wire.effects.clear()
    wire.run(60)
    assert not of_type(wire, MemberChanged)


def test_udp_blocked_everywhere_is_bridged_by_tcp_and_logged() -> None:
    wire = cluster(2)
    wire.passes_udp = lambda sender, receiver: False
    wire.effects.clear()
    wire.run(60)
    assert not of_type(wire, MemberChanged)
    assert ReachedByStreamOnly("n2", address("n2")) in of_type(wire, ReachedByStreamOnly)


def test_target_that_does_not_speak_tcp_pings_gets_none() -> None:
    wire = Wire()
    wire.add("n1")
    old = bytes([1, 2, 2, 2, 5, 5])
    wire.deliver("n1", Alive(1, "n2", address("n2"), b"", old))
    wire.run(3)
    assert wire.view("n1")["n2"] == "suspect"
    assert not of_type(wire, PingByStream)


def test_ping_that_cannot_be_sent_makes_others_be_asked_at_once() -> None:
    wire = cluster(3)
    while True:
        effects = wire.give("n1", TimerExpired())
        pings = [to for to, message in wire.messages(effects) if isinstance(message, Ping)]
        if pings:
            break
        wire.now = wire.cores["n1"].deadline()
    asked = wire.messages(wire.give("n1", PacketUnsendable(pings[0])))
    assert any(isinstance(message, IndirectPing) for _, message in asked)


def test_lone_core_probes_nobody() -> None:
    wire = Wire()
    wire.add("n1")
    wire.run(60)
    assert wire.sent == []


def test_probed_suspect_receives_the_accusation_with_the_ping() -> None:
    wire = one()
    wire.deliver("n1", Suspect(5, "n2", "n9"))
    wire.run(1.1)
    to_suspect = [message for _, to, message in wire.sent if to == address("n2")]
    assert Suspect(5, "n2", "n1") in to_suspect


def test_every_member_is_probed_once_in_a_round() -> None:
    wire = cluster(5)
    wire.sent.clear()
    wire.run(8 * wire.config.probe_interval_s + 0.5)
    targets = [
        message.target
        for name, _, message in wire.sent
        if name == "n1" and isinstance(message, Ping)
    ]
    # Eight probes hold at least one whole round of four, wherever it begins.
    assert len(targets) == 8
    assert set(targets) == {"n2", "n3", "n4", "n5"}


# Believing


def test_new_member_is_announced_and_the_same_news_is_not() -> None:
    wire = one()
    assert wire.view("n1") == {"n1": "alive", "n2": "alive"}
    assert not [e for e in wire.deliver("n1", alive("n2", 5)) if isinstance(e, MemberChanged)]


def test_changed_tags_of_a_newer_incarnation_are_taken_and_older_ones_are_not() -> None:
    wire = one()
    changed = wire.deliver("n1", alive("n2", 6, role="db"))
    assert [e.member.tags for e in changed if isinstance(e, MemberChanged)] == [{"role": "db"}]
    assert not wire.deliver("n1", alive("n2", 6, role="web"))


@pytest.mark.parametrize("versions", [VERSIONS_UNKNOWN, bytes([3, 2, 2, 2, 5, 5])])
def test_alive_with_impossible_versions_is_ignored(versions: bytes) -> None:
    wire = one()
    wire.deliver("n1", Alive(1, "n3", address("n3"), b"", versions))
    assert "n3" not in wire.view("n1")


def test_suspect_is_cleared_by_its_next_incarnation_only() -> None:
    wire = one()
    wire.deliver("n1", Suspect(5, "n2", "n9"))
    wire.deliver("n1", alive("n2", 5))
    assert wire.view("n1")["n2"] == "suspect"
    wire.deliver("n1", alive("n2", 6))
    assert wire.view("n1")["n2"] == "alive"


@pytest.mark.parametrize("claim", [Suspect, Dead])
def test_claim_about_an_old_incarnation_or_a_stranger_is_ignored(
    claim: type[Suspect] | type[Dead],
) -> None:
    wire = one()
    assert wire.deliver("n1", claim(4, "n2", "n9")) == []
    assert wire.deliver("n1", claim(4, "n7", "n9")) == []
    assert wire.view("n1") == {"n1": "alive", "n2": "alive"}


@pytest.mark.parametrize("claim", [Suspect, Dead])
def test_claim_about_ourselves_is_refuted_with_a_higher_incarnation(
    claim: type[Suspect] | type[Dead],
) -> None:
    wire = one()
    assert Refuted("n9") in wire.deliver("n1", claim(20, "n1", "n9"))
    assert wire.cores["n1"].members()[0].incarnation == 21
    wire.run(1)
    announced = [m.incarnation for _, _, m in wire.sent if isinstance(m, Alive) and m.node == "n1"]
    assert set(announced) == {21}


def test_dead_member_stays_dead_when_its_old_news_is_replayed() -> None:
    wire = gone(one(), Dead(5, "n2", "n9"))
    wire.deliver("n1", alive("n2", 5))
    assert wire.view("n1")["n2"] == "dead"
    wire.deliver("n1", Suspect(5, "n2", "n9"), Dead(5, "n2", "n9"))
    assert wire.view("n1")["n2"] == "dead"


def test_dead_member_that_is_back_with_an_old_incarnation_is_sent_the_claim() -> None:
    wire = gone(one(), Dead(5, "n2", "n9"))
    answer = wire.messages(wire.deliver("n1", alive("n2", 1), source=address("n2")))
    assert (address("n2"), Dead(5, "n2", "n1")) in answer


def test_member_that_accuses_itself_has_left() -> None:
    wire = one()
    wire.deliver("n1", Dead(5, "n2", "n2"))
    assert wire.view("n1")["n2"] == "alive", "it may object"
    wire.run(wire.config.probe_interval_s)
    assert wire.view("n1")["n2"] == "left"


def test_confirmed_suspicion_is_shorter() -> None:
    def death_s(confirmations: int) -> float:
        wire = Wire(SwimConfig())
        wire.add("n1")
        wire.deliver("n1", *(alive(f"n{number}") for number in range(2, 9)))
        accusers = [f"n{number}" for number in range(3, 4 + confirmations)]
        wire.deliver("n1", *(Suspect(1, "n2", accuser) for accuser in accusers))
        began_at = wire.now
        while wire.view("n1")["n2"] != "dead":
            wire.now = wire.cores["n1"].deadline()
            wire.cores["n1"].handle(TimerExpired(), wire.now)
        return wire.now - began_at

    # Without others, the only confirmation is our own failed probe.
    assert death_s(0) > death_s(2)
    # Eight members: log10 is below one, so the shortest is four probe intervals.
    assert 4.0 <= death_s(2) < 4.5


# Names, addresses, clusters


def test_second_node_of_a_living_members_name_is_a_conflict() -> None:
    wire = one()
    effects = wire.deliver("n1", alive("n2", 9, ("10.0.0.99", 1), id="other"))
    assert effects == [NameConflict("n2", address("n2"), ("10.0.0.99", 1))]
    assert wire.cores["n1"].members()[1].address == address("n2")


@pytest.mark.parametrize("claim", [Dead(5, "n2", "n9"), Dead(5, "n2", "n2")])
def test_name_of_a_dead_or_gone_member_is_free_for_another_address(claim: Dead) -> None:
    wire = gone(one(), claim)
    wire.deliver("n1", alive("n2", 1, ("10.0.0.99", 1)))
    assert wire.cores["n1"].members()[1].address == ("10.0.0.99", 1)
    assert wire.view("n1")["n2"] == "alive"


def test_living_member_moves_when_it_has_the_same_id_and_is_newer() -> None:
    wire = Wire()
    wire.add("n1")
    wire.deliver("n1", alive("n2", 5, id="a"))
    wire.deliver("n1", alive("n2", 6, ("10.0.0.99", 1), id="a"))
    assert wire.cores["n1"].members()[1].address == address("n2"), "it is asked first"
    wire.run(wire.config.probe_timeout_s)
    assert wire.cores["n1"].members()[1].address == ("10.0.0.99", 1)
    assert wire.deliver("n1", alive("n2", 5, id="a")) == []
    assert wire.cores["n1"].members()[1].address == ("10.0.0.99", 1)


def test_other_node_with_our_name_is_a_conflict_and_our_own_past_is_not() -> None:
    wire = Wire()
    wire.add("n1", incarnation=10, tags={"id": "mine"})
    conflict = NameConflict("n1", address("n1"), ("10.0.0.99", 1))
    assert wire.deliver("n1", alive("n1", 50, ("10.0.0.99", 1), id="other")) == [conflict]
    assert wire.cores["n1"].members()[0].incarnation == 10
    assert wire.deliver("n1", alive("n1", 9, ("10.0.0.99", 1), id="mine")) == []
    wire.deliver("n1", alive("n1", 50, id="of the data directory before"))
    assert wire.cores["n1"].members()[0].incarnation == 51


def test_member_of_another_cluster_is_ignored_and_reported() -> None:
    wire = Wire()
    wire.add("n1", tags={"cluster": "ours"})
    theirs = OtherCluster("n2", address("n2"), "theirs")
    assert wire.deliver("n1", alive("n2", cluster="theirs")) == [theirs]
    nodes = (
        remote("n1", MemberState.DEAD, cluster="theirs"),
        remote("n3", MemberState.ALIVE, cluster="ours"),
        remote("n4", MemberState.ALIVE),
    )
    effects = wire.merge("n1", PushPull(True, nodes, b""))
    assert OtherCluster("n1", address("n1"), "theirs") in effects
    assert Refuted("n1") not in effects
    assert wire.view("n1") == {"n1": "alive", "n3": "alive", "n4": "alive"}


# Full states


def test_merge_makes_the_dead_suspect_and_the_gone_left() -> None:
    wire = Wire()
    wire.add("n1")
    wire.deliver("n1", *(alive(name) for name in ("n2", "n3", "n4")))
    nodes = (
        remote("n2", MemberState.DEAD),
        remote("n3", MemberState.LEFT),
        remote("n4", MemberState.SUSPECT),
        remote("n5", MemberState.ALIVE),
        remote("n6", MemberState.DEAD),
    )
    wire.merge("n1", PushPull(False, nodes, b""))
    wire.run(wire.config.probe_interval_s)
    expected = {"n1": "alive", "n2": "suspect", "n3": "left", "n4": "suspect", "n5": "alive"}
    assert wire.view("n1") == expected


@pytest.mark.parametrize(
    ("versions", "accepted"),
    [
        (VERSIONS, True),
        (bytes([1, 5, 5, 2, 5, 5]), True),
        (bytes([1, 5, 2, 2, 5, 4]), True),
        (VERSIONS_UNKNOWN, False),
        (bytes([1, 5, 2, 0, 0, 0]), False),
        (bytes([1, 5, 6, 2, 5, 5]), False),
        (bytes([1, 5, 2, 2, 4, 4]), False),
        (bytes([3, 5, 3, 2, 5, 5]), False),
    ],
)
@pytest.mark.parametrize("state", [MemberState.ALIVE])
def test_state_with_versions_that_do_not_fit_is_rejected_whole(
    versions: bytes, accepted: bool, state: MemberState
) -> None:
    wire = Wire()
    wire.add("n1")
    nodes = (remote("n2", state, versions), remote("n3", MemberState.ALIVE))
    effects = wire.merge("n1", PushPull(True, nodes, b""))
    assert any(isinstance(effect, GossipRejected) for effect in effects) is not accepted
    assert ("n3" in wire.view("n1")) is accepted


def test_dead_node_does_not_narrow_the_versions_but_must_speak_one() -> None:
    wire = Wire()
    wire.add("n1")
    narrow = (remote("n2", MemberState.DEAD, bytes([2, 2, 2, 5, 5, 5])),)
    assert not wire.merge("n1", PushPull(True, narrow, b""))
    foreign = (remote("n2", MemberState.DEAD, bytes([1, 5, 9, 2, 5, 5])),)
    effects = wire.merge("n1", PushPull(True, foreign, b""))
    assert isinstance(effects[0], GossipRejected)


def test_random_bytes_of_the_layer_above_is_rejected_and_the_members_are_merged() -> None:
    wire = Wire()
    wire.add("n1")
    state = PushPull(True, (remote("n2", MemberState.ALIVE),), b"\x02garbage")
    assert any(isinstance(effect, GossipRejected) for effect in wire.merge("n1", state))
    assert "n2" in wire.view("n1")
    assert isinstance(wire.deliver("n1", User(b"\x00garbage"))[0], GossipRejected)


def test_restarted_node_learns_of_its_death_and_objects() -> None:
    wire = cluster(3)
    wire.stopped.add("n3")
    wire.run(20)
    assert wire.view("n1")["n3"] == "dead"
    wire.stopped.clear()
    wire.add("n3", seeds=["n1"], incarnation=1)
    wire.run(3)
    assert wire.view("n1")["n3"] == "alive"
    assert wire.view("n2")["n3"] == "alive"


# Gossip


def test_gossip_reaches_the_recently_dead_not_the_long_dead_and_not_the_gone() -> None:
    wire = one()
    wire.deliver("n1", alive("n3"), Dead(5, "n2", "n9"))
    wire.deliver("n1", alive("n4"))
    wire.deliver("n1", Dead(1, "n4", "n4"))
    wire.run(1)
    receivers = {to for _, to, _ in wire.sent}
    assert address("n2") in receivers
    wire.run(wire.config.gossip_to_dead_s + 1)
    wire.sent.clear()
    wire.give("n1", TagsChanged({"new": "tags"}))
    wire.run(1)
    receivers = {to for _, to, _ in wire.sent}
    assert address("n2") not in receivers
    assert address("n4") not in receivers


# Seeds and lost members


def test_news_in_a_small_cluster_go_to_each_of_the_others_even_if_nobody_passes_them_on() -> None:
    wire = cluster(8)
    wire.run(5)
    wire.stopped = {name for name in wire.cores if name != "n1"}
    wire.sent.clear()
    wire.give("n1", TagsChanged({"version": "2"}))
    wire.run(0.5)  # no probe of a silent member has failed
    news = {to for _, to, message in wire.sent if isinstance(message, Alive)}
    assert news == {address(name) for name in wire.stopped}


def test_seed_is_dialled_again_and_again_with_growing_pauses() -> None:
    wire = Wire()
    wire.add("n2", seeds=["n1"])
    wire.run(300)
    dials = [at for at, _, effect in wire.effects if isinstance(effect, ExchangeState)]
    pauses = [later - earlier for earlier, later in pairwise(dials)]
    assert max(pauses[:2]) < 0.5
    assert all(2.4 < pause <= 5.1 for pause in pauses[8:])
    assert len(dials) > 60


def test_seed_that_is_a_member_is_not_dialled_again_until_it_is_lost() -> None:
    wire = cluster(2)
    wire.run(10)
    wire.effects.clear()

    def joins() -> list[Effect]:
        return [e for e in of_type(wire, ExchangeState) if isinstance(e, ExchangeState) and e.join]

    wire.run(60)
    assert joins() == []
    wire.stopped.add("n1")
    wire.run(60)
    assert len(joins()) > 10


def test_lost_member_is_forgotten_after_a_day() -> None:
    wire = cluster(2)
    wire.stopped.add("n2")
    wire.run(30)
    assert wire.view("n1")["n2"] == "dead"
    wire.now += wire.config.forget_after_s
    wire.run(30)
    assert wire.view("n1") == {"n1": "alive"}


# Ourselves


def test_new_tags_are_announced_under_a_new_incarnation() -> None:
    wire = cluster(2)
    before = wire.cores["n1"].members()[0].incarnation
    wire.give("n1", TagsChanged({"http": "x:1"}))
    wire.run(1)
    seen = wire.cores["n2"].members()[0]
    assert (seen.tags, seen.incarnation) == ({"http": "x:1"}, before + 1)
    assert wire.give("n1", TagsChanged({"http": "x:1"})) == []


def test_leaving_is_announced_twice_in_order_and_answers_pings_until_its_end() -> None:
    wire = cluster(3)
    wire.sent.clear()
    wire.give("n1", LeaveRequested())
    began_at = wire.now
    wire.run(wire.config.leave_s - 0.01)
    said = [message for name, _, message in wire.sent if name == "n1"]
    intents = [n for n, each in enumerate(said) if isinstance(each, User)]
    deaths = [n for n, each in enumerate(said) if each == Dead(1, "n1", "n1")]
    assert max(intents[:1]) < min(deaths)
    answer = wire.acks(wire.deliver("n1", Ping(5, "n1", None, ""), source=address("n2")))
    assert answer == [(address("n2"), 5)]
    assert not of_type(wire, LeaveFinished)
    wire.run(0.02)
    assert wire.now - began_at < 1.1
    assert of_type(wire, LeaveFinished)
    assert wire.view("n2")["n1"] == wire.view("n3")["n1"] == "left"


def test_nobody_is_called_back_after_leaving() -> None:
    wire = cluster(2)
    wire.give("n1", LeaveRequested())
    wire.run(1)
    wire.deliver("n1", alive("n1", 99), Suspect(99, "n1", "n2"), Dead(99, "n1", "n2"))
    wire.sent.clear()
    wire.run(1)
    assert wire.view("n1")["n1"] == "left"
    assert not [m for name, _, m in wire.sent if name == "n1" and isinstance(m, Alive)]


def test_unconfirmed_crash_of_a_member_that_announced_its_leave_is_a_leave() -> None:
    wire = cluster(3)
    wire.give("n3", LeaveRequested())
    wire.run(0.1)
    wire.stopped.add("n3")
    wire.run(30)
    assert wire.view("n1")["n3"] == "left"
