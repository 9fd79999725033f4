"""Probes: who is asked when somebody is silent, and that a busy node blames itself, not others."""

import random

import pytest

from noti.swim.core.events import (
    HealthChanged,
    MemberChanged,
    PacketUnsendable,
    RanLate,
    StreamOnlyChanged,
    StreamPingAnswered,
    TimerExpired,
)
from noti.swim.core.messages import (
    Ack,
    Address,
    Alive,
    IndirectPing,
    MemberState,
    Nack,
    Ping,
    Suspect,
)
from noti.swim.core.timing import SwimConfig
from tests.swim.core.test_machine import cluster, of_type
from tests.swim.core.wire import Wire, address


def suspicions(wire: Wire, by: str) -> list[str]:
    """Whom a core suspected, of its own or because others did."""
    return [
        effect.member.name
        for _, name, effect in wire.effects
        if name == by
        and isinstance(effect, MemberChanged)
        and effect.member.state in (MemberState.SUSPECT, MemberState.DEAD)
    ]


def accusations(wire: Wire, by: str) -> set[str]:
    """Whom a core accused in its own name."""
    return {
        message.node
        for name, _, message in wire.sent
        if name == by and isinstance(message, Suspect) and message.accuser == by
    }


def health(wire: Wire, name: str) -> list[int]:
    """The scores of a core, as they changed."""
    return [
        effect.score
        for _, each, effect in wire.effects
        if each == name and isinstance(effect, HealthChanged)
    ]


def until_probe(wire: Wire, name: str) -> Address:
    """Run until a core pings the next member of its round; return where that is."""
    while True:
        wire.run(wire.cores[name].deadline() - wire.now - 1e-4)
        wire.now = wire.cores[name].deadline()
        pings = [
            to
            for to, message in wire.messages(wire.give(name, TimerExpired()))
            if isinstance(message, Ping)
        ]
        if pings:
            return pings[0]


# Our own fault


@pytest.mark.parametrize("blocked_s", [0.5, 1.5, 4.0, 60.0])
def test_node_whose_loop_was_blocked_suspects_nobody_for_it(blocked_s: float) -> None:
    wire = cluster(5)
    until_probe(wire, "n1")
    wire.effects.clear()
    wire.sent.clear()
    wire.block("n1", blocked_s)  # its ping has not even left
    wire.run(blocked_s + 30)
    assert accusations(wire, "n1") == set()
    assert suspicions(wire, "n1") == []
    assert set(wire.view("n1").values()) == {"alive"}


def test_node_that_is_blocked_again_and_again_suspects_nobody() -> None:
    wire = cluster(5)
    rng = random.Random(2)
    wire.effects.clear()
    wire.sent.clear()
    for _ in range(100):
        wire.run(rng.uniform(0.05, 2.0))
        wire.block("n1", rng.uniform(0.0, 1.5))
    wire.run(2)
    assert accusations(wire, "n1") == set()
    assert health(wire, "n1"), "it notices that it does badly"


def test_node_whose_every_turn_takes_long_suspects_nobody() -> None:
    wire = cluster(5)
    wire.effects.clear()
    wire.sent.clear()
    for _ in range(100):
        wire.block("n1", 0.6)
        wire.run(0.6 + 2 * wire.delay_s)
    assert accusations(wire, "n1") == set()


def test_blocked_node_says_so_counts_against_itself_and_is_well_again_soon() -> None:
    wire = cluster(5)
    wire.effects.clear()
    wire.block("n1", 3.0)
    wire.run(3.2)
    assert len(of_type(wire, RanLate)) == 1
    assert health(wire, "n1")[0] == 1
    wire.run(10)
    assert health(wire, "n1")[-1] == 0


