"""What an operator asks of all members through this node: events, queries, keys, to forget one."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog
import trio

from noti.errors import LocalError, MessageInvalid, Overloaded
from noti.ports import Clock
from noti.swim.core.events import (
    Event,
    ForceLeaveRequested,
    QueryAnswered,
    QueryEnded,
    QueryRequested,
    UserEventRequested,
)
from noti.swim.core.keyring import KeyRing
from noti.swim.core.messages import Member, MemberState
from noti.swim.core.serf.internal_queries import CONFLICT_QUERY, INTERNAL_PREFIX, address_of
from noti.swim.core.serf.key_queries import (
    KeyOperation,
    carry_out,
    decode_response,
    encode_request,
    encode_response,
)
from noti.swim.core.serf.messages import (
    EVENT_BYTES_MAX,
    QUERY_BYTES_MAX,
    TIME_MAX,
    UserEvent,
    encode_serf,
)
from noti.swim.core.serf.queries import compile_expression, query_of

__all__ = ["KeyAnswer", "KeyOperation", "KeysReport", "QueryAnswer", "SerfRequests"]

log = structlog.get_logger("noti.swim")

QUERIES_MAX: Final = 64
"""Queries of ours that wait for answers."""

PING_QUERY: Final = "_serf_ping"
"""Every member acks it; the only one of Serf's own queries that is asked by its name."""

_VOTE_PAUSE_S: Final = 60.0
"""Two nodes of one name hear of each other all the time; the others are asked once in so long."""

_PRESENT: Final = (MemberState.ALIVE, MemberState.SUSPECT)


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """What one member says to a query; each acks it at most once, and answers at most once."""

    node: str
    is_ack: bool
    """It took the query, which is all that it says; agents ack before they answer."""
    payload: bytes = field(repr=False)
    """Empty in an ack."""


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """What one member says to a request about keys."""

    node: str
    done: bool
    text: str
    """Why it is not done; or that not all keys are listed; mostly empty."""
    keys: tuple[str, ...] = field(default=(), repr=False)
    """Its keys in base64, if they were asked for: secrets."""
    primary: str = field(default="", repr=False)
    """The one that encrypts, likewise; empty when the member does not say."""


@dataclass(frozen=True, slots=True)
class KeysReport:
    """What all members said to a request about keys."""

    answers: tuple[KeyAnswer, ...]
    """By name of the member, this node included."""
    silent: tuple[str, ...]
    """Names of members that are there and did not answer in time."""


