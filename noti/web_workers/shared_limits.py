"""Holds web workers to the limits of their node as a whole.

Enters: how many streams each worker has, and how many each client has there. Leaves: how many
streams each worker may have, and how many each client has at the others.
Never: more streams in all than the node may have; I/O, clocks.

Each worker has an *allowance*, and what is free is spread evenly, again when one of them has less
than half of its share left. An allowance that was lowered counts as it was until its worker says
that it holds to the lower one: only then another one's is raised. That of a worker that died is
kept for its successor.

A client's streams at the others are known a moment later, so a client that opens many at once may
get its limit at each worker, and no more than that.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

KINDS: Final = ("streams", "connections")
"""What clients are counted for."""


class Allowances:
    """How many streams each worker may have."""

    def __init__(self, streams_max: int, workers: int) -> None:
        """Workers have the numbers from 1 on."""
        self._streams_max = streams_max
        numbers = range(1, workers + 1)
        self._clients = dict.fromkeys(numbers, 0)
        share, rest = divmod(streams_max, workers)
        self._told = {number: share + (number <= rest) for number in numbers}
        self._granted = dict(self._told)
        """What a worker may have, for all that is known: it may not know of less yet."""
        self._unanswered: set[int] = set()
        """Workers that were told, and have not said yet that they go by it."""

    def resize(self, streams_max: int) -> None:
        """Let all workers together have so many from now on; `changes` says what to tell them."""
        self._streams_max = streams_max

    def began(self, number: int) -> int:
        """Return the allowance that is to be told to a worker that begins."""
        self._unanswered.add(number)
        return self._told[number]

    def reported(self, number: int, clients: int, allowance: int) -> None:
        """Note how many streams a worker has, and the allowance that it goes by."""
        self._clients[number] = clients
        if allowance == self._told[number]:
            self._unanswered.discard(number)
            self._granted[number] = max(allowance, clients)

    def ended(self, number: int) -> None:
        """Note that a worker is gone, with its streams."""
        self._unanswered.discard(number)
        self._clients[number] = 0
        self._granted[number] = self._told[number]

    def changes(self) -> dict[int, int]:
        """Return the workers that are to be told another allowance, and which."""
        free = max(0, self._streams_max - sum(self._clients.values()))
        share, rest = divmod(free, len(self._clients))
        fair = share + (rest > 0)
        left = self._streams_max - sum(self._granted.values())
        # Less than nothing is left after the limit was lowered, until all have less.
        if left == 0 and all(2 * (self._told[n] - c) >= fair for n, c in self._clients.items()):
            return {}
        changes = {}
        for number in self._clients.keys() - self._unanswered:
            told, granted = self._told[number], self._granted[number]
            wanted = self._clients[number] + share + (number <= rest)
            wanted = min(wanted, granted + max(left, 0))
            if wanted == told:
                continue
            left -= max(0, wanted - granted)
            self._granted[number] = max(wanted, granted)
            self._told[number] = changes[number] = wanted
        self._unanswered |= changes.keys()
        return changes


class ClientTable:
    """How many of one kind each client has at each worker."""

    def __init__(self) -> None:
        self._at: dict[int, dict[str, int]] = {}
        self._total: Counter[str] = Counter()

    def reported(self, number: int, counts: Mapping[str, int]) -> None:
        """Note how many some clients have at a worker now."""
        here = self._at.setdefault(number, {})
        for client_key, count in counts.items():
            self._total[client_key] += count - here.pop(client_key, 0)
            if count:
                here[client_key] = count
            if not self._total[client_key]:
                del self._total[client_key]

    def ended(self, number: int) -> list[str]:
        """Note that a worker is gone; return the clients that it had."""
        gone = list(self._at.get(number, ()))
        self.reported(number, dict.fromkeys(gone, 0))
        return gone

    def clients(self) -> Iterable[str]:
        """Return all that have any."""
        return self._total.keys()

    def elsewhere(self, number: int, clients: Iterable[str]) -> dict[str, int]:
        """Return how many some clients have at other workers than this one."""
        here = self._at.get(number, {})
        return {one: self._total[one] - here.get(one, 0) for one in clients}