def test_suspicion_is_not_decided_by_a_node_that_slept_over_its_end() -> None:
    wire = cluster(3)
    incarnation = wire.cores["n1"].members()[1].incarnation
    wire.deliver("n1", Suspect(incarnation, "n2", "n3"))
    assert wire.view("n1")["n2"] == "suspect"
    wire.block("n1", 60.0)  # what n2 answers meanwhile is not read
    wire.run(61)
    assert wire.view("n1")["n2"] == "alive"
    assert "dead" not in {
        each.member.state.name.lower()
        for each in of_type(wire, MemberChanged)
        if isinstance(each, MemberChanged)
    }


def test_blocked_node_still_notices_a_crash_that_happened_meanwhile() -> None:
    wire = cluster(3)
    wire.stopped.add("n2")
    wire.block("n1", 10.0)
    wire.run(10 + 6)
    assert wire.view("n1")["n2"] == "dead"


def test_node_that_is_always_late_does_not_spare_its_members_for_ever() -> None:
    wire = cluster(2)
    wire.stopped.add("n2")
    for _ in range(60):
        wire.block("n1", 1.4)
        wire.run(1.5)
    assert wire.view("n1")["n2"] == "dead"


def test_answer_that_waits_unread_when_its_time_is_over_counts() -> None:
    wire = cluster(2)
    wire.effects.clear()
    until_probe(wire, "n1")
    wire.run(1.5 * wire.delay_s)  # the ping has left, and the answer is on its way
    # Not late for any step, but nothing is read in between.
    timeout_s, interval_s = wire.config.probe_timeout_s, wire.config.probe_interval_s
    for step_s in (timeout_s - 1.5 * wire.delay_s, interval_s - timeout_s):
        wire.block("n1", step_s + 1e-6)
        wire.run(step_s + 1e-6)
    wire.run(3)
    assert suspicions(wire, "n1") == []


def test_helpers_that_were_asked_late_get_their_time() -> None:
    wire = cluster(3)
    wire.delay_s = 0.01
    wire.passes_udp = lambda sender, receiver: {sender, receiver} != {"n1", "n2"}
    wire.passes_tcp = lambda sender, receiver: False
    wire.run(0.5)
    while until_probe(wire, "n1") != address("n2"):
        pass
    wire.effects.clear()
    wire.run(wire.config.probe_timeout_s)
    assert [m for n, _, m in wire.sent if n == "n1" and isinstance(m, IndirectPing)]
    wire.block("n1", 3.0)
    wire.run(10)
    assert suspicions(wire, "n1") == []


# Nacks


def probed_in_vain(wire: Wire, duration_s: float, *, nacks: bool) -> list[int]:
    """Let n1 probe members that do not answer it, while its helpers are as said."""
    wire.passes_udp = lambda sender, receiver: "n1" not in (sender, receiver)
    wire.passes_tcp = wire.passes_udp
    wire.effects.clear()
    began_at, asked = wire.now, set[int]()
    while wire.now - began_at < duration_s:
        wire.run(0.05)
        for _, to, message in wire.sent:
            if isinstance(message, IndirectPing) and message.sequence not in asked and nacks:
                asked.add(message.sequence)
                wire.deliver("n1", *[Nack(message.sequence)] * 3, source=to)
        wire.sent.clear()
    return health(wire, "n1")


def test_missing_nacks_count_against_ourselves_and_nacks_do_not() -> None:
    # As long as there are others than those that were found silent.
    assert probed_in_vain(cluster(5, SwimConfig()), 3.0, nacks=True) == []
    scores = probed_in_vain(cluster(5, SwimConfig()), 10.0, nacks=False)
    assert scores[0] == SwimConfig().indirect_checks
    assert scores[1] > scores[0]


def test_node_that_does_badly_gives_others_more_time() -> None:
    wire = cluster(2)
    wire.stopped.add("n2")
    wire.run(60)
    assert health(wire, "n1")[-1] > 1, "nobody could have sent a nack"
    wire.stopped.clear()
    while wire.view("n1")["n2"] != "alive":
        wire.run(0.01)
    score = health(wire, "n1")[-1]
    wire.stopped.add("n2")
    until_probe(wire, "n1")
    began_at = wire.now
    while wire.view("n1")["n2"] == "alive":
        wire.run(0.1)
    assert wire.now - began_at == pytest.approx(score + 1, abs=0.2)


