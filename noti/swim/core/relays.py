"""Probes members for others, who got no answer from them.

Enters: requests, acks, now. Leaves: pings, acks and nacks through the outbox.
Never: a use of the answer for ourselves.

Source: SWIM (Das, Gupta, Motivala 2002) 3.1; Lifeguard (2017) III-A for the nack.
"""

import math
from dataclasses import dataclass

from noti.swim.core.members import Members
from noti.swim.core.messages import Ack, Address, IndirectPing, Nack, Ping
from noti.swim.core.outbox import Outbox

_RELAYS_MAX = 256
"""Probes that we do for others at one time; rejecting more only costs them a helper."""

_NACK_SHARE = 0.8
"""Of the time for an answer, until the nack: it has to be back before the requester gives up."""


@dataclass(slots=True)
class _Relay:
    sequence: int
    """The requester's own."""
    requester: Address
    wants_nack: bool
    """Until it was sent one."""
    due_at: float
    """When the nack is to be sent, and then when the probe is over."""


class Relays:
    """The probes that one node does for others."""

    def __init__(self, members: Members, outbox: Outbox, timeout_s: float) -> None:
        """Wait `timeout_s` for each answer."""
        self._members = members
        self._outbox = outbox
        self._nack_after_s = _NACK_SHARE * timeout_s
        self._rest_s = timeout_s - self._nack_after_s
        self._asked: dict[int, _Relay] = {}
        """By our sequence, those first that are due for a nack first."""
        self._nacked: dict[int, _Relay] = {}
        """Those whose time for a nack has come; an ack that comes yet is still passed on."""

    def deadline(self) -> float:
        """Return when `advance` is due."""
        if not (self._asked or self._nacked):  # nearly always
            return math.inf
        return min(next(iter(each.values())).due_at for each in (self._asked, self._nacked) if each)

    def ask(self, request: IndirectPing, requester: Address, ping: Ping, now: float) -> None:
        """Ping for a requester, unless there is too much to do."""
        if len(self._asked) + len(self._nacked) >= _RELAYS_MAX:
            return
        due_at = now + self._nack_after_s
        self._asked[ping.sequence] = _Relay(request.sequence, requester, request.wants_nack, due_at)
        # An unknown address gets no gossip: it may be a victim's.
        known = self._members.knows(request.address)
        self._outbox.send(request.address, ping, piggyback=known)

    def on_ack(self, sequence: int) -> None:
        """Pass the answer on, if it is one to a ping for another member."""
        relay = self._asked.pop(sequence, None) or self._nacked.pop(sequence, None)
        if relay is not None:
            self._outbox.send(relay.requester, Ack(relay.sequence, None))

    def advance(self, now: float) -> None:
        """Send the nacks that are due, and forget what got no answer."""
        while self._nacked and (first := next(iter(self._nacked.items())))[1].due_at <= now:
            del self._nacked[first[0]]
        while self._asked and (first := next(iter(self._asked.items())))[1].due_at <= now:
            sequence, relay = first
            del self._asked[sequence]
            if relay.wants_nack:
                self._outbox.send(relay.requester, Nack(relay.sequence))
            relay.due_at = now + self._rest_s
            self._nacked[sequence] = relay
