"""Strangers without a key, who know all about a cluster, and what they cannot do to it."""

from dataclasses import replace

import pytest

from noti.swim.core.events import (
    Effect,
    ExchangeState,
    GossipRejected,
    IdentityConflict,
    MemberChanged,
    MembersProtected,
    NameConflict,
    PacketReceived,
    PingByStream,
    SendPacket,
    StateReceived,
    TagsChanged,
)
from noti.swim.core.messages import (
    VERSIONS,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    MemberState,
    Ping,
    PushPull,
    RemoteNode,
    Suspect,
)
from noti.swim.core.packets import encode_tags
from noti.swim.core.timing import SwimConfig
from tests import promises
from tests.swim.core.wire import Wire, address

NOW_S = 1_900_000_000
VICTIM: Address = ("203.0.113.9", 22)
"""No node: a machine that a forger wants to be bothered."""
FORGER: Address = ("198.51.100.1", 7946)
LONG_S = 100.0


def cluster(size: int = 3, config: SwimConfig | None = None) -> Wire:
    wire = Wire(config)
    for number in range(1, size + 1):
        add(wire, number)
    wire.run(5)
    wire.effects.clear()
    wire.sent.clear()
    return wire


def add(wire: Wire, number: int) -> None:
    seeds = ["n1"] if number > 1 else []
    tags = {"id": f"id{number}"}
    wire.add(f"n{number}", seeds=seeds, tags=tags, incarnation=NOW_S + int(wire.now))


def alive(name: str, at: Address, incarnation: int = 1, **tags: str) -> Alive:
    return Alive(incarnation, name, at, encode_tags(tags), VERSIONS)


def of_type(wire: Wire, kind: type[Effect]) -> list[Effect]:
    return [effect for _, _, effect in wire.effects if isinstance(effect, kind)]


def tags(wire: Wire, core: str) -> dict[str, dict[str, str]]:
    return {each.name: dict(each.tags) for each in wire.cores[core].members()}


def sound(wire: Wire, size: int = 3) -> bool:
    """Whether all see all alive, where they are and with their own tags, and nobody else."""
    names = [f"n{number}" for number in range(1, size + 1)]
    return all(
        [(m.name, m.address, m.state, m.tags) for m in wire.cores[core].members()]
        == [(n, address(n), MemberState.ALIVE, {"id": f"id{n[1:]}"}) for n in names]
        for core in names
    )


# Inventions


@promises.FORGED_GOSSIP_HARMS_NOBODY
def test_three_thousand_forged_alives_make_no_member_and_no_dial() -> None:
    wire = cluster()
    for number in range(3000):
        wire.deliver("n1", alive(f"x{number}", ("203.0.113.9", 1 + number)), invented=True)
    wire.run(LONG_S)
    assert sound(wire)
    assert not of_type(wire, MemberChanged)
    assert not of_type(wire, PingByStream)
    dialled = {effect.to for effect in of_type(wire, ExchangeState) if hasattr(effect, "to")}
    assert dialled <= {address("n1"), address("n2"), address("n3")}


@promises.FORGED_GOSSIP_HARMS_NOBODY
def test_three_thousand_inventions_in_a_state_are_no_members_and_are_passed_on_to_nobody() -> None:
    wire = cluster()
    nodes = tuple(
        RemoteNode(f"x{n}", ("203.0.113.9", 1 + n), b"", 1, MemberState.ALIVE, VERSIONS)
        for n in range(3000)
    )
    wire.give("n1", StateReceived(PushPull(True, nodes, b""), FORGER))
    assert len(wire.cores["n1"].state(join=False).nodes) == 3
    wire.run(LONG_S)
    assert sound(wire)
    said = {m.node for _, _, m in wire.sent if isinstance(m, Alive) and m.node.startswith("x")}
    asked = {m.target for _, _, m in wire.sent if isinstance(m, Ping) and m.target.startswith("x")}
    assert said == asked, "each only to whom it is about"


def test_a_flood_of_forged_alives_bothers_their_victim_with_few_small_packets() -> None:
    wire = cluster()
    for number in range(3000):
        wire.deliver("n1", alive(f"x{number}", VICTIM), invented=True)
        wire.run(0.001)
    wire.run(LONG_S)
    to_victim = [
        effect.payload
        for effect in of_type(wire, SendPacket)
        if isinstance(effect, SendPacket) and effect.to == VICTIM
    ]
    assert len(to_victim) < 3000, "fewer than were forged"
    assert max(map(len, to_victim)) < 150


