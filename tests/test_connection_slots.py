"""Promises about places: who makes room, who does not, and that none is lost."""

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noti.connection_slots import Place, Places, SlotsFull


class Room:
    """Places, and the names of the connections that were closed to make room."""

    def __init__(self, places_max: int, per_address_max: int = 0, probes_max: int = 0) -> None:
        self.places = Places("of this test", places_max, per_address_max, probes_max)
        self.closed: list[str] = []

    def take(self, name: str, address: str = "a") -> Place:
        place = self.places.take(address, partial(self.closed.append, name))
        assert isinstance(place, Place), place
        return place

    def refusal(self, address: str = "a") -> SlotsFull:
        full = self.places.take(address, lambda: None)
        assert isinstance(full, SlotsFull)
        return full


def test_who_waits_longest_makes_room() -> None:
    room = Room(3)
    first, second, third = room.take("first"), room.take("second"), room.take("third")
    for place in (first, second, third):
        place.wait()
    first.begin()
    first.wait()
    room.take("fourth")
    assert room.closed == ["second"]
    room.take("fifth")
    assert room.closed == ["second", "third"]
    assert len(room.places) == 3


def test_busy_ones_are_left_alone() -> None:
    room = Room(2)
    first = room.take("first")
    room.take("second")
    assert room.refusal() is SlotsFull.NODE
    first.wait()
    room.take("third")
    assert room.closed == ["first"]


def test_an_address_makes_room_among_its_own() -> None:
    room = Room(10, per_address_max=2)
    room.take("other", "b").wait()
    mine = [room.take("first"), room.take("second")]
    assert room.refusal() is SlotsFull.ADDRESS
    mine[1].wait()
    room.take("third")
    assert room.closed == ["second"]
    for address in ("", ""):
        room.take("uncounted", address)


def test_a_probe_finds_a_place_when_all_are_busy() -> None:
    room = Room(1, probes_max=2)
    room.take("busy")
    names = ("one", "two", "three")
    probes = [
        room.places.take_for_probe(SlotsFull.NODE, partial(room.closed.append, name))
        for name in names
    ]
    assert room.closed == ["one"]
    assert all(probe.full is SlotsFull.NODE for probe in probes)
    probes[2].leave()
    room.places.take_for_probe(SlotsFull.NODE, lambda: None)
    assert room.closed == ["one"]


def test_a_stream_gives_its_place_back_and_may_return() -> None:
    room = Room(1, per_address_max=1)
    stream = room.take("stream")
    stream.leave()
    stream.leave()
    other = room.take("other")
    stream.wait()
    assert not room.closed
    stream.come_back()
    assert len(room.places) == 2, "it is here already"
    other.leave()
    stream.leave()
    assert len(room.places) == 0
    assert not room.places._households


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["take", "begin", "wait", "leave", "come_back"]), st.integers(0, 9)
        ),
        max_size=60,
    ),
    st.integers(1, 4),
    st.integers(0, 2),
)
def test_whatever_happens_places_are_neither_lost_nor_invented(
    steps: list[tuple[str, int]], places_max: int, per_address_max: int
) -> None:
    places = Places("of this test", places_max, per_address_max)
    taken: list[Place] = []
    for step, number in steps:
        if step == "take":
            place = places.take(str(number % 3), lambda: None)
            if isinstance(place, Place):
                taken.append(place)
        elif taken:
            getattr(taken[number % len(taken)], step)()
        assert set(places._waiting) <= places._taken
    for place in taken:
        place.leave()
    assert not places._taken
    assert not places._waiting
    assert not places._households


@pytest.mark.parametrize("per_address_max", [0, 1])
def test_addresses_are_remembered_only_if_they_are_counted(per_address_max: int) -> None:
    room = Room(2, per_address_max)
    room.take("one")
    assert len(room.places._households) == per_address_max
