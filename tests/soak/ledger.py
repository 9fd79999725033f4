"""What all browsers of a run must see: one sequence of events, and where each browser is in it.

Enters: keys of events in the order in which browsers see them. Leaves: counts of what is wrong.
Never: I/O, clocks; one record for each delivery.

Nobody knows the order of two publishers' events beforehand: whoever sees a new one first says what
the order is, and everybody else is held to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

EXAMPLES_MAX = 20
SKIPPED_MAX = 100_000
"""With so many events lost it does not matter any more whether some came late."""
NEWCOMER = -1
"""The place of a browser that asked for all that there is and has seen nothing yet."""


JETSTREAM, RPC, HTTP, MIXED = range(4)
"""The publishers, each with events 1, 2, 3, …"""
PUBLISHERS = ("JetStream", "gRPC", "HTTP", "second stream")
VERSIONS = 2
"""Events in a row over HTTP that have one id: the address of something, and what became of it."""
PRIVATE_EVERY = 4
"""Of what is published over HTTP, each fourth thing is private, in all its versions."""


def key_of(publisher: int, number: int) -> int:
    """Return the key of a publisher's event."""
    return len(PUBLISHERS) * number + publisher


def is_private(key: int) -> bool:
    """Whether only those see an event whose token has the right."""
    number, publisher = divmod(key, len(PUBLISHERS))
    return publisher == HTTP and number // VERSIONS % PRIVATE_EVERY == 0


def http_id(run: str, number: int) -> str:
    """Return the id of an event that is published over HTTP."""
    return f"{run}-h{number // VERSIONS}"


def first_with_id(run: str, event_id: str) -> int | None:
    """Return the key of the earliest event that has this id, if it is one of `http_id`."""
    thing = event_id.removeprefix(f"{run}-h")
    if thing == event_id or not thing.isdigit():
        return None
    return key_of(HTTP, max(1, VERSIONS * int(thing)))


@dataclass
class Ledger:
    """The sequence, and all that was wrong with what browsers saw of it."""

    order: list[int] = field(default_factory=list)
    lost: int = 0
    """Events that a browser did not get although it got a later one."""
    twice: int = 0
    disorder: int = 0
    """Events that came late, after ones that stand behind them in the sequence."""
    examples: list[str] = field(default_factory=list)
    _places: dict[int, int] = field(default_factory=dict)
    _skipped: set[tuple[str, int]] = field(default_factory=set)
    """Lost so far: who lost which place."""

    def see(self, who: str, place: int, keys: Sequence[int]) -> int:
        """Take what a browser sees next, when it has seen `place` events; return its new place."""
        end = place + len(keys)
        if place >= 0 and len(self.order) >= end and tuple(self.order[place:end]) == tuple(keys):
            return end
        for key in keys:
            place = self._see(who, place, key)
        return place

    def after_gap(self, place: int, key: int) -> int | None:
        """Return where a browser stands that was told of a gap and then gets `key`.

        None when nobody knows that event yet, so that nobody knows how much lies between.
        """
        there = self._places.get(key)
        return None if there is None else max(place, there)

    def resume_at(self, place: int, key: int) -> int:
        """Return where a browser goes on that asks for all after this event.

        Not after its last one, if an older one has the same id.
        """
        return min(place, self._places.get(key, place) + 1)

    def _see(self, who: str, place: int, key: int) -> int:
        there = self._places.get(key)
        if place == NEWCOMER:
            place = there if there is not None else len(self.order)
        if there == place:
            return place + 1
        if there is None:
            if place < len(self.order):
                self._skip(who, place, len(self.order), key)
            self._places[key] = len(self.order)
            self.order.append(key)
            return len(self.order)
        if there > place:
            self._skip(who, place, there, key)
            return there + 1
        if (who, there) in self._skipped:
            self._skipped.remove((who, there))
            self.lost -= 1
            self.disorder += 1
            self._note(f"{who} got {told(key)} {place - there} events late")
        else:
            self.twice += 1
            self._note(f"{who} got {told(key)} again, {place - there} events later")
        return place

    def _skip(self, who: str, place: int, there: int, key: int) -> None:
        self.lost += there - place
        if len(self._skipped) < SKIPPED_MAX:
            self._skipped |= {(who, skipped) for skipped in range(place, there)}
        missing = told(self.order[place])
        self._note(f"{who} got {told(key)} without the {there - place} before it, from {missing}")

    def _note(self, example: str) -> None:
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(example)

    def missing(self, acknowledged: Sequence[int], *, public: bool = False) -> list[int]:
        """Return the keys that nobody saw, of so many acknowledged events of each publisher.

        With `public`, only of those that everybody may see.
        """
        return [
            key
            for publisher, count in enumerate(acknowledged)
            for key in (key_of(publisher, number) for number in range(1, count + 1))
            if key not in self._places and not (public and is_private(key))
        ]


def told(key: int) -> str:
    """Return a key for a person."""
    number, publisher = divmod(key, len(PUBLISHERS))
    return f"{PUBLISHERS[publisher]} event {number}"
