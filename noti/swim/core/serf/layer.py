"""Hands what arrives for Serf's layer to the part that it is about.

Enters: payloads of user messages and states, requests of the operator, now.
Leaves: orders about intents; all else goes through the outbox.
Never: SWIM's own states, which `member_states` decides.
"""

import random
from typing import Final, assert_never

from noti.errors import MessageInvalid
from noti.swim.core.events import QueryRequested
from noti.swim.core.keyring import KeyRing
from noti.swim.core.members import Members, Record
from noti.swim.core.outbox import Outbox
from noti.swim.core.serf.intents import Broadcast, Intents, LeaveIntent
from noti.swim.core.serf.messages import (
    Intent,
    QueryResponse,
    RelayedMessage,
    SerfQuery,
    UserEvent,
    decode_serf,
)
from noti.swim.core.serf.queries import Queries
from noti.swim.core.serf.states import SerfState, decode_state, encode_state
from noti.swim.core.serf.user_events import UserEvents
from noti.swim.core.timing import SwimConfig

_PACKET_OVERHEAD_BYTES: Final = 5
"""A compound packet's header, the length of a part, and a user message's type: what is longer would
wait for a packet for ever. Agents send events up to 512 bytes and queries up to 1024."""


class Serf:
    """One node's layer of Serf."""

    def __init__(
        self,
        me: Record,
        *,
        members: Members,
        outbox: Outbox,
        config: SwimConfig,
        rng: random.Random,
        ring: KeyRing | None,
    ) -> None:
        """`ring` is None where keys cannot be changed by queries."""
        self.intents = Intents(me.name)
        self._events = UserEvents(outbox)
        self._queries = Queries(
            me,
            members=members,
            outbox=outbox,
            intents=self.intents,
            config=config,
            rng=rng,
            ring=ring,
        )
        self._payload_bytes_max = config.packet_bytes_max - _PACKET_OVERHEAD_BYTES
        self._knows_cluster = False
        """Whether a peer's state was taken."""

    def receive(
        self, payload: bytes, now: float, *, leaving: bool
    ) -> list[Broadcast | LeaveIntent]:
        """Take a user message, `leaving` if we are; raises `MessageInvalid`."""
        if len(payload) > self._payload_bytes_max:
            raise MessageInvalid(f"a Serf message of {len(payload)} bytes fits into no packet")
        message = decode_serf(payload)
        match message:
            case Intent():
                return self.intents.receive(message, payload, now, leaving=leaving)
            case UserEvent():
                self._events.receive(message, payload)
            case SerfQuery():
                self._queries.receive(message, payload, now)
            case QueryResponse():
                self._queries.on_response(message, now)
            case RelayedMessage():
                self._queries.on_relayed(message)
            case None:
                pass
            case _:
                assert_never(message)
        return []

    def merge(self, data: bytes, now: float, *, leaving: bool) -> list[Broadcast | LeaveIntent]:
        """Take the Serf part of a peer's state; raises `MessageInvalid`."""
        state = decode_state(data)
        self.intents.clock.witness(max(0, state.time - 1))
        self._events.merge(state.event_time, state.events, ignore_old=not self._knows_cluster)
        self._queries.merge(state.query_time)
        self._knows_cluster = True
        return self.intents.merge(state.status_times, state.left, now, leaving=leaving)

    def state(self) -> bytes:
        """Return our part of a full state."""
        return encode_state(
            SerfState(
                time=self.intents.clock.time,
                status_times=self.intents.times(),
                left=frozenset(self.intents.left()),
                event_time=self._events.clock.time,
                events=self._events.recent(),
                query_time=self._queries.clock.time,
            )
        )

    def send_event(self, name: bytes, payload: bytes, *, coalesce: bool) -> None:
        """Tell all members of an event."""
        self._events.send(name, payload, coalesce=coalesce)

    def ask(self, request: QueryRequested, now: float) -> None:
        """Ask all members."""
        self._queries.ask(request, now)

    def deadline(self) -> float:
        """Return when `advance` is due; infinite if not at all."""
        return self._queries.deadline()

    def advance(self, now: float) -> None:
        """Do what is due."""
        self._queries.advance(now)
