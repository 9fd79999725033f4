"""Serf's layer: intents, the Lamport clock, passing on."""

from collections.abc import Mapping

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.swim.core.serf.intents import Broadcast, LeaveIntent, Serf


def leave(node: str, time: int) -> bytes:
    return b"\x00" + msgpack.packb({"LTime": time, "Node": node, "Prune": False})


def join(node: str, time: int) -> bytes:
    return b"\x01" + msgpack.packb({"LTime": time, "Node": node})


def fields_of(payload: bytes) -> Mapping[str, object]:
    fields: Mapping[str, object] = msgpack.unpackb(payload[1:], raw=False)
    return fields


def state(times: Mapping[str, int], left: list[str], time: int = 1) -> bytes:
    return b"\x02" + msgpack.packb({"LTime": time, "StatusLTimes": times, "LeftMembers": left})


def test_own_intents_have_the_golden_form_and_rising_times() -> None:
    serf = Serf("beta")
    assert serf.join_intent().payload == bytes.fromhex(
        "01 82 a54c54696d65 01 a44e6f6465 a462657461"
    )
    assert serf.leave_intent().payload == bytes.fromhex(
        "00 83 a54c54696d65 02 a44e6f6465 a462657461 a55072756e65 c2"
    )
    assert serf.is_leaving("beta")


def test_newer_intent_is_passed_on_once_and_an_older_one_never() -> None:
    serf = Serf("a")
    assert serf.receive(leave("b", 5), leaving=False) == [
        Broadcast("intent b", leave("b", 5)),
        LeaveIntent("b"),
    ]
    assert serf.receive(leave("b", 5), leaving=False) == []
    assert serf.receive(join("b", 4), leaving=False) == []
    assert serf.is_leaving("b")
    assert serf.receive(join("b", 6), leaving=False) == [Broadcast("intent b", join("b", 6))]
    assert not serf.is_leaving("b")


def test_two_intents_about_one_node_do_not_echo_endlessly() -> None:
    one, two = Serf("a"), Serf("b")
    queue = [(two, leave("c", 5)), (one, leave("c", 6))]
    for _ in range(20):
        if not queue:
            break
        receiver, payload = queue.pop(0)
        other = one if receiver is two else two
        orders = receiver.receive(payload, leaving=False)
        queue += [(other, order.payload) for order in orders if isinstance(order, Broadcast)]
    assert queue == []


def test_leave_intent_in_our_name_is_refuted_with_a_newer_join() -> None:
    serf = Serf("a")
    (refutation,) = serf.receive(leave("a", 40), leaving=False)
    assert isinstance(refutation, Broadcast)
    assert refutation.payload[0] == 1
    assert fields_of(refutation.payload) == {"LTime": 41, "Node": "a"}
    assert not serf.is_leaving("a")


def test_leave_intent_in_our_name_is_fine_while_we_leave() -> None:
    serf = Serf("a")
    serf.leave_intent()
    orders = serf.receive(leave("a", 40), leaving=True)
    assert LeaveIntent("a") in orders


def test_state_brings_times_and_who_left() -> None:
    serf = Serf("a")
    assert serf.merge(state({"b": 3, "c": 4}, ["c"], time=9), leaving=False) == [LeaveIntent("c")]
    assert serf.merge(state({"b": 3, "c": 4}, ["c"], time=9), leaving=False) == []
    assert fields_of(serf.join_intent().payload)["LTime"] == 9
    mine = fields_of(serf.state())
    assert mine["LeftMembers"] == ["c"]
    assert mine["StatusLTimes"] == {"a": 9, "b": 3, "c": 5}


def test_state_that_claims_we_left_is_refuted() -> None:
    serf = Serf("a")
    (refutation,) = serf.merge(state({"a": 7}, ["a"]), leaving=False)
    assert isinstance(refutation, Broadcast)
    assert refutation.payload[0] == 1


def test_events_and_queries_are_passed_on_once() -> None:
    serf = Serf("a")
    event = b"\x03" + msgpack.packb({"LTime": 1, "Name": "deploy", "Payload": b"x", "CC": True})
    query = b"\x04" + msgpack.packb({"LTime": 1, "ID": 7, "Flags": 1})
    quiet = b"\x04" + msgpack.packb({"LTime": 1, "ID": 8, "Flags": 2})
    assert [len(serf.receive(event, leaving=False)) for _ in range(3)] == [1, 0, 0]
    assert [len(serf.receive(query, leaving=False)) for _ in range(3)] == [1, 0, 0]
    assert serf.receive(quiet, leaving=False) == []
    assert serf.receive(b"\x05\x80", leaving=False) == []


def test_clock_cannot_be_exhausted_from_outside() -> None:
    with pytest.raises(MessageInvalid):
        Serf("a").receive(join("b", 2**63), leaving=False)


@given(st.integers(0, 12), st.binary(max_size=200))
def test_random_bytes_are_rejected_and_nothing_else_escapes(kind: int, data: bytes) -> None:
    for take in (Serf("a").receive, Serf("a").merge):
        try:
            take(bytes([kind]) + data, leaving=False)
        except MessageInvalid:
            continue
