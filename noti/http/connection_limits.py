"""Limits the connections that are no streams: gives each a slot, and rejects it when there is none.

Probes and requests for streams always find a slot. Rejected connections are answered, counted, and
logged once an episode.
"""

from typing import Protocol

import trio

from noti.client_counts import ClientCounts
from noti.client_key import connection_client_key
from noti.connection_slots import Slot, Slots, SlotsFull
from noti.descriptors import PROBES_MAX, QUIET_S, Episode
from noti.http import request_counts
from noti.http.config import HttpConfig
from noti.http.heads import BUSY, BUSY_FOR_YOU, RETRY_AFTER, rejection_response


class Limited(Protocol):
    """A connection that is counted."""

    def take_slot(self, slot: Slot) -> None:
        """Have this slot for as long as the connection is open and no stream."""

    def close(self) -> None:
        """Close at once."""

    def reject(self, response: bytes) -> None:
        """Answer and close, without waiting; nobody has begun to serve the connection."""


class ConnectionLimits:
    """The limits of one listener."""

    def __init__(
        self,
        listener: str,
        slots_max: int,
        config: HttpConfig,
        per_address_max: int = 0,
        counts: ClientCounts | None = None,
    ) -> None:
        """`per_address_max` of 0 means any number of them from one address.

        `counts` has those that an address has elsewhere, too.
        """
        self._config = config
        self._slots = Slots(listener, slots_max, per_address_max, PROBES_MAX, counts)
        self._episodes = {
            SlotsFull.NODE: Episode(
                listener, "node", "all are busy, raise --http-connections-max, or add nodes"
            ),
            SlotsFull.ADDRESS: Episode(
                listener,
                "address",
                "one address has all that it may have (--http-connections-per-address-max)",
            ),
        }

    def change(self) -> None:
        """Hold to the limits that the configuration has now."""
        config = self._config
        self._slots.change(config.connections_max, config.connections_per_address_max)

    def admit(
        self,
        connection: Limited,
        peer: str,
        *,
        forwarded_for: str = "",
        always: bool | None = None,
    ) -> bool:
        """Give a connection a slot, or answer and close it; return whether it has one.

        `always` says whether its first request is one that is always answered; None when this is
        not known yet: then it gets a slot for probes, and is rejected when it turns out not to be.
        """
        key = ""
        if self._slots.counts_clients:
            key = connection_client_key(peer, forwarded_for, self._config.trusted_proxies)
        slot = self._slots.take(key, connection.close)
        if isinstance(slot, SlotsFull):
            if always is False:
                self._reject(connection, slot)
                return False
            full = slot
            slot = self._slots.take_for_probe(full, connection.close)
            if always is None:
                self._episodes[full].reject(trio.current_time())
        connection.take_slot(slot)
        return True

    async def log_episodes(self) -> None:
        """Log the ends of episodes; until cancelled."""
        while True:
            await trio.sleep(QUIET_S)
            for episode in self._episodes.values():
                episode.settle(trio.current_time())

    def _reject(self, connection: Limited, full: SlotsFull) -> None:
        self._episodes[full].reject(trio.current_time())
        rejection = BUSY if full is SlotsFull.NODE else BUSY_FOR_YOU
        request_counts.count_unread(rejection.status)
        connection.reject(rejection_response(rejection, RETRY_AFTER))
