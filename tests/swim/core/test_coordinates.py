"""Coordinates: distances that come near the real ones, and foreign ones that cannot do harm."""

import math
import random
import statistics
from dataclasses import replace

import msgpack
import pytest

from noti.errors import MessageInvalid
from noti.swim.core.coordinates import (
    DIMENSIONS,
    ERROR_MAX,
    Coordinate,
    OwnCoordinate,
    decode_coordinate,
    encode_coordinate,
)
from noti.swim.core.events import GossipRejected
from noti.swim.core.messages import Ack, Ping
from tests.swim.core.test_machine import cluster, of_type
from tests.swim.core.wire import DELAY_S, address


def payload(version: int = 1, **fields: object) -> bytes:
    """The payload of an ack, with some fields other than usual."""
    usual = {"Vec": [0.001] * DIMENSIONS, "Error": 1.0, "Adjustment": 0.0, "Height": 1e-5}
    body: bytes = msgpack.packb(usual | fields, use_bin_type=False)
    return bytes([version]) + body


def test_coordinate_survives_the_wire() -> None:
    coordinate = Coordinate(tuple(0.001 * n for n in range(DIMENSIONS)), 0.3, -1e-4, 2e-3)
    assert decode_coordinate(encode_coordinate(coordinate)) == coordinate
    assert decode_coordinate(payload()).error == 1.0


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"\x01",
        payload(version=2),
        payload(Vec=[0.0] * 7),
        payload(Vec=[0.0] * 9),
        payload(Vec=None),
        payload(Vec=["a"] * DIMENSIONS),
        payload(Vec=[math.nan] + [0.0] * 7),
        payload(Vec=[math.inf] + [0.0] * 7),
        payload(Vec=[1e300] + [0.0] * 7),
        payload(Error=math.nan),
        payload(Error=-1.0),
        payload(Error="x"),
        payload(Adjustment=math.inf),
        payload(Height=-1.0),
    ],
)
def test_impossible_coordinate_is_rejected(wrong: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_coordinate(wrong)


def test_round_trip_of_no_time_leaves_a_valid_coordinate() -> None:
    own = OwnCoordinate(random.Random(1))
    for _ in range(100):
        own.learn(Coordinate(), [0.0])
    assert own.now.is_valid()
    assert own.now.distance_s(Coordinate()) < 1e-3


def test_round_trip_that_no_member_has_is_not_learnt_from() -> None:
    own = OwnCoordinate(random.Random(1))
    own.learn(Coordinate(), [60.0])
    assert own.now == Coordinate()


def test_one_late_answer_among_three_changes_nothing() -> None:
    own, other = OwnCoordinate(random.Random(1)), OwnCoordinate(random.Random(1))
    own.learn(Coordinate(), [0.001, 5.0, 0.001])
    other.learn(Coordinate(), [0.001, 0.001, 0.001])
    assert own.now == other.now


def test_link_of_its_own_is_the_height_of_a_node_that_nothing_is_near_to() -> None:
    own = OwnCoordinate(random.Random(1))
    here = Coordinate((0.001, *[0.0] * 7), error=0.1)
    own.learn(here, [0.05])
    assert own.now.height_s > 1e-4


def test_part_of_what_the_space_cannot_hold_adjusts_the_distance() -> None:
    own = OwnCoordinate(random.Random(1))
    own.learn(Coordinate(), [0.1])
    left_s = 0.1 - own.now.raw_distance_s(Coordinate())
    assert own.now.adjustment_s == pytest.approx(left_s / 40, rel=0.01)


def test_coordinates_do_not_drift_away_together() -> None:
    own = OwnCoordinate(random.Random(1))
    own.now = Coordinate((9.0, *[0.0] * 7))
    beside = Coordinate((9.001, *[0.0] * 7))
    for _ in range(10):
        own.learn(beside, [own.now.distance_s(beside)])
    assert own.now.vector[0] < 8.99


def test_negative_adjustments_never_make_a_negative_distance() -> None:
    coordinate = replace(Coordinate(), adjustment_s=-1.0)
    assert coordinate.distance_s(Coordinate()) > 0


def test_hostile_coordinates_never_make_ours_invalid() -> None:
    own = OwnCoordinate(random.Random(4))
    rng = random.Random(5)
    for _ in range(5_000):
        vector = tuple(rng.choice([-10.0, 0.0, 10.0]) for _ in range(DIMENSIONS))
        height_s = rng.choice([0.0, 10.0])
        hostile = Coordinate(vector, rng.choice([0.0, 10.0]), rng.choice([-10.0, 10.0]), height_s)
        assert hostile.is_valid()
        own.learn(hostile, [rng.choice([1e-9, 0.01, 9.9])])
        assert own.now.is_valid()


def test_distances_come_near_the_round_trips_of_the_network() -> None:
    rng = random.Random(6)
    # Ten nodes on a map of 40 by 40 ms, each with a link of its own of up to 5 ms.
    places = [(rng.uniform(0, 0.04), rng.uniform(0, 0.04)) for _ in range(10)]
    links = [rng.uniform(0.0005, 0.005) for _ in places]
    own = [OwnCoordinate(rng) for _ in places]

    def real_s(one: int, other: int) -> float:
        return math.dist(places[one], places[other]) + links[one] + links[other]

    for _ in range(300):
        for one in range(10):
            other = rng.choice([number for number in range(10) if number != one])
            measured_s = real_s(one, other) * rng.uniform(0.95, 1.05)
            own[one].learn(own[other].now, [measured_s])
    errors = [
        abs(own[one].now.distance_s(own[other].now) - real_s(one, other)) / real_s(one, other)
        for one in range(10)
        for other in range(one)
    ]
    assert statistics.median(errors) < 0.15
    assert all(each.now.error < ERROR_MAX / 3 for each in own)


def test_members_learn_how_far_they_are_from_their_own_pings() -> None:
    wire = cluster(3)
    wire.run(120)
    core = wire.cores["n1"]
    for one, other in (("n1", "n2"), ("n2", "n3"), ("n3", "n1")):
        distance_s = core.distance_s(one, other)
        assert distance_s == pytest.approx(2 * DELAY_S, rel=0.3)
    assert core.distance_s("n1", "n9") is None


def test_only_members_are_told_where_we_are() -> None:
    wire = cluster(2)
    ping = Ping(1, "n1", None, "")
    [(_, to_member)] = wire.messages(wire.deliver("n1", ping, source=address("n2")))
    assert isinstance(to_member, Ack)
    assert decode_coordinate(to_member.payload or b"").is_valid()
    [(_, to_stranger)] = wire.messages(wire.deliver("n1", ping))
    assert to_stranger == Ack(1, None)


def test_invalid_coordinate_is_counted_and_its_sender_stays_a_member() -> None:
    wire = cluster(2)
    wire.passes_udp = lambda sender, receiver: receiver == "n1"
    wire.sent.clear()
    while not (pings := [m for n, _, m in wire.sent if n == "n1" and isinstance(m, Ping)]):
        wire.run(0.05)
    wire.effects.clear()
    wire.deliver("n1", Ack(pings[0].sequence, payload(Error=math.nan)), source=address("n2"))
    assert [
        each.reason for each in of_type(wire, GossipRejected) if isinstance(each, GossipRejected)
    ] == ["coordinate"]
    wire.run(0.9)
    assert wire.view("n1")["n2"] == "alive"


def test_coordinate_from_another_address_is_not_taken() -> None:
    wire = cluster(2)
    before = wire.cores["n1"].distance_s("n1", "n2")
    wire.passes_udp = lambda sender, receiver: receiver == "n1"
    wire.sent.clear()
    while not (pings := [m for n, _, m in wire.sent if n == "n1" and isinstance(m, Ping)]):
        wire.run(0.05)
    wire.deliver("n1", Ack(pings[0].sequence, payload(Vec=[5.0] * 8)), source=("10.9.9.9", 1))
    assert wire.cores["n1"].distance_s("n1", "n2") == before