def test_forger_that_answers_from_elsewhere_proves_nobody() -> None:
    wire = cluster()
    wire.deliver("n1", alive("x", VICTIM), invented=True)
    pings = [m for _, to, m in wire.sent if to == VICTIM and isinstance(m, Ping)]
    wire.deliver("n1", *(Ack(ping.sequence, None) for ping in pings), source=FORGER)
    assert sound(wire)


def test_forger_that_guesses_from_the_questions_it_gets_proves_nobody_else() -> None:
    wire = cluster()
    wire.deliver("n1", alive("x0", FORGER), invented=True)
    (seen,) = [m.sequence for _, to, m in wire.sent if to == FORGER and isinstance(m, Ping)]
    wire.deliver("n1", alive("x1", VICTIM), invented=True)
    for ahead in range(-1000, 1000):
        guess = Ack((seen + ahead) % 2**32, None)
        wire.give("n1", PacketReceived((guess,), VICTIM))  # under a forged source, too
    assert "x1" not in wire.view("n1")


def test_node_under_another_name_does_not_prove_an_invented_one() -> None:
    wire = cluster()
    wire.deliver("n1", alive("x", address("n3")), invented=True)
    wire.run(LONG_S)
    assert sound(wire)


@promises.FORGED_GOSSIP_HARMS_NOBODY
def test_foreigners_that_really_gossip_are_limited_and_crowd_no_node_of_the_cluster_out() -> None:
    wire = cluster(3, replace(SwimConfig.local(), members_max=20))
    protected = {f"id{number}": "" for number in range(1, 6)}
    wire.give("n1", MembersProtected(protected))
    wire.stopped.add("n3")
    wire.run(30)
    assert wire.view("n1")["n3"] == "dead"
    for number in range(100):
        wire.deliver("n1", alive(f"n{100 + number}", ("198.51.100.1", 1 + number)))
    assert len(wire.view("n1")) == 20
    assert wire.view("n1")["n3"] == "dead", "it may come back"
    for name in ("n4", "n5"):
        wire.deliver("n1", alive(name, address(name), id=f"id{name[1:]}"))
        assert wire.view("n1")[name] == "alive"
    assert len(wire.view("n1")) == 20


# Identities


def test_identity_of_another_node_under_a_forgers_name_is_not_shown_and_reported() -> None:
    wire = cluster()
    effects = wire.deliver("n1", alive("forger", FORGER, id="id2", rpc="198.51.100.1:1"))
    assert IdentityConflict("forger", FORGER, "id2", "n2") in effects
    assert tags(wire, "n1")["forger"] == {"rpc": "198.51.100.1:1"}
    assert tags(wire, "n1")["n2"] == {"id": "id2"}


def test_identity_of_a_dead_node_stays_its_own() -> None:
    wire = cluster()
    wire.stopped.add("n2")
    wire.run(30)
    assert wire.view("n1")["n2"] == "dead"
    wire.deliver("n1", alive("forger", FORGER, id="id2"))
    assert tags(wire, "n1")["forger"] == {}


def test_own_identity_is_nobody_elses() -> None:
    wire = cluster()
    wire.deliver("n1", alive("forger", FORGER, id="id1"))
    assert tags(wire, "n1")["forger"] == {}


def test_identity_that_a_forger_takes_later_is_not_shown_either() -> None:
    wire = cluster()
    wire.deliver("n1", alive("forger", FORGER, id="its own"))
    assert tags(wire, "n1")["forger"] == {"id": "its own"}
    wire.deliver("n1", alive("forger", FORGER, 2, id="id2"))
    assert tags(wire, "n1")["forger"] == {}


def test_name_that_the_cluster_knows_counts_more_than_who_was_first() -> None:
    wire = cluster()
    wire.deliver("n1", alive("forger", FORGER, id="id4"))
    assert tags(wire, "n1")["forger"] == {"id": "id4"}
    wire.give("n1", MembersProtected({"id4": "n4"}))
    assert tags(wire, "n1")["forger"] == {}
    add(wire, 4)
    wire.run(5)
    assert tags(wire, "n1")["n4"] == {"id": "id4"}


