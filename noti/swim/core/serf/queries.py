"""Passes queries on, answers those that are for this node, and gathers answers to its own.

Enters: queries and answers from members, the operator's queries, now.
Leaves: broadcasts, answers to members through the outbox, answers of members as effects.
Never: an answer to a stranger, which would make of us a tool against him; answers past a query's
time, or of those who are no members.

A node of noti acks every query whose filters it passes, answers Serf's internal ones, and nothing
else.
"""

import hashlib
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, assert_never

import re2

from noti.errors import MessageInvalid
from noti.swim.core.events import QueryAnswered, QueryEnded, QueryReceived, QueryRequested
from noti.swim.core.keyring import KeyRing
from noti.swim.core.members import Members, Record
from noti.swim.core.messages import Address, User
from noti.swim.core.outbox import Outbox, UserQueue
from noti.swim.core.serf.intents import Intents
from noti.swim.core.serf.internal_queries import INTERNAL_PREFIX, InternalQueries
from noti.swim.core.serf.key_queries import KEY_OPERATIONS
from noti.swim.core.serf.lamport import LamportClock, RecentItems
from noti.swim.core.serf.messages import (
    RESPONSE_BYTES_MAX,
    NodeFilter,
    QueryFilter,
    QueryFlag,
    QueryResponse,
    RelayedMessage,
    SerfQuery,
    SerfType,
    TagFilter,
    UnknownFilter,
    encode_serf,
    shown,
)
from noti.swim.core.timing import SwimConfig

_REMEMBERED_MAX: Final = 2048
"""Queries remembered, to take each once."""

_RELAYS_MAX: Final = 8
"""Members over whom an answer goes; more are asked for by mistake, or to have us flood somebody."""

_ANSWERED_PER_S_MAX: Final = 100
"""Queries of other members answered in a second; more are only passed on. Operators ask a few, and
each is answered by every member, all to one address."""

_TIMEOUT_INTERVALS: Final = 16
"""Gossip intervals that a query waits for answers, per digit of the cluster's size (Serf)."""

_EXPRESSION_MEMORY_BYTES: Final = 1 << 20
"""RE2 matches in linear time and in this memory; an expression that needs more matches nothing."""


@dataclass(slots=True)
class _Asked:
    """A query of ours that waits for answers."""

    query_id: int
    ends_at: float
    acked: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)


