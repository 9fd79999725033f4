"""Counts the streams that are open, and says whether there is room for another one.

Enters: clients that come and go, with the address that each came from. Leaves: counts, yes or no.
Never: sockets, I/O, an address in a metric.
"""

from collections import Counter
from enum import Enum

from noti.streams.clients import CLIENTS, CLOSED_FOR, OPENED, Reason


class Full(Enum):
    """Why there is no room."""

    NODE = "this node has as many streams as it may have"
    ADDRESS = "your address has as many streams as one may have"


class Census:
    """The streams of one node."""

    def __init__(self, clients_max: int, clients_per_address_max: int) -> None:
        """`clients_per_address_max` of 0 means that addresses are not counted."""
        self._clients_max = clients_max
        self._per_address_max = clients_per_address_max
        self._addresses: Counter[str] = Counter()
        self.count = 0
        """Streams open now."""

    @property
    def counts_addresses(self) -> bool:
        """Whether it matters from where a client comes."""
        return self._per_address_max > 0

    def full(self, address: str) -> Full | None:
        """Return why a client from `address` finds no room; None when it does."""
        if self.count >= self._clients_max:
            return Full.NODE
        if self._per_address_max and self._addresses[address] >= self._per_address_max:
            return Full.ADDRESS
        return None

    def enter(self, address: str) -> None:
        """Count a stream."""
        self.count += 1
        if self._per_address_max:
            self._addresses[address] += 1
        CLIENTS.inc()
        OPENED.inc()

    def leave(self, address: str, reason: Reason) -> None:
        """Count a stream that ended."""
        self.count -= 1
        if self._per_address_max:
            self._addresses[address] -= 1
            if not self._addresses[address]:
                del self._addresses[address]
        CLIENTS.dec()
        CLOSED_FOR[reason].inc()
