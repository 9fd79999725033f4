"""Counts connections that are no streams, and says who makes room for whom.

Enters: connections that come, get busy, wait again and go, with the address that each came from.
Leaves: places, refusals, calls that close a connection. Never: sockets, I/O.

A connection *waits* as long as it is its client's turn: it may be closed at any time (RFC 9112,
9.5), so when all places are taken, who waits longest makes room. A *busy* one is left alone. When
all are busy, a newcomer gets a place only to ask whether the node lives: a node that is used to the
full must not look dead to who would restart it.
"""

from collections.abc import Callable
from enum import Enum

from noti.descriptors import MADE_ROOM, OPEN, OPEN_MAX


class SlotsFull(Enum):
    """Why there is no place."""

    NODE = "node"
    ADDRESS = "address"


class Place:
    """One connection's place; busy at first."""

    __slots__ = ("_places", "address", "close", "full")

    def __init__(self, places: "Places", address: str, close: Callable[[], None]) -> None:
        self._places = places
        self.address = address
        """By which the connection is counted; empty when it is not."""
        self.close = close
        """Ends the connection at once."""
        self.full: SlotsFull | None = None
        """Why it is a place for a probe alone; None for any other."""

    def begin(self) -> None:
        """Be busy from now on."""
        self._places._begin(self)

    def wait(self) -> None:
        """Wait for the client, as the one who has waited least."""
        self._places._begin(self)
        self._places._wait(self)

    def leave(self) -> None:
        """Give the place back, because the connection ended or became a stream."""
        self._places._leave(self)

    def come_back(self) -> None:
        """Take the place again, busy, also when there is none: the connection is here already."""
        self._places._enter(self)


class _Household:
    """The places of one address."""

    __slots__ = ("taken", "waiting")

    def __init__(self) -> None:
        self.taken = 0
        self.waiting: dict[Place, None] = {}


class Places:
    """The places of one listener."""

    def __init__(
        self, listener: str, places_max: int, per_address_max: int = 0, probes_max: int = 0
    ) -> None:
        """`per_address_max` of 0 means that addresses are not counted. `probes_max` more places
        are for probes when all others are busy.
        """
        self._max = places_max
        self._per_address_max = per_address_max
        self._probes_max = probes_max
        self._taken: set[Place] = set()
        self._probes: dict[Place, None] = {}
        self._waiting: dict[Place, None] = {}
        """In the order in which their waiting began."""
        self._households: dict[str, _Household] = {}
        self._made_room = MADE_ROOM.labels(listener)
        self._open = OPEN.labels(listener)
        OPEN_MAX.labels(listener).set(places_max)

    @property
    def counts_addresses(self) -> bool:
        """Whether it matters from where a connection comes."""
        return self._per_address_max > 0

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, address: str, close: Callable[[], None]) -> Place | SlotsFull:
        """Return a place, or what there is too little of; closes who waits longest, if need be."""
        place = Place(self, address if self.counts_addresses else "", close)
        if place.address and (household := self._households.get(place.address)) is not None:
            full = household.taken >= self._per_address_max
            if full and not self._make_room(household.waiting):
                return SlotsFull.ADDRESS
        if len(self._taken) >= self._max and not self._make_room(self._waiting):
            return SlotsFull.NODE
        self._enter(place)
        return place

    def take_for_probe(self, full: SlotsFull, close: Callable[[], None]) -> Place:
        """Return one of the places for probes, after `take` said that the others are `full`; who
        has one for longest makes room.
        """
        assert self._probes_max, "this listener keeps places for probes"
        if len(self._probes) >= self._probes_max:
            self._evict(next(iter(self._probes)))
        place = Place(self, "", close)
        place.full = full
        self._enter(place)
        return place

    def _make_room(self, waiting: dict[Place, None]) -> bool:
        if not waiting:
            return False
        self._evict(next(iter(waiting)))
        return True

    def _evict(self, place: Place) -> None:
        self._made_room.inc()
        self._leave(place)
        place.close()

    def _enter(self, place: Place) -> None:
        if place in self._taken or place in self._probes:
            return
        self._open.inc()
        if place.full is not None:
            self._probes[place] = None
            return
        self._taken.add(place)
        if place.address:
            self._households.setdefault(place.address, _Household()).taken += 1

    def _leave(self, place: Place) -> None:
        if place in self._probes:
            del self._probes[place]
        elif place in self._taken:
            self._begin(place)
            self._taken.remove(place)
            if place.address:
                household = self._households[place.address]
                household.taken -= 1
                if not household.taken:
                    del self._households[place.address]
        else:
            return
        self._open.dec()

    def _begin(self, place: Place) -> None:
        self._waiting.pop(place, None)
        if place.address and (household := self._households.get(place.address)) is not None:
            household.waiting.pop(place, None)

    def _wait(self, place: Place) -> None:
        if place in self._taken:
            self._waiting[place] = None
            if place.address:
                self._households[place.address].waiting[place] = None
