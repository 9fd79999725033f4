"""Nothing is said before it is on disk."""

import math

from noti.raft.core.events import Persist, RestoreSnapshot
from noti.raft.core.gate import Gate
from noti.raft.core.messages import Entry, EntryKind, HardState, Snapshot, VoteResponse
from noti.raft.core.records import new_entry
from tests import promises

NEW = HardState(2, "n2")


def a_gate(saved: HardState) -> Gate:
    return Gate(saved, durable=0, election_timeout_s=0.5)


def vote(term: int = 2) -> VoteResponse:
    return VoteResponse("n1", term, granted=True, pre=False)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [new_entry(index, term, EntryKind.COMMAND, b"") for index in range(first, last + 1)]


def test_nothing_new_needs_no_write() -> None:
    gate = a_gate(NEW)
    assert gate.order(2, "n2", 0.0) == ()


def test_message_of_a_saved_term_leaves_at_once() -> None:
    gate = a_gate(NEW)
    assert gate.admit("n2", vote(), 2, "n2", hold=False)


def test_message_of_a_new_term_waits_for_exactly_the_batch_that_holds_it() -> None:
    gate = a_gate(HardState(1))
    gate.add_entries(entries(1, 1))
    gate.order(1, None, 0.0)
    assert not gate.admit("n2", vote(), 2, "n2", hold=False)
    assert gate.order(2, "n2", 0.0) == (Persist(2, NEW, ()),)
    assert gate.persisted(1, 0.0) == []
    assert gate.persisted(2, 0.0) == [("n2", vote())]
    assert gate.persisted(2, 0.0) == [], "and it leaves once"


def test_message_waits_while_its_term_is_on_its_way() -> None:
    gate = a_gate(HardState(1))
    gate.order(2, "n2", 0.0)
    assert not gate.admit("n2", vote(), 2, "n2", hold=False)
    assert gate.persisted(1, 0.0) == [("n2", vote())]
    assert gate.admit("n2", vote(), 2, "n2", hold=False)


@promises.HEARTBEATS_WAIT_FOR_NO_DISK
def test_later_entries_do_not_hold_a_message_back() -> None:
    """Heartbeats never wait for a disk: entries limit what is vouched for, not whether to speak."""
    gate = a_gate(HardState(1))
    gate.order(2, "n2", 0.0)
    gate.persisted(1, 0.0)
    gate.add_entries(entries(1, 9))
    gate.order(2, "n2", 0.0)
    assert gate.admit("n2", vote(), 2, "n2", hold=False)


def test_term_and_entries_of_one_moment_are_one_batch() -> None:
    gate = a_gate(HardState(1))
    gate.add_entries(entries(1, 2))
    assert gate.order(2, "n2", 0.0) == (Persist(1, NEW, tuple(entries(1, 2))),)
    assert gate.order(2, "n2", 0.0) == ()


def test_messages_leave_in_the_order_in_which_they_were_admitted() -> None:
    gate = a_gate(HardState(1))
    gate.admit("n2", vote(2), 2, "n2", hold=False)
    gate.order(2, "n2", 0.0)
    gate.admit("n3", vote(2), 2, "n2", hold=False)
    gate.admit("n2", vote(3), 3, None, hold=False)
    gate.order(3, None, 0.0)
    assert gate.persisted(2, 0.0) == [("n2", vote(2)), ("n3", vote(2)), ("n2", vote(3))]


def test_own_vote_is_held_even_if_nothing_has_to_be_written() -> None:
    gate = a_gate(NEW)
    assert not gate.admit("n1", vote(), 2, "n2", hold=True)


def test_snapshot_takes_a_number_in_the_same_line() -> None:
    gate = a_gate(HardState(1))
    gate.order(2, "n2", 0.0)
    whole = RestoreSnapshot(Snapshot(9, 1, b"", (b"",)), None)
    assert gate.install(whole, 0.0).batch == 2
    gate.add_entries(entries(1, 1))
    (order,) = gate.order(2, "n2", 0.0)
    assert order.batch == 3
    assert gate.installed(1) is None
    assert gate.installing == whole
    assert gate.installed(2) == whole
    assert gate.installed(3) is None, "and is installed once"


def test_completion_reports_up_to_where_entries_are_on_disk() -> None:
    gate = a_gate(HardState(1))
    gate.add_entries(entries(1, 3))
    gate.order(1, None, 0.0)
    gate.add_entries(entries(4, 5, term=2))
    gate.order(1, None, 0.0)
    gate.persisted(1, 0.0)
    assert gate.durable == 3
    gate.persisted(2, 0.0)
    assert gate.durable == 5


def test_truncated_entries_that_were_not_ordered_yet_stay_off_the_disk() -> None:
    gate = a_gate(HardState(1))
    gate.add_entries(entries(1, 3))
    gate.drop_entries_from(2)
    assert gate.order(1, None, 0.0) == (Persist(1, None, tuple(entries(1, 1))),)


def test_completion_of_a_batch_that_will_be_overwritten_reports_nothing() -> None:
    gate = a_gate(HardState(1))
    gate.add_entries(entries(1, 4))
    gate.order(1, None, 0.0)
    gate.drop_entries_from(2)
    gate.add_entries(entries(2, 2, term=2))
    gate.order(1, None, 0.0)
    gate.persisted(1, 0.0)
    assert gate.durable == 0
    gate.persisted(2, 0.0)
    assert gate.durable == 2


# --- a disk that hangs ----------------------------------------------------------------------------


def waiting(*, ordered: int, done: int, now: float) -> Gate:
    """Return a gate that ordered so many batches, and got answers to these, all at once."""
    gate = a_gate(HardState())
    for term in range(1, ordered + 1):
        gate.order(term, None, now)
    if done:
        gate.persisted(done, now)
    return gate


def test_disk_that_owes_nothing_never_hangs() -> None:
    gate = waiting(ordered=3, done=3, now=1.0)
    assert gate.look_at == math.inf
    gate.look(100.0)
    assert gate.hung_since is None


def test_disk_hangs_when_it_owes_an_answer_for_two_election_timeouts() -> None:
    gate = waiting(ordered=3, done=2, now=1.0)
    gate.order(4, None, 1.8)
    assert gate.look_at == 2.0
    gate.look(1.9)
    assert gate.hung_since is None
    gate.look(2.1)
    assert gate.hung_since == 1.0
    assert gate.look_at == math.inf, "there is nothing more to find out"


def test_disk_that_answers_slowly_does_not_hang() -> None:
    gate = waiting(ordered=3, done=0, now=1.0)
    for done, now in ((1, 1.9), (2, 2.8)):
        gate.persisted(done, now)
        gate.look(now)
    assert gate.hung_since is None
    assert gate.look_at == 3.8


def test_one_answer_ends_it() -> None:
    gate = waiting(ordered=3, done=1, now=1.0)
    gate.look(2.0)
    assert gate.hung_since is not None
    gate.persisted(2, 9.0)
    assert gate.hung_since is None
    assert gate.look_at == 10.0


def test_disk_that_says_that_a_long_write_gets_on_does_not_hang() -> None:
    gate = waiting(ordered=3, done=2, now=1.0)
    for now in (1.9, 2.8, 3.7):
        gate.persisted(2, now)
        gate.look(now)
    assert gate.hung_since is None


def test_process_that_was_stopped_itself_blames_no_disk() -> None:
    gate = waiting(ordered=3, done=2, now=1.0)
    gate.look(8.0)
    assert gate.hung_since is None
    gate.look(9.0)
    assert gate.hung_since == 8.0, "it had its time then"
