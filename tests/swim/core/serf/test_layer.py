"""Serf's layer as a whole: cores on a wire, and who joins, leaves, fails and is forgotten."""

import pytest

from noti.errors import MessageInvalid
from noti.swim.core.events import (
    Effect,
    ForceLeaveRequested,
    GossipRejected,
    LeaveRequested,
    MemberChanged,
    MembersProtected,
    StateReceived,
    UserEventReceived,
    UserEventRequested,
)
from noti.swim.core.messages import PushPull, User
from noti.swim.core.serf.messages import Intent, SerfQuery, UserEvent, encode_serf
from noti.swim.core.serf.states import decode_state
from noti.swim.core.timing import SwimConfig
from tests.fuzz.serf_inputs import layer
from tests.swim.core.wire import Wire


def cluster(size: int = 3, config: SwimConfig | None = None) -> Wire:
    """Cores n1, n2, … that know each other."""
    wire = Wire(config)
    for number in range(1, size + 1):
        wire.add(f"n{number}", seeds=["n1"] if number > 1 else [])
    wire.run(5)
    return wire


def of_type(wire: Wire, kind: type[Effect]) -> list[tuple[str, Effect]]:
    return [(name, effect) for _, name, effect in wire.effects if isinstance(effect, kind)]


def leaving(wire: Wire, at: str, name: str) -> bool:
    return next(each.leaving for each in wire.cores[at].members() if each.name == name)


def crash(wire: Wire, name: str) -> None:
    """Stop a core, and wait until the others have noticed."""
    wire.stopped.add(name)
    wire.run(10)
    running = [each for each in wire.cores if each not in wire.stopped]
    assert all(wire.view(each)[name] == "dead" for each in running)


def times_at(wire: Wire, at: str) -> dict[str, int]:
    return dict(decode_state(wire.cores[at].state(join=False).user_state).status_times)


def test_member_that_leaves_has_left_and_one_that_crashes_has_failed() -> None:
    wire = cluster(4)
    wire.give("n2", LeaveRequested())
    wire.run(1)
    wire.stopped.add("n2")
    crash(wire, "n3")
    for each in ("n1", "n4"):
        assert wire.view(each) == {"n1": "alive", "n2": "left", "n3": "dead", "n4": "alive"}


def test_forced_leave_of_a_failed_member_counts_on_all_members() -> None:
    wire = cluster(4)
    crash(wire, "n3")
    wire.give("n1", ForceLeaveRequested("n3", prune=False))
    wire.run(1)
    assert [wire.view(each)["n3"] for each in ("n1", "n2", "n4")] == ["left"] * 3


def test_forced_leave_of_one_that_left_already_changes_nothing() -> None:
    wire = cluster(3)
    crash(wire, "n3")
    wire.give("n1", ForceLeaveRequested("n3", prune=False))
    wire.run(1)
    wire.effects.clear()
    wire.give("n2", ForceLeaveRequested("n3", prune=False))
    wire.run(1)
    assert not of_type(wire, MemberChanged)


def test_pruned_member_is_forgotten_by_all_and_stays_so() -> None:
    wire = cluster(4)
    crash(wire, "n3")
    wire.give("n1", ForceLeaveRequested("n3", prune=True))
    wire.run(60)
    for each in ("n1", "n2", "n4"):
        assert "n3" not in wire.view(each)
        assert "n3" not in times_at(wire, each)


def test_pruned_node_of_the_raft_configuration_has_left_and_is_remembered() -> None:
    wire = Wire()
    wire.add("n1")
    wire.add("n2", seeds=["n1"])
    wire.add("n3", seeds=["n1"], tags={"id": "three"})
    wire.run(5)
    wire.give("n1", MembersProtected({"three": ""}))
    crash(wire, "n3")
    wire.give("n2", ForceLeaveRequested("n3", prune=True))
    wire.run(2)
    assert (wire.view("n1")["n3"], wire.view("n2").get("n3")) == ("left", None)


def test_prune_in_the_name_of_a_node_that_leaves_does_not_make_it_forget_itself() -> None:
    wire = cluster(2)
    wire.give("n1", LeaveRequested())
    wire.run(2)
    wire.deliver("n1", User(encode_serf(Intent(True, "n1", 500, prune=True))))
    assert wire.view("n1")["n1"] == "left"


def test_live_member_refutes_a_forced_leave_and_a_prune() -> None:
    wire = cluster(3)
    for prune in (False, True):
        wire.effects.clear()
        wire.give("n1", ForceLeaveRequested("n3", prune=prune))
        assert leaving(wire, "n1", "n3")
        wire.run(2)
        assert not of_type(wire, MemberChanged)
        for each in wire.cores:
            assert wire.view(each)["n3"] == "alive"
            assert not leaving(wire, each, "n3")


def test_forced_leave_of_the_own_name_does_nothing() -> None:
    wire = cluster(2)
    wire.effects.clear()
    wire.give("n1", ForceLeaveRequested("n1", prune=True))
    wire.run(2)
    assert not of_type(wire, MemberChanged)
    assert not leaving(wire, "n2", "n1")


def test_forged_prunes_make_nobody_forget_a_live_member_or_itself() -> None:
    wire = cluster(3)
    for time in range(100, 110):
        for name in wire.cores:
            for at in wire.cores:
                forged = Intent(True, name, time, prune=True)
                wire.deliver(at, User(encode_serf(forged)))
    wire.run(5)
    for each in wire.cores:
        assert wire.view(each) == {"n1": "alive", "n2": "alive", "n3": "alive"}
        assert not any(leaving(wire, each, name) for name in wire.cores)


