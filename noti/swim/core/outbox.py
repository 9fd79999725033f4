"""Collects what the core orders, and fills packets with what is to be told to everyone.

Enters: messages for one node, broadcasts for all. Leaves: effects, in order.
Never: deciding what to say.
"""

from noti.swim.core.broadcasts import BroadcastQueue, retransmit_limit
from noti.swim.core.events import Effect, SendPacket
from noti.swim.core.members import Record
from noti.swim.core.messages import Address, Alive, Message, User
from noti.swim.core.packets import (
    COMPOUND_OVERHEAD_BYTES,
    COMPOUND_PARTS_MAX,
    encode,
    encode_packet,
)
from noti.swim.core.timing import SwimConfig

_PART_OVERHEAD_BYTES = 2
"""The length of a part in a compound packet."""


FROM_ABOVE_MAX = 1024
"""Messages of Serf's layer that wait; the agents send a few a minute, only a flood has more."""


class Outbox:
    """The effects of the event being handled, and the broadcasts that wait for room."""

    def __init__(self, config: SwimConfig) -> None:
        self._config = config
        self._effects: list[Effect] = []
        self._about_members = BroadcastQueue()
        self._from_above = BroadcastQueue(FROM_ABOVE_MAX)
        self.members = 1
        """Size of the cluster, kept by the core; it decides how often a broadcast is sent."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be broadcast."""
        return not self._about_members and not self._from_above

    def order(self, effect: Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def collect(self) -> list[Effect]:
        """Return the effects since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def broadcast(self, node: str, message: Message) -> None:
        """Tell everyone something about a member, instead of what was still to be told about it."""
        self._about_members.put(node, encode(message))

    def tell_alive(self, record: Record) -> None:
        """Tell everyone what is known about a member that is there."""
        alive = Alive(record.incarnation, record.name, record.address, record.meta, record.versions)
        self.broadcast(record.name, alive)

    def broadcast_user(self, key: str, payload: bytes) -> None:
        """Tell everyone something of the layer above; it goes after news about members."""
        self._from_above.put(key, encode(User(payload)))

    def waiting(self, node: str) -> bool:
        """Whether news about this member still wait to be sent."""
        return node in self._about_members

    def waiting_user(self, key: str) -> bool:
        """Whether this broadcast of the layer above still waits to be sent."""
        return key in self._from_above

    def send(self, to: Address, *direct: Message, piggyback: bool = True) -> None:
        """Order a packet of `direct` and as many broadcasts as fit; none if it would be empty."""
        parts = [encode(message) for message in direct]
        room_bytes = self._config.packet_bytes_max - COMPOUND_OVERHEAD_BYTES
        room_bytes -= sum(len(part) + _PART_OVERHEAD_BYTES for part in parts)
        if piggyback:
            for queue in (self._about_members, self._from_above):
                taken = queue.take(
                    room_bytes,
                    _PART_OVERHEAD_BYTES,
                    COMPOUND_PARTS_MAX - len(parts),
                    retransmit_limit(self._config.retransmit_multiplier, self.members),
                )
                room_bytes -= sum(len(part) + _PART_OVERHEAD_BYTES for part in taken)
                parts += taken
        if parts:
            self.order(SendPacket(encode_packet(parts), to))