class SerfRequests:
    """One node's requests to all members."""

    def __init__(
        self,
        name: str,
        *,
        handle: Callable[[Event], None],
        members: Callable[[], Sequence[Member]],
        members_max: int,
        clock: Clock,
        rng: random.Random,
        ring: KeyRing | None,
    ) -> None:
        """`handle` gives an event to the core, and raises `Unavailable` before there is one.

        `ring` is None where keys cannot be changed by requests.
        """
        self._name = name
        self._handle = handle
        self._members = members
        self._members_max = members_max
        self._clock = clock
        self._rng = rng
        self._ring = ring
        self._answers: dict[int, trio.MemorySendChannel[QueryAnswer]] = {}
        self._conflict = trio.Event()

    def send_event(self, name: str, payload: bytes = b"", *, coalesce: bool = True) -> None:
        """Tell all members of a user event; agents hand it to their handlers.

        With `coalesce`, an agent may hand on only the last one of this name. Returns at once:
        nobody confirms an event. Raises `LocalError` when it is longer than Serf allows, and
        `Unavailable` before the node gossips.
        """
        raw_name = _raw_name("event", name)
        encoded = encode_serf(UserEvent(TIME_MAX, raw_name, payload, coalesce))
        _check_length("event", len(encoded), EVENT_BYTES_MAX)
        self._handle(UserEventRequested(raw_name, payload, coalesce))

    def query(
        self,
        name: str,
        payload: bytes = b"",
        *,
        nodes: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        wants_acks: bool = False,
        relay_factor: int = 0,
    ) -> trio.MemoryReceiveChannel[QueryAnswer]:
        """Ask all members, this node included; iterate over the result, which ends in time.

        Only these `nodes` answer, if any are given, whose `tags` match these regular expressions
        (RE2, somewhere in the value). `timeout_s` is Serf's default for the cluster's size if None.
        Each answer comes over `relay_factor` other members, too. Whoever does not iterate to the
        end closes the channel. Raises `LocalError` when the query is longer than Serf allows or
        otherwise cannot be sent, `Unavailable` before the node gossips, and `Overloaded` when too
        many queries wait for answers.
        """
        raw_name = _raw_name("query", name)
        if raw_name.startswith(INTERNAL_PREFIX) and name != PING_QUERY:
            raise LocalError(f"{name} is a query of Serf's own: give yours another name")
        if timeout_s is not None and not timeout_s > 0:
            raise LocalError("a query needs some time for its answers: give it more than 0 s")
        if not 0 <= relay_factor <= 255:
            raise LocalError("answers go over 0 to 255 other members, not more")
        for expression in (tags or {}).values():
            try:
                compile_expression(expression)
            except MessageInvalid as error:
                raise LocalError(str(error)) from error
        return self._ask(
            QueryRequested(
                query_id=self._rng.getrandbits(32),
                name=raw_name,
                payload=payload,
                nodes=tuple(nodes),
                tags=dict(tags or {}),
                timeout_s=timeout_s,
                wants_acks=wants_acks,
                relay_factor=relay_factor,
            )
        )

    async def keys_query(
        self, operation: KeyOperation, key: bytes | None = None, *, timeout_s: float | None = None
    ) -> KeysReport:
        """Ask all members, this node included, about keys; `key` is None only for a list.

        Returns when all members that are there have answered, or in time. This node does it last:
        once it encrypts under another key, a member without that understands it no more. Raises as
        `query` does. When it is cancelled, other members may have done it all the same.
        """
        assert (key is None) == (operation is KeyOperation.LIST)
        request = QueryRequested(
            query_id=self._rng.getrandbits(32),
            name=operation.value.encode(),
            payload=b"" if key is None else encode_request(key),
            timeout_s=timeout_s,
        )
        silent = {member.name for member in self._members() if member.state in _PRESENT}
        silent.discard(self._name)
        found: dict[str, KeyAnswer] = {}
        with self._ask(request) as answers:
            while silent:
                try:
                    answer = await answers.receive()
                except trio.EndOfChannel:
                    break
                found[answer.node] = _key_answer(answer.node, answer.payload)
                silent.discard(answer.node)
        own = carry_out(operation, request.payload, self._ring)
        found[self._name] = _key_answer(self._name, encode_response(own))
        return KeysReport(tuple(found[name] for name in sorted(found)), tuple(sorted(silent)))

    def force_leave(self, name: str, *, prune: bool = False) -> None:
        """Have all members take a failed member for one that left; with `prune`, forget it.

        A member that is alive refutes that. Returns at once. Raises `LocalError` when no member
        has this name, and `Unavailable` before the node gossips.
        """
        members = self._members()
        if members and name not in {member.name for member in members}:
            raise LocalError(f"no member has the name {name}: see `noti members`")
        self._handle(ForceLeaveRequested(name, prune))

    # For the shell of gossip

    def take(self, effect: QueryAnswered | QueryEnded) -> None:
        """Give an answer to whoever asked."""
        answers = self._answers.get(effect.query_id)
        if answers is None:
            return
        match effect:
            case QueryAnswered(_, node, is_ack, payload):
                try:
                    answers.send_nowait(QueryAnswer(node, is_ack, payload))
                except trio.BrokenResourceError:
                    self._forget(effect.query_id)  # nobody wants it any more
                except trio.WouldBlock:
                    log.debug("more answers to a query than members: dropped", node=node)
            case QueryEnded():
                self._forget(effect.query_id)
            case _:
                assert_never(effect)

    def on_conflict(self) -> None:
        """Note that another node uses the name of this one."""
        self._conflict.set()

    async def run(self) -> None:
        """Count votes about this node's name when another uses it, until cancelled.

        An agent that is known to fewer stops. Whoever can send packets could stop a node that way;
        so ours goes on, and the operator decides. *Cancellation*: queries end, as no answer will
        arrive any more.
        """
        try:
            while True:
                await self._conflict.wait()
                await self._count_votes()
                await self._clock.sleep_until(self._clock.now() + _VOTE_PAUSE_S)
                self._conflict = trio.Event()
        finally:
            for query_id in tuple(self._answers):
                self._forget(query_id)

    async def _count_votes(self) -> None:
        own = next(member.address for member in self._members() if member.name == self._name)
        known: list[bool] = []
        query_id = self._rng.getrandbits(32)
        with self._ask(QueryRequested(query_id, CONFLICT_QUERY, self._name.encode())) as answers:
            async for answer in answers:
                try:
                    known.append(address_of(answer.payload) == own)
                except MessageInvalid:
                    continue
        text = "most members know this one" if sum(known) * 2 > len(known) else "rename this one"
        log.error(
            f"another node uses the name of this node: {text}",
            name=self._name,
            members_asked=len(known),
            members_for_this_node=sum(known),
        )

    def _ask(self, request: QueryRequested) -> trio.MemoryReceiveChannel[QueryAnswer]:
        longest = query_of(request, TIME_MAX, ("::", 1), self._name, request.timeout_s or 1.0)
        _check_length("query", len(encode_serf(longest)), QUERY_BYTES_MAX)
        if len(self._answers) >= QUERIES_MAX:
            raise Overloaded(f"{QUERIES_MAX} queries wait for answers: try again later")
        # An ack and an answer of each.
        answers_in, answers_out = trio.open_memory_channel[QueryAnswer](2 * self._members_max)
        self._answers[request.query_id] = answers_in
        try:
            self._handle(request)
        except BaseException:
            self._forget(request.query_id)
            raise
        return answers_out

    def _forget(self, query_id: int) -> None:
        self._answers.pop(query_id).close()


def _raw_name(what: str, name: str) -> bytes:
    if not name:
        raise LocalError(f"an {what} needs a name" if what == "event" else f"a {what} needs a name")
    return name.encode()


def _check_length(what: str, length_bytes: int, bytes_max: int) -> None:
    if length_bytes > bytes_max:
        raise LocalError(
            f"the {what} takes {length_bytes} bytes with its name and Serf allows {bytes_max}: "
            "make it shorter"
        )


def _key_answer(node: str, payload: bytes) -> KeyAnswer:
    try:
        response = decode_response(payload)
    except MessageInvalid as error:
        return KeyAnswer(node, False, str(error))
    return KeyAnswer(node, response.done, response.text, response.keys or (), response.primary)