# A real node's name


@pytest.mark.parametrize("identity", ["id2", "another", ""])
@pytest.mark.parametrize("incarnation", [1, NOW_S + 10**6, NOW_S + 2**28, 2**32 - 2, 2**32 - 1])
@promises.FORGED_GOSSIP_HARMS_NOBODY
def test_nodes_name_at_another_address_moves_it_nowhere(identity: str, incarnation: int) -> None:
    wire = cluster()
    shown = {"id": identity} if identity else {}
    for core in wire.cores:
        wire.deliver(core, alive("n2", VICTIM, incarnation, **shown), invented=True)
        wire.deliver(core, alive("n2", FORGER, incarnation, **shown))
    wire.run(LONG_S)
    assert sound(wire)


def test_crashed_node_is_moved_to_no_address_that_does_not_answer_for_it() -> None:
    wire = cluster()
    wire.stopped.add("n2")
    claim = alive("n2", VICTIM, NOW_S + 10**6, id="id2")
    wire.deliver("n1", claim, invented=True)
    wire.run(30)
    wire.deliver("n1", replace(claim, incarnation=NOW_S + 10**7), invented=True)
    wire.run(30)
    (n2,) = [each for each in wire.cores["n1"].members() if each.name == "n2"]
    assert (n2.address, n2.state) == (address("n2"), MemberState.DEAD)


@promises.FORGED_GOSSIP_HARMS_NOBODY
@pytest.mark.parametrize("incarnation", [NOW_S + 10**6, NOW_S + 2**28, NOW_S + 2**28 + 2**16])
def test_forged_tags_of_a_node_are_never_seen_by_anybody(incarnation: int) -> None:
    wire = cluster()
    for core in wire.cores:
        wire.deliver(core, alive("n2", address("n2"), incarnation, id="id2", rpc="203.0.113.9:22"))
        wire.deliver(core, alive("n2", address("n2"), incarnation, id="id3"))
    wire.run(LONG_S)
    shown = [
        effect.member.tags
        for effect in of_type(wire, MemberChanged)
        if isinstance(effect, MemberChanged) and effect.member.name == "n2"
    ]
    assert all(each == {"id": "id2"} for each in shown)
    assert sound(wire)


def test_new_tags_of_a_node_are_seen_although_a_forger_goes_on_and_on() -> None:
    wire = cluster()
    wire.give("n2", TagsChanged({"id": "id2", "http": "new"}))
    for step in range(200):
        forged = alive("n2", address("n2"), NOW_S + 10**6 + step, id="id2", http="forged")
        wire.deliver("n1", forged)
        wire.run(0.05)
        assert tags(wire, "n1")["n2"].get("http") in (None, "new")
    assert tags(wire, "n1")["n2"] == {"id": "id2", "http": "new"}


def test_forged_refutations_hide_no_crash() -> None:
    wire = cluster()
    wire.stopped.add("n2")
    crashed_at = wire.now
    incarnation = NOW_S + int(wire.now)
    while wire.view("n1")["n2"] != "dead":
        incarnation += 1
        for core in ("n1", "n3"):
            wire.deliver(core, alive("n2", address("n2"), incarnation, id="id2"), invented=True)
        wire.run(0.5)
        assert wire.now - crashed_at < 60
    for _ in range(20):
        incarnation += 1
        wire.deliver("n1", alive("n2", address("n2"), incarnation, id="id2"), invented=True)
        wire.run(0.5)
        assert wire.view("n1")["n2"] == "dead"


# What is claimed against a node


@pytest.mark.parametrize("accuser", ["n1", "n2", "n3", "nobody"])
@pytest.mark.parametrize("claim", [Suspect, Dead])
@promises.FORGED_GOSSIP_HARMS_NOBODY
def test_whatever_incarnation_a_claim_has_the_node_stays(
    claim: type[Suspect] | type[Dead], accuser: str
) -> None:
    wire = cluster()
    powers = [2**power for power in range(32)]
    near = [NOW_S + int(wire.now) + ahead for ahead in (-1, 0, 1, 2**16, 2**28, 2**28 + 1)]
    for incarnation in sorted({0, *powers, *near, 2**32 - 2, 2**32 - 1}):
        for core in wire.cores:
            wire.deliver(core, claim(incarnation, "n2", accuser))
        wire.run(0.2)
        assert all(wire.view(core)["n2"] in ("alive", "suspect") for core in wire.cores)
    wire.run(LONG_S)
    assert sound(wire)


