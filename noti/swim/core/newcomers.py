"""Holds claims that somebody is alive until the one whom they are about has answered.

Enters: claims, answers, now. Leaves: questions through the verifier.
Never: members; who is here is none, and is neither gossiped to nor dialled nor shown.

Anybody can invent claims, so they are bounded, each costs a few small packets, and the oldest give
way to new ones once they had time to answer. What came over TCP from the host that it names cannot
be invented elsewhere, nor can members at the addresses where they answered before: such claims wait
for no flood of packets, and may be asked about over TCP. About members, others may be asked, too,
so that one blocked cable hides no change.
"""

import math
from dataclasses import dataclass
from enum import Enum

from noti.swim.core.members import Members
from noti.swim.core.messages import STREAM_PING_VERSION, Address, Alive
from noti.swim.core.timing import SwimConfig
from noti.swim.core.verification import Verifier

_QUESTIONS_MAX = 4
"""Pings of one newcomer: with a tenth of all packets lost, one in a thousand is missed, and is met
again in the next exchange of states."""


_INTRODUCED_BY_HOST_MAX = 8
"""A host has one node, or a few of a test; whoever introduces more is a flood."""


class Backing(Enum):
    """What a claim that somebody is alive has to show for itself."""

    HEARSAY = "hearsay"
    """Anybody may have said it."""
    KNOWN = "known"
    """It is about a member at the address where that is, or was."""
    INTRODUCED = "introduced"
    """It came over TCP from the host that it names."""
    PROVEN = "proven"
    """The node answered with it, or answered a question with it and did not object."""


@dataclass(slots=True)
class _Newcomer:
    claim: Alive
    since: float
    backing: Backing
    questions: int
    ask_at: float


class Newcomers:
    """Claims about nodes at addresses where they have not answered yet."""

    def __init__(
        self, me: str, *, members: Members, verifier: Verifier, config: SwimConfig
    ) -> None:
        self._me = me
        self._members = members
        self._verifier = verifier
        self._config = config
        self._waiting: dict[tuple[str, Address], _Newcomer] = {}
        """The oldest first. By address, too, so that no claim keeps a true one from being asked."""
        self._due_at = math.inf
        """No later than the first is to be asked; may be too early until `advance`."""

    def __len__(self) -> int:
        return len(self._waiting)

    def deadline(self) -> float:
        """Return when `advance` is due; infinite when nobody waits."""
        return self._due_at

    def add(self, claim: Alive, backing: Backing, now: float) -> bool:
        """Ask somebody new; returns whether there was room. Newer claims replace older ones."""
        if backing is Backing.INTRODUCED and self._is_crowded(claim.address[0]):
            backing = Backing.HEARSAY
        known = self._waiting.get((claim.node, claim.address))
        if known is not None:
            if claim.incarnation > known.claim.incarnation:
                known.claim = claim  # asked with the next question, however often it changes
            if known.backing is Backing.HEARSAY:
                known.backing = backing
            return True
        if not self._make_room(backing, now):
            return False
        newcomer = _Newcomer(claim, now, backing, 0, now)
        self._waiting[claim.node, claim.address] = newcomer
        self._ask(newcomer, now)
        return True

    def advance(self, now: float) -> None:
        """Ask those again who have not answered, and forget whoever was asked often enough.

        In a flood once is enough for hearsay, or it would bother its victim more than its sender.
        """
        often = 1 if len(self._waiting) >= self._config.unacked_max else _QUESTIONS_MAX
        for key, newcomer in list(self._waiting.items()):
            if newcomer.ask_at > now:
                continue
            hearsay = newcomer.backing is Backing.HEARSAY
            if newcomer.questions < (often if hearsay else _QUESTIONS_MAX):
                self._ask(newcomer, now)
                continue
            del self._waiting[key]
            if not hearsay and newcomer.claim.versions[1] >= STREAM_PING_VERSION:
                claim = newcomer.claim
                self._verifier.ask_by_stream(claim.node, claim.address, claim, now)
            if newcomer.backing is Backing.KNOWN:
                name = newcomer.claim.node
                helpers = self._members.pick(self._config.indirect_checks, without=(self._me, name))
                self._verifier.ask_through(helpers, newcomer.claim, now)
        self._due_at = min((each.ask_at for each in self._waiting.values()), default=math.inf)

    def discard(self, name: str, address: Address) -> None:
        """Forget somebody, who has answered."""
        self._waiting.pop((name, address), None)

    def _ask(self, newcomer: _Newcomer, now: float) -> None:
        claim = newcomer.claim
        newcomer.questions += 1
        newcomer.ask_at = now + self._config.probe_timeout_s
        self._due_at = min(self._due_at, newcomer.ask_at)
        self._verifier.ask(claim.node, claim.address, claim, now)

    def _make_room(self, backing: Backing, now: float) -> bool:
        """Whether there is room, if need be after forgetting one; hearsay displaces hearsay only.

        The oldest of its kind goes, once it had time to answer.
        """
        if len(self._waiting) < self._config.unacked_max:
            return True
        hearsay = backing is Backing.HEARSAY
        for key, newcomer in self._waiting.items():
            is_hearsay = newcomer.backing is Backing.HEARSAY
            if hearsay and not is_hearsay:
                continue
            waited = now - newcomer.since > self._config.probe_timeout_s
            if waited or is_hearsay is not hearsay:
                del self._waiting[key]
                return True
            if is_hearsay:
                break  # the others are younger
        return False

    def _is_crowded(self, host: str) -> bool:
        """Whether one host has introduced so many that its next ones are treated as hearsay."""
        introduced = [
            address
            for (_, address), newcomer in self._waiting.items()
            if newcomer.backing is Backing.INTRODUCED and address[0] == host
        ]
        return len(introduced) >= _INTRODUCED_BY_HOST_MAX
