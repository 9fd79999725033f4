"""Promises about slots: who makes room, who does not, and that none is lost."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noti.connection_slots import Slot, Slots, SlotsFull


class Room:
    """Slots, and the names of the connections that were closed to make room."""

    def __init__(self, slots_max: int, per_client_max: int = 0, probes_max: int = 0) -> None:
        self.slots = Slots("of this test", slots_max, per_client_max, probes_max)
        self.closed: list[str] = []

    def take(self, name: str, address: str = "a") -> Slot:
        slot = self.slots.take(address, partial(self.closed.append, name))
        assert isinstance(slot, Slot), slot
        return slot

    def refusal(self, address: str = "a") -> SlotsFull:
        full = self.slots.take(address, lambda: None)
        assert isinstance(full, SlotsFull)
        return full


def test_who_waits_longest_makes_room() -> None:
    room = Room(3)
    first, second, third = room.take("first"), room.take("second"), room.take("third")
    for slot in (first, second, third):
        slot.mark_idle()
    first.mark_busy()
    first.mark_idle()
    room.take("fourth")
    assert room.closed == ["second"]
    room.take("fifth")
    assert room.closed == ["second", "third"]
    assert len(room.slots) == 3


def test_busy_ones_are_left_alone() -> None:
    room = Room(2)
    first = room.take("first")
    room.take("second")
    assert room.refusal() is SlotsFull.NODE
    first.mark_idle()
    room.take("third")
    assert room.closed == ["first"]


def test_an_address_makes_room_among_its_own() -> None:
    room = Room(10, per_client_max=2)
    room.take("other", "b").mark_idle()
    mine = [room.take("first"), room.take("second")]
    assert room.refusal() is SlotsFull.ADDRESS
    mine[1].mark_idle()
    room.take("third")
    assert room.closed == ["second"]
    for address in ("", ""):
        room.take("uncounted", address)


def test_a_probe_finds_a_slot_when_all_are_busy() -> None:
    room = Room(1, probes_max=2)
    room.take("busy")
    names = ("one", "two", "three")
    probes = [
        room.slots.take_for_probe(SlotsFull.NODE, partial(room.closed.append, name))
        for name in names
    ]
    assert room.closed == ["one"]
    assert all(probe.full is SlotsFull.NODE for probe in probes)
    probes[2].release()
    room.slots.take_for_probe(SlotsFull.NODE, lambda: None)
    assert room.closed == ["one"]


def test_a_stream_gives_its_slot_back_and_may_return() -> None:
    room = Room(1, per_client_max=1)
    stream = room.take("stream")
    stream.release()
    stream.release()
    other = room.take("other")
    stream.mark_idle()
    assert not room.closed
    stream.take_again()
    assert len(room.slots) == 2, "it is here already"
    other.release()
    stream.release()
    assert len(room.slots) == 0
    assert not room.slots._counts


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "mark_busy", "mark_idle", "release", "take_again"]),
            st.integers(0, 9),
        ),
        max_size=60,
    ),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_whatever_happens_places_are_neither_lost_nor_invented(
    steps: list[tuple[str, int]], slots_max: int, per_client_max: int
) -> None:
    slots = Slots("of this test", slots_max, per_client_max)
    taken: list[Slot] = []
    for step, number in steps:
        if step == "take":
            slot = slots.take(str(number % 3), lambda: None)
            if isinstance(slot, Slot):
                taken.append(slot)
        elif taken:
            getattr(taken[number % len(taken)], step)()
        assert set(slots._idle) <= slots._taken
    for slot in taken:
        slot.release()
    assert not slots._taken
    assert not slots._idle
    assert not slots._counts
    assert not slots._idle_of


@pytest.mark.parametrize("per_client_max", [0, 1])
def test_clients_are_remembered_only_if_they_are_counted(per_client_max: int) -> None:
    room = Room(2, per_client_max)
    room.take("one")
    assert len(room.slots._counts) == per_client_max


def test_other_limits_hold_for_whoever_comes_next() -> None:
    room = Room(1)
    first = room.take("first")
    assert room.refusal() is SlotsFull.NODE
    room.slots.change(3, 1)
    room.take("second", "b")
    assert room.refusal("b") is SlotsFull.ADDRESS
    room.take("third", "a")
    room.slots.change(1, 0)
    first.mark_idle()
    assert not room.closed
    first.release()
    assert len(room.slots) == 2


def test_connections_are_counted_as_they_were_when_they_came() -> None:
    room = Room(9)
    before = room.take("before")
    room.slots.change(9, 1)
    during = room.take("during")
    assert room.refusal() is SlotsFull.ADDRESS
    room.slots.change(9, 0)
    after = room.take("after")
    for slot in (before, during, after):
        slot.release()
    room.slots.change(9, 1)
    room.take("again")
