"""Counts connections that are no streams, and decides which idle one makes room for which new one.

It touches no socket: it is called when a connection comes, is busy, is idle again and ends, and
calls back to close one.

A connection is *idle* as long as it is its client's turn: it may be closed at any time (RFC 9112,
9.5), so when all slots are taken, the one that is idle longest makes room. A *busy* one is left
alone. When all are busy, a new one gets a slot only to ask whether the node lives: a node that is
used to the full must not look dead to whatever would restart it.
"""

from collections.abc import Callable
from enum import Enum

from noti.client_counts import ClientCounts
from noti.descriptors import MADE_ROOM, OPEN, OPEN_MAX


class SlotsFull(Enum):
    """Why there is no slot."""

    NODE = "node"
    ADDRESS = "address"


class Slot:
    """One connection's slot; busy at first."""

    __slots__ = ("_slots", "client_key", "close", "full")

    def __init__(self, slots: "Slots", client_key: str, close: Callable[[], None]) -> None:
        self._slots = slots
        self.client_key = client_key
        """By which the connection is counted; empty when it is not."""
        self.close = close
        """Ends the connection at once."""
        self.full: SlotsFull | None = None
        """Why it is a slot for a probe alone; None for any other."""

    def mark_busy(self) -> None:
        """Note that the client waits for us."""
        self._slots._mark_busy(self)

    def mark_idle(self) -> None:
        """Note that it is the client's turn, from now on."""
        self._slots._mark_busy(self)
        self._slots._mark_idle(self)

    def release(self) -> None:
        """Give the slot back, because the connection ended or became a stream."""
        self._slots._release(self)

    def take_again(self) -> None:
        """Take the slot again, busy, also when there is none: the connection is here already."""
        self._slots._enter(self)


class Slots:
    """The slots of one listener."""

    def __init__(
        self,
        listener: str,
        slots_max: int,
        per_client_max: int = 0,
        probes_max: int = 0,
        counts: ClientCounts | None = None,
    ) -> None:
        """`per_client_max` of 0 means that clients are not told apart.

        `probes_max` more slots are for probes when all others are busy. `counts` has what clients
        have elsewhere, too.
        """
        self._max = slots_max
        self._per_client_max = per_client_max
        self._probes_max = probes_max
        self._taken: set[Slot] = set()
        self._probes: dict[Slot, None] = {}
        self._idle: dict[Slot, None] = {}
        """The one that is idle longest comes first."""
        self._idle_of: dict[str, dict[Slot, None]] = {}
        """The same for each client that has any."""
        self._counts = ClientCounts() if counts is None else counts
        self._made_room = MADE_ROOM.labels(listener)
        self._open = OPEN.labels(listener)
        self._open_max = OPEN_MAX.labels(listener)
        self._open_max.set(slots_max)

    def change(self, slots_max: int, per_client_max: int) -> None:
        """Hold to other limits from now on; connections that are open stay, until they are idle."""
        self._max = slots_max
        self._per_client_max = per_client_max
        self._open_max.set(slots_max)

    @property
    def counts_clients(self) -> bool:
        """Whether it matters from where a connection comes."""
        return self._per_client_max > 0

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, client_key: str, close: Callable[[], None]) -> Slot | SlotsFull:
        """Return a slot, or why there is none.

        Closes the connection that is idle longest, if need be.
        """
        slot = Slot(self, client_key if self.counts_clients else "", close)
        if slot.client_key:
            full = self._counts.of(slot.client_key) >= self._per_client_max
            if full and not self._make_room(self._idle_of.get(slot.client_key, {})):
                return SlotsFull.ADDRESS
        if len(self._taken) >= self._max and not self._make_room(self._idle):
            return SlotsFull.NODE
        self._enter(slot)
        return slot

    def take_for_probe(self, full: SlotsFull, close: Callable[[], None]) -> Slot:
        """Return one of the slots for probes, after `take` said that the others are `full`.

        The connection that has one for longest makes room.
        """
        assert self._probes_max, "this listener keeps slots for probes"
        if len(self._probes) >= self._probes_max:
            self._evict(next(iter(self._probes)))
        slot = Slot(self, "", close)
        slot.full = full
        self._enter(slot)
        return slot

    def _make_room(self, idle: dict[Slot, None]) -> bool:
        if not idle:
            return False
        self._evict(next(iter(idle)))
        return True

    def _evict(self, slot: Slot) -> None:
        self._made_room.inc()
        self._release(slot)
        slot.close()

    def _enter(self, slot: Slot) -> None:
        if slot in self._taken or slot in self._probes:
            return
        self._open.inc()
        if slot.full is not None:
            self._probes[slot] = None
            return
        self._taken.add(slot)
        if slot.client_key:
            self._counts.add(slot.client_key)

    def _release(self, slot: Slot) -> None:
        if slot in self._probes:
            del self._probes[slot]
        elif slot in self._taken:
            self._mark_busy(slot)
            self._taken.remove(slot)
            if slot.client_key:
                self._counts.remove(slot.client_key)
        else:
            return
        self._open.dec()

    def _mark_busy(self, slot: Slot) -> None:
        self._idle.pop(slot, None)
        if (idle := self._idle_of.get(slot.client_key)) is not None:
            idle.pop(slot, None)
            if not idle:
                del self._idle_of[slot.client_key]

    def _mark_idle(self, slot: Slot) -> None:
        if slot in self._taken:
            self._idle[slot] = None
            if slot.client_key:
                self._idle_of.setdefault(slot.client_key, {})[slot] = None
