"""Nothing is said before it is on disk."""

from noti.raft.core.events import Persist
from noti.raft.core.gate import Gate
from noti.raft.core.messages import Entry, EntryKind, HardState, VoteResponse
from noti.raft.core.records import new_entry
from tests import promises

NEW = HardState(2, "n2")


def vote(term: int = 2) -> VoteResponse:
    return VoteResponse("n1", term, granted=True, pre=False)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [new_entry(index, term, EntryKind.COMMAND, b"") for index in range(first, last + 1)]


def test_nothing_new_needs_no_write() -> None:
    gate = Gate(NEW)
    assert gate.order(NEW) == ()


def test_message_of_a_saved_term_leaves_at_once() -> None:
    gate = Gate(NEW)
    assert gate.admit("n2", vote(), NEW, hold=False)


def test_message_of_a_new_term_waits_for_exactly_the_batch_that_holds_it() -> None:
    gate = Gate(HardState(1))
    gate.add_entries(entries(1, 1))
    gate.order(HardState(1))
    assert not gate.admit("n2", vote(), NEW, hold=False)
    assert gate.order(NEW) == (Persist(2, NEW, ()),)
    assert gate.persisted(1)[1] == []
    assert gate.persisted(2)[1] == [("n2", vote())]
    assert gate.persisted(2)[1] == [], "and it leaves once"


def test_message_waits_while_its_term_is_on_its_way() -> None:
    gate = Gate(HardState(1))
    gate.order(NEW)
    assert not gate.admit("n2", vote(), NEW, hold=False)
    assert gate.persisted(1)[1] == [("n2", vote())]
    assert gate.admit("n2", vote(), NEW, hold=False)


@promises.HEARTBEATS_WAIT_FOR_NO_DISK
def test_later_entries_do_not_hold_a_message_back() -> None:
    """Heartbeats never wait for a disk: entries limit what is vouched for, not whether to speak."""
    gate = Gate(HardState(1))
    gate.order(NEW)
    gate.persisted(1)
    gate.add_entries(entries(1, 9))
    gate.order(NEW)
    assert gate.admit("n2", vote(), NEW, hold=False)


def test_term_and_entries_of_one_moment_are_one_batch() -> None:
    gate = Gate(HardState(1))
    gate.add_entries(entries(1, 2))
    assert gate.order(NEW) == (Persist(1, NEW, tuple(entries(1, 2))),)
    assert gate.order(NEW) == ()


def test_messages_leave_in_the_order_in_which_they_were_admitted() -> None:
    gate = Gate(HardState(1))
    gate.admit("n2", vote(2), NEW, hold=False)
    gate.order(NEW)
    gate.admit("n3", vote(2), NEW, hold=False)
    later = HardState(3)
    gate.admit("n2", vote(3), later, hold=False)
    gate.order(later)
    assert gate.persisted(2)[1] == [("n2", vote(2)), ("n3", vote(2)), ("n2", vote(3))]


def test_own_vote_is_held_even_if_nothing_has_to_be_written() -> None:
    gate = Gate(NEW)
    assert not gate.admit("n1", vote(), NEW, hold=True)


def test_snapshot_takes_a_number_in_the_same_line() -> None:
    gate = Gate(HardState(1))
    gate.order(NEW)
    assert gate.next_batch() == 2
    gate.add_entries(entries(1, 1))
    (order,) = gate.order(NEW)
    assert order.batch == 3


def test_completion_tells_once_up_to_where_entries_are_on_disk() -> None:
    gate = Gate(HardState(1))
    gate.add_entries(entries(1, 3))
    gate.order(HardState(1))
    gate.add_entries(entries(4, 5, term=2))
    gate.order(HardState(1))
    assert gate.persisted(1)[0] == 3
    assert gate.persisted(2)[0] == 5
    assert gate.persisted(2)[0] == 0, "and says it once"


def test_truncated_entries_that_were_not_ordered_yet_stay_off_the_disk() -> None:
    gate = Gate(HardState(1))
    gate.add_entries(entries(1, 3))
    gate.drop_entries_from(2)
    assert gate.order(HardState(1)) == (Persist(1, None, tuple(entries(1, 1))),)


def test_completion_of_a_batch_that_will_be_overwritten_says_nothing() -> None:
    gate = Gate(HardState(1))
    gate.add_entries(entries(1, 4))
    gate.order(HardState(1))
    gate.drop_entries_from(2)
    gate.add_entries(entries(2, 2, term=2))
    gate.order(HardState(1))
    assert gate.persisted(1)[0] == 0
    assert gate.persisted(2)[0] == 2
