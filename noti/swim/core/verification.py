"""Asks addresses whether what is claimed about them is true, and knows their answers.

Enters: claims, acks with their source, now. Leaves: pings through the outbox, proofs.
Never: a decision about a member; a sequence that could be guessed.

An answer proves something because the sequence of the question is random, and went to that address
alone: who answers with it receives what is sent there. The claim goes with the ping, so that the
member can object in the same packet as the answer, as nodes of noti do; Serf agents object a moment
later.

Source: QUIC's validation of addresses (RFC 9000, section 8), for the idea.
"""

import random
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from noti.swim.core.events import PingByStream
from noti.swim.core.members import Record
from noti.swim.core.messages import (
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Ping,
    Suspect,
)
from noti.swim.core.outbox import Outbox
from noti.swim.core.timing import SwimConfig

_WAITING_MAX = 1024
"""Questions whose answer counts; more at one time are a flood of inventions."""

_ANSWER_S_MAX = 10.0
"""An answer later than this (memberlist's limit of an exchange) is about another time."""


@dataclass(frozen=True, slots=True)
class Question:
    """A ping to one address, and what was claimed with it; answered, it is a proof."""

    name: str
    address: Address
    claim: Alive | Suspect | Dead | None
    asked_at: float
    through: tuple[Address, ...] = ()
    """Members that were asked to ask, where it was not asked directly."""


class Verifier:
    """One node's questions."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        outbox: Outbox,
        config: SwimConfig,
        rng: random.Random,
    ) -> None:
        """`name` and `address` are those of this node."""
        self._name = name
        self._address = address
        self._outbox = outbox
        self._config = config
        self._rng = rng
        self._waiting: OrderedDict[int, Question] = OrderedDict()
        """By sequence, the oldest first."""

    def ask(
        self, name: str, address: Address, claim: Alive | Suspect | Dead | None, now: float
    ) -> None:
        """Ping a node by name at an address, with a claim about it if there is one."""
        sequence = self._note(Question(name, address, claim, now))
        ping = Ping(sequence, name, self._address, self._name)
        claims = () if claim is None else (claim,)
        # No broadcasts: each goes out a few times only, and nobody may be there.
        self._outbox.send(address, *claims, ping, piggyback=False)

    def ask_through(self, helpers: Sequence[Record], claim: Alive, now: float) -> None:
        """Have members ping another one; only at an address where it has answered before."""
        through = tuple(helper.address for helper in helpers)
        sequence = self._note(Question(claim.node, claim.address, claim, now, through))
        for to in through:
            request = IndirectPing(
                sequence, claim.node, claim.address, False, self._address, self._name
            )
            self._outbox.send(to, request)

    def ask_by_stream(self, name: str, address: Address, claim: Alive | None, now: float) -> None:
        """Ping a node over TCP; only where its host has dialled us, or it has answered before.

        The claim is not sent with it, but counts when there is an answer.
        """
        sequence = self._note(Question(name, address, claim, now))
        timeout_s = self._config.probe_interval_s
        self._outbox.emit(PingByStream(sequence, name, address, timeout_s))

    def proofs(self, messages: Sequence[Message], source: Address, now: float) -> list[Question]:
        """Return the questions that a packet answers; each is answered once."""
        found = [
            self._take(each.sequence, now, source) for each in messages if isinstance(each, Ack)
        ]
        return [each for each in found if each is not None]

    def proof_by_stream(self, sequence: int, now: float) -> Question | None:
        """Return the question that was answered over TCP, if it was one of these."""
        return self._take(sequence, now, None)

    def _note(self, question: Question) -> int:
        sequence = self._rng.getrandbits(32)
        self._waiting[sequence] = question
        if len(self._waiting) > _WAITING_MAX:
            self._waiting.popitem(last=False)
        return sequence

    def _take(self, sequence: int, now: float, source: Address | None) -> Question | None:
        question = self._waiting.get(sequence)
        if question is None:
            return None
        asked = question.through or (question.address,)
        if source is not None and not any(is_same_host(each, source) for each in asked):
            return None
        del self._waiting[sequence]
        return question if now - question.asked_at <= _ANSWER_S_MAX else None


def is_same_host(one: Address, other: Address) -> bool:
    """Whether two addresses are of one host; ports may differ, as NAT changes them."""
    return one[0] == other[0] or _canonical(one[0]) == _canonical(other[0])


def _canonical(host: str) -> str:
    """Return an IP address as text without its scope, and as IPv4 where it stands for one."""
    try:
        parsed = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    mapped = parsed.ipv4_mapped if parsed.version == 6 else None
    return str(mapped or parsed)