def test_helper_of_an_old_version_is_not_expected_to_send_nacks() -> None:
    wire = cluster(1)
    old = bytes([1, 3, 2, 2, 5, 5])
    wire.deliver("n1", *(Alive(5, f"n{n}", address(f"n{n}"), b"", old) for n in (2, 3)))
    wire.run(2.5)
    asked = [m for _, _, m in wire.sent if isinstance(m, IndirectPing)]
    assert asked
    assert not any(request.wants_nack for request in asked)
    assert health(wire, "n1")[0] == 1


def test_probes_missed_while_blocked_are_not_made_up_for() -> None:
    wire = cluster(4)
    wire.block("n1", 10.0)
    wire.run(10.0)
    wire.sent.clear()
    wire.run(2.1)
    pings = [m for name, _, m in wire.sent if name == "n1" and isinstance(m, Ping)]
    assert len(pings) <= 3


def test_being_accused_counts_once_until_a_member_answers() -> None:
    wire = cluster(1)
    wire.deliver("n1", *(Suspect(number, "n1", "n9") for number in range(20, 60)))
    assert health(wire, "n1") == [1]


# Other members


def test_late_answer_of_a_helper_still_counts() -> None:
    wire = cluster(3)
    wire.passes_udp = lambda sender, receiver: {sender, receiver} != {"n1", "n2"}
    wire.passes_tcp = lambda sender, receiver: False
    wire.effects.clear()
    wire.run(60)
    assert suspicions(wire, "n1") == []


def test_ack_with_another_sequence_does_not_help_a_silent_member() -> None:
    wire = cluster(2)
    wire.stopped.add("n2")
    for _ in range(40):
        wire.run(0.1)
        for _, _, message in wire.sent:
            if isinstance(message, Ping):
                wire.deliver("n1", Ack(message.sequence + 1_000, None), source=address("n2"))
                wire.give("n1", StreamPingAnswered(message.sequence + 1_000))
    assert wire.view("n1")["n2"] != "alive"


def test_member_whose_pings_cannot_be_sent_is_suspected() -> None:
    wire = cluster(2)
    wire.stopped.add("n2")
    assert until_probe(wire, "n1") == address("n2")
    wire.give("n1", PacketUnsendable(address("n2")))
    wire.run(1.1)
    assert wire.view("n1")["n2"] == "suspect"


def test_probe_skips_who_is_gone_and_ourselves() -> None:
    wire = cluster(4)
    wire.stopped |= {"n3", "n4"}
    wire.run(30)
    assert wire.view("n1")["n3"] == wire.view("n1")["n4"] == "dead"
    wire.sent.clear()
    wire.run(20)
    probed = {m.target for name, _, m in wire.sent if name == "n1" and isinstance(m, Ping)}
    assert probed == {"n2"}
    wire.stopped.add("n2")
    wire.run(30)
    wire.sent.clear()
    wire.run(20)
    assert not [m for name, _, m in wire.sent if isinstance(m, Ping)], "and nobody is left"


def test_members_that_answer_tcp_only_are_counted_until_udp_works_again() -> None:
    wire = cluster(3)
    wire.passes_udp = lambda sender, receiver: False
    wire.effects.clear()
    wire.run(10)

    def counts() -> list[int]:
        return [
            effect.count
            for _, name, effect in wire.effects
            if name == "n1" and isinstance(effect, StreamOnlyChanged)
        ]

    assert counts() == [1, 2]
    wire.passes_udp = lambda sender, receiver: True
    wire.run(10)
    assert counts()[-1] == 0


def test_member_that_died_is_not_counted_as_one_that_answers_tcp() -> None:
    wire = cluster(2)
    wire.passes_udp = lambda sender, receiver: False
    wire.run(10)
    wire.stopped.add("n2")
    wire.run(20)
    assert wire.view("n1")["n2"] == "dead"
    last = of_type(wire, StreamOnlyChanged)[-1]
    assert last == StreamOnlyChanged(0)
