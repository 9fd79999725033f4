"""Serf's part of a full state."""

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.swim.core.serf.messages import UserEvent
from noti.swim.core.serf.states import SerfState, decode_state, encode_state


def raw(**fields: object) -> bytes:
    return b"\x02" + bytes(msgpack.packb(fields, use_bin_type=False))


def test_state_is_read_as_it_was_written() -> None:
    events = (UserEvent(3, b"a", b"1"), UserEvent(3, b"b", b"2"), UserEvent(4, b"a", b"1"))
    state = SerfState(9, {"x": 3, "y": 0}, frozenset({"y"}), 5, events, 7)
    assert decode_state(encode_state(state)) == state


def test_buffer_of_a_real_agent_mostly_of_nil_is_read() -> None:
    slots: list[object] = [None] * 512
    slots[3] = {"LTime": 3, "Events": [{"Name": "deploy", "Payload": b"x"}]}
    state = decode_state(raw(EventLTime=4, Events=slots, LeftMembers=None, StatusLTimes=None))
    assert state.events == (UserEvent(3, b"deploy", b"x"),)
    assert (state.event_time, state.status_times, state.left) == (4, {}, frozenset())


def test_odd_records_are_left_out_and_the_others_count() -> None:
    state = decode_state(
        raw(
            LTime=9,
            StatusLTimes={"tab\there": 1, "x" * 200: 2, "late": -1, 7: 1, "good": 4},
            LeftMembers=["good", 5, ""],
            Events=[{"LTime": "x"}, {"LTime": 2, "Events": 7}, {"LTime": 2, "Events": [5, {}]}],
        )
    )
    assert state.status_times == {"good": 4}
    assert state.left == {"good"}
    assert state.events == (UserEvent(2, b"", b""),)


@pytest.mark.parametrize(
    "data",
    [
        b"\x01\x80",
        b"\x02",
        b"\x02\xc0",
        b"\x02garbage",
        raw(StatusLTimes=[1]),
        raw(LeftMembers={"a": 1}),
        raw(Events={}, LTime=-1),
        raw(Events="text"),
    ],
)
def test_bad_states_are_rejected(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_state(data)
