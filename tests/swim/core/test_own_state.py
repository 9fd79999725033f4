"""A node speaks for itself: it refutes what is wrong, and is gone once it left."""

from dataclasses import replace

import pytest

from noti.swim.core.events import (
    ExchangeState,
    LeaveFinished,
    LeaveRequested,
    NameConflict,
    TagsChanged,
)
from noti.swim.core.messages import VERSIONS, Ack, Alive, Dead, Ping, User
from noti.swim.core.packets import encode_tags
from tests.swim.core.wire import Wire, address

ME = Alive(10, "n1", address("n1"), encode_tags({"id": "mine"}), VERSIONS)


def two() -> Wire:
    """Cores n1, with incarnation 10, and n2, that know each other."""
    wire = Wire()
    wire.add("n1", incarnation=10, tags={"id": "mine"})
    wire.add("n2", seeds=["n1"])
    wire.run(5)
    wire.sent.clear()
    wire.effects.clear()
    return wire


def incarnation(wire: Wire) -> int:
    return wire.cores["n1"].members()[0].incarnation


def test_what_is_claimed_as_it_is_needs_no_refutation() -> None:
    wire = two()
    assert wire.deliver("n1", ME) == []
    assert wire.deliver("n1", replace(ME, incarnation=3, meta=b"")) == []
    assert incarnation(wire) == 10


@pytest.mark.parametrize(
    "claim",
    [
        replace(ME, meta=encode_tags({"id": "mine", "rpc": "elsewhere:1"})),
        replace(ME, meta=b""),
        replace(ME, versions=bytes([1, 5, 2, 2, 5, 4])),
        replace(ME, incarnation=11),
    ],
)
def test_other_tags_or_versions_or_a_later_incarnation_of_this_node_are_refuted(
    claim: Alive,
) -> None:
    wire = two()
    wire.deliver("n1", claim)
    assert incarnation(wire) == claim.incarnation + 1


def test_own_name_at_another_address_is_a_conflict_unless_it_is_our_own_past() -> None:
    wire = two()
    elsewhere = replace(ME, address=("10.0.0.99", 1), incarnation=50)
    other = replace(elsewhere, meta=encode_tags({"id": "other"}))
    assert wire.deliver("n1", other) == [NameConflict("n1", address("n1"), ("10.0.0.99", 1))]
    assert incarnation(wire) == 10
    wire.deliver("n1", elsewhere)
    assert incarnation(wire) == 51


def test_ping_with_a_wrong_claim_is_answered_with_what_is_true() -> None:
    wire = two()
    claim = replace(ME, incarnation=40, meta=encode_tags({"id": "mine", "rpc": "elsewhere:1"}))
    stranger = ("192.0.2.7", 1)
    answer = wire.messages(wire.deliver("n1", claim, Ping(7, "n1", None, ""), source=stranger))
    assert answer == [(stranger, Ack(7, None)), (stranger, replace(ME, incarnation=41))]


def test_wrong_claim_that_is_invalid_is_answered_with_what_is_true_as_well() -> None:
    wire = two()
    claim = replace(ME, incarnation=2**32 - 1, meta=b"")
    answer = wire.messages(wire.deliver("n1", claim, Ping(7, "n1", None, "")))
    assert [message for _, message in answer] == [Ack(7, None), ME]


def test_ping_with_a_true_claim_is_answered_without_an_objection() -> None:
    wire = two()
    answer = wire.messages(wire.deliver("n1", ME, Ping(7, "n1", None, "")))
    assert [message for _, message in answer] == [Ack(7, None)]


def test_each_announcement_of_leaving_is_sent_out_before_the_next_and_the_end() -> None:
    wire = two()
    wire.give("n1", LeaveRequested())
    wire.run(5)
    said = [message for name, _, message in wire.sent if name == "n1"]
    intents = [at for at, m in enumerate(said) if isinstance(m, User) and m.payload[0] == 0]
    deaths = [at for at, each in enumerate(said) if isinstance(each, Dead)]
    assert len(intents) >= 2
    assert len(deaths) == 2
    assert max(intents) < min(deaths)
    ends = [at for at, name, each in wire.effects if isinstance(each, LeaveFinished)]
    assert len(ends) == 1
    assert wire.view("n2")["n1"] == "left"


def test_node_that_left_refutes_nothing_dials_nobody_and_changes_no_more() -> None:
    wire = two()
    wire.give("n1", LeaveRequested())
    wire.run(1)
    wire.effects.clear()
    wire.deliver("n1", replace(ME, incarnation=99, meta=b""), Dead(99, "n1", "n2"))
    wire.give("n1", TagsChanged({"id": "mine", "new": "tag"}))
    wire.run(200)
    dialled = [e for _, name, e in wire.effects if name == "n1" and isinstance(e, ExchangeState)]
    assert dialled == []
    assert incarnation(wire) == 10
    assert wire.view("n1")["n1"] == "left"
    assert wire.view("n2")["n1"] == "left"


def test_node_that_left_does_not_confirm_that_it_is_alive() -> None:
    wire = two()
    wire.give("n1", LeaveRequested())
    wire.run(1)
    assert wire.deliver("n1", ME, Ping(7, "n1", None, ""), source=address("n2")) == []
    wire.deliver("n2", replace(ME, incarnation=11), invented=True)
    wire.run(30)
    assert wire.view("n2")["n1"] == "left"