def test_intent_that_comes_before_its_node_counts_when_it_is_known() -> None:
    wire = cluster(2)
    wire.deliver("n1", User(encode_serf(Intent(False, "n3", 40))))
    assert "n3" not in times_at(wire, "n1")
    wire.add("n3", seeds=["n2"])
    wire.run(5)
    assert times_at(wire, "n1")["n3"] >= 40


def test_node_that_returns_after_it_left_is_alive_with_its_new_tags() -> None:
    wire = cluster(3)
    before = times_at(wire, "n1")["n3"]
    wire.give("n3", LeaveRequested())
    wire.run(2)
    assert wire.view("n1")["n3"] == "left"
    left_at = times_at(wire, "n1")["n3"]
    wire.add("n3", seeds=["n1"], tags={"role": "new"}, incarnation=2)
    wire.run(5)
    for each in ("n1", "n2"):
        member = next(one for one in wire.cores[each].members() if one.name == "n3")
        assert (member.state.name, member.leaving, member.tags) == ("ALIVE", False, {"role": "new"})
    assert before < left_at < times_at(wire, "n1")["n3"]


def test_node_that_returns_after_a_crash_is_alive_again() -> None:
    wire = cluster(3)
    crash(wire, "n3")
    wire.stopped.discard("n3")
    wire.add("n3", seeds=["n1"], incarnation=2)
    wire.run(10)
    assert all(wire.view(each)["n3"] == "alive" for each in wire.cores)


def test_failed_and_left_members_are_forgotten_in_time_and_not_before() -> None:
    config = SwimConfig(left_forget_s=100.0, forget_after_s=200.0)
    wire = cluster(4, config)
    wire.give("n2", LeaveRequested())
    wire.run(1)
    wire.stopped |= {"n2", "n3"}
    wire.run(80)
    assert (wire.view("n1")["n2"], wire.view("n1")["n3"]) == ("left", "dead")
    wire.run(80)
    assert (wire.view("n1").get("n2"), wire.view("n1")["n3"]) == (None, "dead")
    wire.run(200)
    assert wire.view("n1") == {"n1": "alive", "n4": "alive"}
    assert times_at(wire, "n1").keys() == {"n1", "n4"}


def test_member_that_returned_is_not_forgotten() -> None:
    config = SwimConfig(left_forget_s=100.0, forget_after_s=100.0)
    wire = cluster(3, config)
    wire.stopped.add("n3")
    wire.run(60)
    assert wire.view("n1")["n3"] == "dead"
    wire.stopped.discard("n3")
    wire.add("n3", seeds=["n1"], incarnation=2)
    wire.run(300)
    assert wire.view("n1")["n3"] == "alive"


def test_event_reaches_every_member_once() -> None:
    wire = cluster(6)
    wire.give("n1", UserEventRequested(b"deploy", b"1", coalesce=True))
    wire.run(3)
    assert sorted(name for name, _ in of_type(wire, UserEventReceived)) == [
        "n2",
        "n3",
        "n4",
        "n5",
        "n6",
    ]


def test_newcomer_is_not_told_of_old_events_and_a_member_that_missed_one_is() -> None:
    wire = cluster(3)
    wire.passes_udp = lambda sender, receiver: "n3" not in (sender, receiver)
    wire.give("n1", UserEventRequested(b"deploy", b"1", coalesce=True))
    wire.run(3)
    assert [name for name, _ in of_type(wire, UserEventReceived)] == ["n2"]
    wire.add("n4", seeds=["n1"])
    wire.run(40)
    assert [name for name, _ in of_type(wire, UserEventReceived)] == ["n2", "n3"]


@pytest.mark.parametrize("data", [b"\x02", b"\x05\x80", b"garbage", b"\x02\xc0", b"\xff" * 40])
def test_bad_state_of_a_peer_is_reported_and_the_node_goes_on(data: bytes) -> None:
    wire = cluster(2)
    wire.give("n1", StateReceived(PushPull(False, (), data)))
    ((_, effect),) = of_type(wire, GossipRejected)
    assert isinstance(effect, GossipRejected)
    assert effect.reason == "Serf message"
    wire.run(20)
    assert wire.view("n1") == wire.view("n2") == {"n1": "alive", "n2": "alive"}


def test_message_that_fits_into_no_packet_is_rejected_so_that_it_does_not_wait_for_ever() -> None:
    serf, outbox = layer()
    longest = SwimConfig().packet_bytes_max - 5
    with pytest.raises(MessageInvalid):
        serf.receive(event_of(longest + 1), 1.0, leaving=False)
    serf.receive(event_of(longest), 1.0, leaving=False)
    while not outbox.idle:
        outbox.send(("127.0.0.1", 1))
        assert len(outbox.collect()) >= 1


def event_of(length: int) -> bytes:
    overhead = len(encode_serf(UserEvent(5, b"e", b"x" * 500))) - 500
    payload = encode_serf(UserEvent(5, b"e", b"x" * (length - overhead)))
    assert len(payload) == length
    return payload


def test_intents_go_out_before_queries_and_these_before_events() -> None:
    wire = cluster(2)
    intent = Intent(False, "n2", 700)
    question = SerfQuery(9, 9, ("10.0.0.2", 7946), "n2", b"q", b"x" * 800)
    for time in range(5, 10):
        wire.deliver("n1", User(encode_serf(UserEvent(time, b"e", b"x" * 900))))
    wire.deliver("n1", User(encode_serf(question)))
    wire.deliver("n1", User(encode_serf(intent)))
    wire.sent.clear()
    wire.run(0.15)
    first, second, *_ = [m for name, _, m in wire.sent if name == "n1" and isinstance(m, User)]
    assert (first, second) == (User(encode_serf(intent)), User(encode_serf(question)))
