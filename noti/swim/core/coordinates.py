"""Estimates the round trip between any two members from coordinates that each finds for itself.

Enters: payloads of acks, round trips of our own pings. Leaves: the payload of our acks, distances.
Never: a decision about a member; the distances are for people (`noti rtt`, `serf rtt`).

Vivaldi treats each round trip as a spring between two points, and moves its own point a little at
each answer. The constants are those of Serf, with whose nodes we share the space.

Sources: Dabek and others 2004 (Vivaldi; 5.4: heights); Ledlie, Gardner, Seltzer 2007 (median
filter, gravity); Lee and others 2009 (adjustment of the distance).
"""

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgpack

from noti.errors import MessageInvalid
from noti.swim.core.encoding import unpack

DIMENSIONS: Final = 8
ERROR_MAX: Final = 1.5
"""Of a node that knows nothing yet; 0 is certain."""
HEIGHT_S_MIN: Final = 1e-5
"""The height is a node's own link to the network, which every packet passes."""

_PING_VERSION: Final = 1
"""The first byte of a payload."""
_SECONDS_MAX: Final = 10.0
"""No round trip of a living member is longer, so nothing in a coordinate is larger either."""
_ROUND_TRIPS_MAX: Final = 3
"""The median of this many is taken: one late answer tells nothing about the network."""
_CORRECTION: Final = 0.25
"""Share of the difference that is corrected at each answer (Vivaldi's ce and cc)."""
_ADJUSTMENT_SAMPLES: Final = 20
_GRAVITY_S: Final = 150.0
"""So far from the origin it pulls with one second; it only keeps all from drifting away."""
_NEARLY_ZERO_S: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Coordinate:
    """A node's place in the space of round trips; all but the error in seconds."""

    vector: tuple[float, ...] = (0.0,) * DIMENSIONS
    error: float = ERROR_MAX
    adjustment_s: float = 0.0
    height_s: float = HEIGHT_S_MIN

    def is_valid(self) -> bool:
        """Whether all numbers are possible; NaN is not."""
        numbers = (*self.vector, self.error, self.adjustment_s, self.height_s)
        small = all(abs(each) <= _SECONDS_MAX for each in numbers)
        return small and self.error >= 0 and self.height_s >= 0 and len(self.vector) == DIMENSIONS

    def raw_distance_s(self, other: "Coordinate") -> float:
        """Return the round trip between two nodes, without their adjustments."""
        return math.dist(self.vector, other.vector) + self.height_s + other.height_s

    def distance_s(self, other: "Coordinate") -> float:
        """Return the estimated round trip between two nodes."""
        raw_s = self.raw_distance_s(other)
        adjusted_s = raw_s + self.adjustment_s + other.adjustment_s
        return adjusted_s if adjusted_s > 0 else raw_s

    def pushed(self, force_s: float, other: "Coordinate", rng: random.Random) -> "Coordinate":
        """Return it moved away from another one, or towards it when the force is negative."""
        apart = [mine - theirs for mine, theirs in zip(self.vector, other.vector, strict=True)]
        length_s = math.hypot(*apart)
        height_s = self.height_s
        if length_s > _NEARLY_ZERO_S:
            height_s += (self.height_s + other.height_s) * force_s / length_s
        else:  # at the same place: in any direction
            apart = [rng.random() - 0.5 for _ in apart]
        scale = force_s / max(math.hypot(*apart), _NEARLY_ZERO_S)
        vector = tuple(mine + scale * each for mine, each in zip(self.vector, apart, strict=True))
        return replace(self, vector=vector, height_s=max(height_s, HEIGHT_S_MIN))


_ORIGIN: Final = Coordinate()


class OwnCoordinate:
    """This node's coordinate, and how it finds it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._differences_s = deque([0.0] * _ADJUSTMENT_SAMPLES, _ADJUSTMENT_SAMPLES)
        self.now = _ORIGIN
        self.payload = ORIGIN_PAYLOAD
        """What our acks carry."""

    def learn(self, other: Coordinate, round_trips_s: Sequence[float]) -> None:
        """Take the coordinate of a member that answered, and how long its last answers took."""
        last = sorted(round_trips_s[-_ROUND_TRIPS_MAX:])
        round_trip_s = max(last[len(last) // 2], _NEARLY_ZERO_S)
        if round_trip_s > _SECONDS_MAX:
            return
        me = self.now
        distance_s = me.distance_s(other)
        wrongness = abs(distance_s - round_trip_s) / round_trip_s
        weight = me.error / max(me.error + other.error, _NEARLY_ZERO_S)
        step = _CORRECTION * weight
        me = replace(me, error=min(step * wrongness + me.error * (1 - step), ERROR_MAX))
        me = me.pushed(step * (round_trip_s - distance_s), other, self._rng)
        self._differences_s.append(round_trip_s - me.raw_distance_s(other))
        adjustment_s = sum(self._differences_s) / (2 * _ADJUSTMENT_SAMPLES)
        me = replace(me, adjustment_s=adjustment_s)
        gravity_s = (_ORIGIN.distance_s(me) / _GRAVITY_S) ** 2
        me = me.pushed(-gravity_s, _ORIGIN, self._rng)
        self.now = me if me.is_valid() else _ORIGIN
        self.payload = encode_coordinate(self.now)


def encode_coordinate(coordinate: Coordinate) -> bytes:
    """Return a coordinate as the payload of an ack."""
    fields = {
        "Adjustment": coordinate.adjustment_s,
        "Error": coordinate.error,
        "Height": coordinate.height_s,
        "Vec": coordinate.vector,
    }
    body: bytes = msgpack.packb(fields, use_bin_type=False)
    return bytes([_PING_VERSION]) + body


def decode_coordinate(payload: bytes) -> Coordinate:
    """Return the coordinate in the payload of an ack; raises `MessageInvalid`."""
    if payload[:1] != bytes([_PING_VERSION]):
        raise MessageInvalid("a coordinate of another version")
    fields = unpack(payload[1:])
    vector = fields.get(b"Vec")
    values = [fields.get(name, 0.0) for name in (b"Error", b"Adjustment", b"Height")]
    values += vector if isinstance(vector, list) else []
    numbers = [float(each) for each in values if isinstance(each, int | float)]
    coordinate = Coordinate(tuple(numbers[3:]), *numbers[:3])
    if len(numbers) != len(values) or not coordinate.is_valid():
        raise MessageInvalid("a coordinate with other dimensions or impossible numbers")
    return coordinate


ORIGIN_PAYLOAD: Final = encode_coordinate(_ORIGIN)
"""What a node says that knows nothing yet."""
