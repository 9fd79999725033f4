"""What this node asks of the core, until each request is answered.

A proposal waits in two steps: the core says at once whether it is in the log, and once its place is
applied whether it is this entry that took it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, assert_never

from prometheus_client import Histogram

from noti.completion import OnDone
from noti.errors import (
    LocalError,
    MembershipChangeRejected,
    NotLeader,
    Overloaded,
    ProposalUncertain,
)
from noti.ports import Clock
from noti.raft.core.events import (
    ChangeRejected,
    ChangeRequested,
    ProposalAccepted,
    ProposalRejected,
    Proposed,
    ReadReady,
    ReadRequested,
    Request,
)
from noti.raft.core.membership import Change
from noti.raft.core.messages import Entry
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX

_commit_s = Histogram(
    "noti_raft_commit_seconds",
    "On the leader: time from a proposal until it is committed and applied",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

Answer: TypeAlias = ProposalAccepted | ProposalRejected | ChangeRejected | ReadReady
"""What the core says to a request."""


@dataclass(slots=True)
class _Appended:
    """A proposal in the log."""

    term: int
    on_done: OnDone[int]
    since: float


class Requests:
    """The requests of one node.

    Each is answered with an index of the log: what it did, or what it wants to see, is applied once
    that index is.
    """

    def __init__(self, clock: Clock) -> None:
        """Begin without any."""
        self._clock = clock
        self._number = 0
        self._new: dict[int, tuple[OnDone[int], float]] = {}
        """Proposals and changes that are not in the log yet, and when they came."""
        self._reads: dict[int, OnDone[int]] = {}
        """Those of which the core knows."""
        self._appended: dict[int, _Appended] = {}
        """By index."""
        self._proposals: list[tuple[int, bytes]] = []
        self._new_reads: dict[int, OnDone[int]] = {}
        self.are_new = False
        """Whether there is something to take."""

    @property
    def outstanding(self) -> int:
        """How many are not answered."""
        return len(self._new) + len(self._reads) + len(self._appended) + len(self._new_reads)

    # --- requests ---------------------------------------------------------------------------------

    def propose(self, command: bytes, on_done: OnDone[int]) -> None:
        """Note a command for the core, in the order of the calls."""
        if len(command) > ENTRY_DATA_BYTES_MAX:
            # No node could write it, so it must not get as far as the core.
            allowed = f"{ENTRY_DATA_BYTES_MAX} allowed"
            on_done(LocalError(f"a command of {len(command)} bytes, {allowed}"))
            return
        self._number += 1
        self._new[self._number] = on_done, self._clock.now()
        self._proposals.append((self._number, command))
        self.are_new = True

    def read(self, on_done: OnDone[int]) -> None:
        """Note that somebody wants to know what is committed now."""
        self._number += 1
        self._new_reads[self._number] = on_done
        self.are_new = True

    def change(self, change: Change, on_done: OnDone[int]) -> ChangeRequested:
        """Return a change of the membership for the core."""
        self._number += 1
        self._new[self._number] = on_done, self._clock.now()
        return ChangeRequested(self._number, change)

    def take(self) -> list[Request]:
        """Return what came since the last call, for the core: all proposals together."""
        self.are_new = False
        taken: list[Request] = []
        if self._proposals:
            taken.append(Proposed(tuple(self._proposals)))
            self._proposals.clear()
        if self._new_reads:
            taken.append(ReadRequested(tuple(self._new_reads)))
            self._reads |= self._new_reads
            self._new_reads.clear()
        return taken

    # --- answers ----------------------------------------------------------------------------------

    def answered(self, answer: Answer) -> None:
        """Note what the core says."""
        match answer:
            case ProposalAccepted(number, index, term):
                self._appended[index] = _Appended(term, *self._new.pop(number))
            case ProposalRejected(number, backlog_full, leader):
                full = Overloaded("the backlog of uncommitted entries is full; retry later")
                self._pop(number)(full if backlog_full else NotLeader(leader))
            case ChangeRejected(number, reason):
                self._pop(number)(MembershipChangeRejected(reason))
            case ReadReady(number, index):
                if (on_done := self._reads.pop(number, None)) is not None:
                    on_done(index)
            case _:
                assert_never(answer)

    def applied(self, entry: Entry) -> None:
        """Note that an entry is applied on this node."""
        appended = self._appended.pop(entry.index, None)
        if appended is None:
            return
        if appended.term != entry.term:
            appended.on_done(ProposalUncertain("another leader's entry took the place"))
            return
        _commit_s.observe(self._clock.now() - appended.since)
        appended.on_done(entry.index)

    def leadership_lost(self) -> None:
        """Nobody can say any more what becomes of what the core has."""
        lost: list[Callable[[ProposalUncertain], None]] = [*self._reads.values()]
        lost += [appended.on_done for appended in self._appended.values()]
        self._reads.clear()
        self._appended.clear()
        for on_done in lost:
            on_done(ProposalUncertain("leadership was lost while the command waited"))

    def _pop(self, number: int) -> OnDone[int]:
        if number in self._new:
            return self._new.pop(number)[0]
        return self._reads.pop(number, _nobody)


def _nobody(_outcome: object) -> None:
    """Take the answer to a read that was given up with the leadership."""
