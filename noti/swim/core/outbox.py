"""Collects effects, and fills packets with broadcasts.

Enters: messages for one node, broadcasts for all. Leaves: effects, in order.
Never: a decision what to send.
"""

from enum import IntEnum

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

_SMALL_CLUSTER = 10
"""In a cluster of up to so many, each broadcast is sent at least twice for each of the others, who
get it in turn (`rotation`), but for what goes along with pings and acks. With Serf's `local`
profile it would be sent twice in all, and somebody often miss it."""

USER_MESSAGES_MAX = 1024
"""Messages of one kind of Serf's layer that wait; agents send a few a minute, only a flood has
more."""


class UserQueue(IntEnum):
    """What waits of Serf's layer; what is first is sent first."""

    INTENTS = 0
    QUERIES = 1
    EVENTS = 2


class Outbox:
    """The effects of the event being handled, and the broadcasts that wait for room."""

    def __init__(self, config: SwimConfig) -> None:
        self._config = config
        self._effects: list[Effect] = []
        self._member_messages = BroadcastQueue()
        self._user_messages = [BroadcastQueue(USER_MESSAGES_MAX) for _ in UserQueue]
        self.members = 1
        """Size of the cluster, kept by the core; it decides how often a broadcast is sent."""

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be broadcast."""
        return not self._member_messages and not any(self._user_messages)

    def emit(self, effect: Effect) -> None:
        """Add an effect."""
        self._effects.append(effect)

    def collect(self) -> list[Effect]:
        """Return the effects since the last call."""
        effects, self._effects = self._effects, []
        return effects

    def broadcast(self, node: str, message: Message) -> None:
        """Queue a message about a member for all; it replaces an older one about it."""
        self._member_messages.put(node, encode(message))

    def broadcast_alive(self, record: Record) -> None:
        """Queue the address and tags of a member that is alive for all."""
        alive = Alive(record.incarnation, record.name, record.address, record.meta, record.versions)
        self.broadcast(record.name, alive)

    def broadcast_user(
        self, key: str, payload: bytes, queue: UserQueue = UserQueue.INTENTS
    ) -> None:
        """Queue a message of Serf's layer for all; those about members are sent first."""
        self._user_messages[queue].put(key, encode(User(payload)))

    def waiting_user(self, key: str) -> bool:
        """Whether this intent still waits to be sent."""
        return key in self._user_messages[UserQueue.INTENTS]

    def send(self, to: Address, *direct: Message, piggyback: bool = True) -> None:
        """Order a packet of `direct` and as many broadcasts as fit; none if it would be empty."""
        parts = [encode(message) for message in direct]
        room_bytes = self._config.packet_bytes_max - COMPOUND_OVERHEAD_BYTES
        room_bytes -= sum(len(part) + _PART_OVERHEAD_BYTES for part in parts)
        sends_max = retransmit_limit(self._config.retransmit_multiplier, self.members)
        sends_max = max(sends_max, 2 * (min(self.members, _SMALL_CLUSTER) - 1))
        if piggyback:
            for queue in (self._member_messages, *self._user_messages):
                if not queue:
                    continue
                taken = queue.take(
                    room_bytes,
                    _PART_OVERHEAD_BYTES,
                    COMPOUND_PARTS_MAX - len(parts),
                    sends_max,
                )
                room_bytes -= sum(len(part) + _PART_OVERHEAD_BYTES for part in taken)
                parts += taken
        if parts:
            self.emit(SendPacket(encode_packet(parts), to))