class Queries:
    """One node's queries."""

    def __init__(
        self,
        me: Record,
        *,
        members: Members,
        outbox: Outbox,
        intents: Intents,
        config: SwimConfig,
        rng: random.Random,
        ring: KeyRing | None,
    ) -> None:
        """`ring` is None where keys cannot be changed by queries."""
        self._me = me
        self._members = members
        self._outbox = outbox
        self._intents = intents
        self._config = config
        self._rng = rng
        self._internal = InternalQueries(me.name, members, ring)
        self.clock = LamportClock()
        self._recent: RecentItems[int] = RecentItems(_REMEMBERED_MAX)
        self._asked: dict[tuple[int, int], _Asked] = {}
        """By time and id of the query."""
        self._second_began_at = -math.inf
        self._answered = 0
        """Queries of other members in this second that were for us."""

    def ask(self, request: QueryRequested, now: float) -> None:
        """Ask all members; the answers become effects, until `QueryEnded`."""
        timeout_s = request.timeout_s
        if timeout_s is None:
            timeout_s = self._timeout_s()
        query = query_of(request, self.clock.time, self._me.address, self._me.name, timeout_s)
        self._recent.add(query.time, query.id, self.clock)
        self._asked[query.time, query.id] = _Asked(query.id, now + timeout_s)
        self.clock.witness(query.time)
        self._broadcast(encode_serf(query))
        self._process(query, now)

    def receive(self, query: SerfQuery, payload: bytes, now: float) -> None:
        """Take a query and the message that it came in; raises `MessageInvalid`."""
        self.clock.witness(query.time)
        if not self._recent.add(query.time, query.id, self.clock):
            return
        if not query.flags & QueryFlag.NO_BROADCAST:
            self._broadcast(payload)
        self._outbox.emit(QueryReceived(shown(query.name), query.source_name))
        self._process(query, now)

    def merge(self, time: int) -> None:
        """Take a peer's clock; raises `MessageInvalid`."""
        self.clock.witness(max(0, time - 1))

    def on_response(self, response: QueryResponse, now: float) -> None:
        """Take an answer to a query of ours; each member's counts once."""
        asked = self._asked.get((response.time, response.id))
        if asked is None or asked.ends_at <= now or response.node not in self._members:
            return
        so_far = asked.acked if response.is_ack else asked.answered
        if response.node not in so_far:
            so_far.add(response.node)
            answer = (response.node, response.is_ack, response.payload)
            self._outbox.emit(QueryAnswered(asked.query_id, *answer))

    def on_relayed(self, message: RelayedMessage) -> None:
        """Send a member's answer on to another member; nothing else is relayed."""
        is_answer = message.payload[:1] == bytes([SerfType.QUERY_RESPONSE])
        if is_answer and self._members.knows(message.address):
            self._outbox.send(message.address, User(message.payload), piggyback=False)

    def deadline(self) -> float:
        """Return when `advance` is due; infinite while no query of ours waits for answers."""
        if not self._asked:  # nearly always
            return math.inf
        return min(asked.ends_at for asked in self._asked.values())

    def advance(self, now: float) -> None:
        """End queries whose time is over."""
        for key, asked in list(self._asked.items()):
            if asked.ends_at <= now:
                del self._asked[key]
                self._outbox.emit(QueryEnded(asked.query_id))

    def _timeout_s(self) -> float:
        present = sum(record.present for record in self._members)
        digits = math.ceil(math.log10(present + 1))
        return self._config.gossip_interval_s * _TIMEOUT_INTERVALS * digits

    def _broadcast(self, payload: bytes) -> None:
        key = hashlib.blake2b(payload, digest_size=16).hexdigest()
        self._outbox.broadcast_user(key, payload, UserQueue.QUERIES)

    # Answering

    def _process(self, query: SerfQuery, now: float) -> None:
        if not all(_passes(each, self._me.name, self._me.tags) for each in query.filters):
            return
        is_ours = (query.time, query.id) in self._asked
        if not is_ours and self._is_flood(now):
            return
        if query.flags & QueryFlag.ACK:
            self._respond(query, b"", now, is_ack=True)
        if query.name in KEY_OPERATIONS and is_ours:
            return  # whoever asks does it himself when the others have: see `keys_query`
        if query.name.startswith(INTERNAL_PREFIX):
            is_leaving = self._intents.is_leaving(query.payload.decode(errors="replace"))
            answers = self._internal.answers(query.name, query.payload, is_leaving=is_leaving)
            any(self._respond(query, answer, now, is_ack=False) for answer in answers)

    def _is_flood(self, now: float) -> bool:
        if now - self._second_began_at >= 1.0:
            self._second_began_at, self._answered = now, 0
        self._answered += 1
        return self._answered > _ANSWERED_PER_S_MAX

    def _respond(self, query: SerfQuery, payload: bytes, now: float, *, is_ack: bool) -> bool:
        """Answer a query; return whether the answer was short enough."""
        response = QueryResponse(query.time, query.id, self._me.name, is_ack, payload)
        message = encode_serf(response)
        if len(message) > RESPONSE_BYTES_MAX:
            return False
        if (query.time, query.id) in self._asked:
            self.on_response(response, now)
        elif self._members.knows(query.address):
            # Without broadcasts: the query itself is one, and who asks has it.
            self._outbox.send(query.address, User(message), piggyback=False)
            self._relay(query, message)
        return True

    def _relay(self, query: SerfQuery, message: bytes) -> None:
        count = min(query.relay_factor, _RELAYS_MAX)
        if count:
            relayed = encode_serf(RelayedMessage(query.address, message))
            for helper in self._members.pick(count, without=(self._me.name, query.source_name)):
                if helper.address != query.address:
                    self._outbox.send(helper.address, User(relayed), piggyback=False)


def query_of(
    request: QueryRequested, time: int, address: Address, source_name: str, timeout_s: float
) -> SerfQuery:
    """Return the query for a request."""
    filters: list[QueryFilter] = []
    if request.nodes:
        filters.append(NodeFilter(tuple(node.encode() for node in request.nodes)))
    filters += [TagFilter(tag, each) for tag, each in sorted(request.tags.items())]
    return SerfQuery(
        time=time,
        id=request.query_id,
        address=address,
        source_name=source_name,
        name=request.name,
        payload=request.payload,
        filters=tuple(filters),
        flags=int(QueryFlag.ACK) if request.wants_acks else 0,
        relay_factor=request.relay_factor,
        timeout_s=timeout_s,
    )


def compile_expression(expression: str) -> Callable[[str], object]:
    """Return what finds an RE2 expression, Go's dialect, in a text, or None.

    Raises `MessageInvalid`.
    """
    options = re2.Options()
    options.max_mem = _EXPRESSION_MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        search: Callable[[str], object] = re2.compile(expression, options).search
    except re2.error as error:
        raise MessageInvalid(f"{expression!r} is not a regular expression of RE2") from error
    return search


def _passes(query_filter: QueryFilter, name: str, tags: Mapping[str, str]) -> bool:
    match query_filter:
        case NodeFilter(names):
            return name.encode() in names
        case TagFilter(tag, expression):
            try:
                return compile_expression(expression)(tags.get(tag, "")) is not None
            except MessageInvalid:
                return False
        case UnknownFilter():
            return False
    assert_never(query_filter)
