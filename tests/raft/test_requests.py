"""Every request is answered once, with what became of it."""

import pytest

from noti.errors import (
    LocalError,
    MembershipChangeRejected,
    NotiError,
    NotLeader,
    Overloaded,
    ProposalUncertain,
)
from noti.raft.core.events import (
    ChangeRejected,
    ProposalAccepted,
    ProposalRejected,
    Proposed,
    ReadReady,
    ReadRequested,
)
from noti.raft.core.membership import Change
from noti.raft.core.messages import Entry, EntryKind
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX, new_entry
from noti.raft.requests import Answer, Requests
from noti.trio_clock import TrioClock


def entry(index: int, term: int) -> Entry:
    return new_entry(index, term, EntryKind.COMMAND, b"x")


class Asker:
    """Remembers what it was answered."""

    def __init__(self) -> None:
        self.requests = Requests(TrioClock())
        self.outcomes: list[int | NotiError] = []

    def propose(self, command: bytes = b"x") -> None:
        self.requests.propose(command, self.outcomes.append)

    def read(self) -> None:
        self.requests.read(self.outcomes.append)


async def test_all_that_came_since_the_last_time_goes_to_the_core_together() -> None:
    asker = Asker()
    assert not asker.requests.are_new
    asker.propose(b"a")
    asker.read()
    asker.propose(b"b")
    assert asker.requests.are_new
    proposed, read = asker.requests.take()
    assert proposed == Proposed(((1, b"a"), (3, b"b")))
    assert read == ReadRequested((2,))
    assert not asker.requests.are_new
    assert asker.requests.take() == []


async def test_proposal_is_answered_when_its_place_is_applied() -> None:
    asker = Asker()
    asker.propose()
    asker.requests.take()
    asker.requests.answered(ProposalAccepted(1, index=5, term=2))
    asker.requests.applied(entry(4, 2))
    assert asker.outcomes == []
    asker.requests.applied(entry(5, 2))
    assert asker.outcomes == [5]
    assert asker.requests.outstanding == 0


async def test_proposal_whose_place_another_leaders_entry_took_is_uncertain() -> None:
    asker = Asker()
    asker.propose()
    asker.requests.take()
    asker.requests.answered(ProposalAccepted(1, index=5, term=2))
    asker.requests.applied(entry(5, 3))
    assert [type(outcome) for outcome in asker.outcomes] == [ProposalUncertain]


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (ProposalRejected(1, False, "n2"), NotLeader),
        (ProposalRejected(1, True, "n1"), Overloaded),
        (ChangeRejected(1, "not now"), MembershipChangeRejected),
    ],
)
async def test_rejected_request_is_answered_with_why(
    answer: Answer, failure: type[NotiError]
) -> None:
    asker = Asker()
    asker.requests.change(Change(), asker.outcomes.append)
    asker.requests.answered(answer)
    assert [type(outcome) for outcome in asker.outcomes] == [failure]
    assert asker.requests.outstanding == 0


async def test_lost_leadership_leaves_in_doubt_only_what_the_core_has() -> None:
    asker = Asker()
    for _ in range(2):
        asker.propose()
        asker.read()
        asker.requests.take()
    asker.requests.answered(ProposalAccepted(1, index=5, term=2))
    asker.requests.leadership_lost()
    assert [type(outcome) for outcome in asker.outcomes] == 3 * [ProposalUncertain]
    asker.requests.answered(ReadReady(2, index=5))
    asker.requests.answered(ProposalRejected(4, False, None))
    assert len(asker.outcomes) == 3, "both reads were answered"
    asker.requests.answered(ProposalRejected(3, False, None))
    assert isinstance(asker.outcomes[-1], NotLeader), "it was not in the log"


async def test_command_that_no_log_could_hold_never_reaches_the_core() -> None:
    asker = Asker()
    asker.propose(bytes(ENTRY_DATA_BYTES_MAX + 1))
    assert isinstance(asker.outcomes[0], LocalError)
    assert not asker.requests.are_new