@pytest.mark.parametrize("state", [MemberState.SUSPECT, MemberState.DEAD, MemberState.LEFT])
def test_state_that_says_all_are_gone_takes_nobody_away(state: MemberState) -> None:
    wire = cluster()
    for ahead in (0, 1, 1000, 2**28):
        nodes = tuple(
            RemoteNode(name, address(name), b"", NOW_S + int(wire.now) + ahead, state, VERSIONS)
            for name in wire.cores
        )
        for core in wire.cores:
            wire.give(core, StateReceived(PushPull(True, nodes, b""), FORGER))
        wire.run(1)
        assert all(set(wire.view(core).values()) <= {"alive", "suspect"} for core in wire.cores)
    wire.run(LONG_S)
    assert sound(wire)


# Sources


def test_forged_source_gets_an_answer_no_longer_than_the_question() -> None:
    wire = cluster()
    wire.give("n1", TagsChanged({"id": "id1", "long": "x" * 300}))
    for ping in (Ping(1, "n1", None, ""), Ping(1, "n1", VICTIM, "x"), Ping(1, "", None, "n2")):
        (effect,) = wire.deliver("n1", ping, source=VICTIM)
        assert isinstance(effect, SendPacket)
        assert (effect.to, len(effect.payload) < 30) == (VICTIM, True)


def test_source_field_of_a_stranger_is_not_honoured_even_after_it_was_claimed_to_be_there() -> None:
    wire = cluster()
    wire.deliver("n1", alive("x", VICTIM), invented=True)
    (effect,) = wire.deliver("n1", Ping(1, "n1", VICTIM, "x"), source=FORGER)
    assert isinstance(effect, SendPacket)
    assert effect.to == FORGER


def test_stranger_has_nobody_pinged_for_it() -> None:
    wire = cluster()
    request = IndirectPing(7, "x", VICTIM, True, None, "")
    assert wire.deliver("n1", request, source=FORGER) == []
    in_its_name = IndirectPing(7, "x", VICTIM, True, FORGER, "x")
    assert wire.deliver("n1", in_its_name, source=FORGER) == []


def test_gossip_goes_only_to_members() -> None:
    wire = cluster()
    wire.deliver("n1", alive("x", VICTIM), invented=True)
    wire.give("n1", TagsChanged({"id": "id1", "new": "tag"}))
    wire.run(LONG_S)
    to_victim = [message for _, to, message in wire.sent if to == VICTIM]
    assert {type(message) for message in to_victim} == {Alive, Ping}
    assert all(each.node == "x" for each in to_victim if isinstance(each, Alive))


# And the honest ones


@promises.FORGED_GOSSIP_HARMS_NOBODY
def test_new_node_gets_in_through_a_flood_of_inventions() -> None:
    wire = cluster()
    for number in range(1000):
        wire.deliver("n1", alive(f"x{number}", VICTIM), invented=True)
    rejected = {each.reason for each in of_type(wire, GossipRejected) if hasattr(each, "reason")}
    assert rejected == {"members"}
    add(wire, 4)
    began_at = wire.now
    while wire.view("n1").get("n4") != "alive":
        for _ in range(30):
            number += 1
            wire.deliver("n1", alive(f"x{number}", VICTIM), invented=True)
        wire.run(0.01)
        assert wire.now - began_at < 5


def test_name_of_a_present_member_under_another_identity_is_reported() -> None:
    wire = cluster()
    effects = wire.deliver("n1", alive("n2", FORGER, NOW_S + 10**6, id="other"))
    assert effects == [NameConflict("n2", address("n2"), FORGER)]


def test_node_whose_udp_is_blocked_is_known_after_its_host_has_dialled() -> None:
    wire = Wire()
    wire.passes_udp = lambda sender, receiver: False
    for number in (1, 2):
        add(wire, number)
    wire.run(10)
    assert wire.view("n1") == wire.view("n2") == {"n1": "alive", "n2": "alive"}
    assert [name for _, name, each in wire.effects if isinstance(each, PingByStream)]
