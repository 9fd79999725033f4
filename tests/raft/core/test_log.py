"""The log in memory: terms, slices, truncation, compaction."""

import pytest

from noti.raft.core.events import ReadEntries
from noti.raft.core.log import ENTRY_OVERHEAD_BYTES, RaftLog, Reading
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import Entry, EntryKind, Snapshot
from noti.raft.core.records import new_entry

ONE = Configuration("c", ("n1",))
THREE = Configuration("c", ("n1", "n2", "n3"))


def entry(index: int, term: int = 1, data: bytes = b"") -> Entry:
    return new_entry(index, term, EntryKind.COMMAND, data)


def configuration_entry(index: int, configuration: Configuration, term: int = 1) -> Entry:
    return new_entry(index, term, EntryKind.CONFIGURATION, encode_configuration(configuration))


def snapshot(index: int, term: int = 1, configuration: Configuration = ONE) -> Snapshot:
    return Snapshot(index, term, encode_configuration(configuration), (b"state",))


def log_of(*terms: int) -> RaftLog:
    return RaftLog(None, [entry(index, term) for index, term in enumerate(terms, start=1)])


def test_empty_log_ends_at_zero() -> None:
    log = RaftLog(None, ())
    assert (log.first_index, log.last_index, log.last_term) == (1, 0, 0)
    assert log.term_at(0) == 0
    assert log.term_at(1) is None
    assert log.configuration == Configuration()


def test_log_after_a_snapshot_continues_where_the_snapshot_ends() -> None:
    log = RaftLog(snapshot(5, term=2), [entry(4), entry(5, 2), entry(6, 3)])
    assert (log.first_index, log.last_index, log.last_term) == (6, 6, 3)
    assert (log.term_at(4), log.term_at(5), log.term_at(6)) == (None, 2, 3)
    assert log.configuration == ONE


def test_log_that_is_only_a_snapshot_has_its_last_index_and_term() -> None:
    log = RaftLog(snapshot(5, term=2), ())
    assert (log.first_index, log.last_index, log.last_term) == (6, 5, 2)


@pytest.mark.parametrize("bad", [entry(4, 2), entry(2, 2), entry(3, 1)])
def test_entry_that_leaves_a_gap_or_lowers_the_term_stops_the_node(bad: Entry) -> None:
    log = log_of(1, 2)
    with pytest.raises(AssertionError):
        log.append([bad])


@pytest.mark.parametrize(
    ("last_index", "last_term", "expected"),
    [(3, 2, True), (4, 2, True), (1, 3, True), (2, 2, False), (9, 1, False)],
)
def test_candidate_is_up_to_date_by_term_first_and_length_second(
    last_index: int, last_term: int, expected: bool
) -> None:
    configuration = new_entry(
        1, 1, EntryKind.CONFIGURATION, encode_configuration(Configuration("c", ("n1",)))
    )
    log = RaftLog(None, [configuration, entry(2, 2), entry(3, 2)])
    assert log.is_up_to_date(last_index, last_term) is expected


def test_node_without_a_configuration_finds_nobody_up_to_date() -> None:
    """It might belong to another cluster, and has no vote to give."""
    assert not RaftLog(None, []).is_up_to_date(9, 9)


def test_slice_holds_at_most_the_bytes_but_always_one_entry() -> None:
    log = RaftLog(None, [entry(index, data=b"12345") for index in range(1, 6)])
    assert [e.index for e in log.slice(2, 9, bytes_max=10)] == [2, 3]
    assert [e.index for e in log.slice(2, 3, bytes_max=100)] == [2, 3]
    assert [e.index for e in log.slice(4, 9, bytes_max=1)] == [4]
    assert log.slice(6, 9, bytes_max=100) == ()


def test_truncation_takes_back_the_configurations_in_it() -> None:
    """A configuration counts from its append on, so losing the entry must undo it."""
    log = RaftLog(None, [configuration_entry(1, ONE), entry(2), configuration_entry(3, THREE)])
    assert log.configuration == THREE
    assert log.configuration_at(2) == ONE
    log.truncate_from(3)
    assert log.configuration == ONE
    assert log.last_index == 2


def test_probe_hint_is_the_last_entry_of_a_term_not_above_the_leaders() -> None:
    log = log_of(1, 1, 4, 4, 4)
    assert log.last_index_with_term_at_most(5, 3) == 2
    assert log.last_index_with_term_at_most(99, 4) == 5
    assert log.last_index_with_term_at_most(4, 4) == 4
    assert log.last_index_with_term_at_most(5, 0) == 0


def test_probe_hint_never_goes_below_the_snapshot() -> None:
    log = RaftLog(snapshot(3, term=2), [entry(4, 4)])
    assert log.last_index_with_term_at_most(4, 1) == 3


def test_compaction_keeps_a_tail_for_followers_that_lag() -> None:
    log = log_of(1, 1, 2, 2, 3)
    log.compact(snapshot(4, term=2), keep_entries=2)
    assert (log.first_index, log.last_index) == (3, 5)
    assert log.term_at(2) == 1, "the entry before the first one is still known by its term"
    assert log.term_at(1) is None
    assert [e.term for e in log.slice(3, 5, bytes_max=100)] == [2, 2, 3]


def test_compaction_keeps_the_configuration_that_it_drops_from_the_log() -> None:
    log = RaftLog(None, [configuration_entry(1, THREE), entry(2), entry(3)])
    log.compact(snapshot(2, configuration=THREE), keep_entries=0)
    assert log.first_index == 3
    assert log.configuration == THREE
    assert log.configuration_at(3) == THREE


def test_configuration_after_the_snapshot_survives_compaction() -> None:
    log = RaftLog(None, [configuration_entry(1, ONE), entry(2), configuration_entry(3, THREE)])
    log.compact(snapshot(2), keep_entries=0)
    assert log.configuration == THREE
    log.truncate_from(3)
    assert log.configuration == ONE


def test_compaction_twice_in_a_row_never_goes_back() -> None:
    log = log_of(1, 1, 1, 1)
    log.compact(snapshot(2), keep_entries=0)
    log.compact(snapshot(3), keep_entries=10)
    assert (log.first_index, log.last_index) == (3, 4)
    with pytest.raises(AssertionError):
        log.compact(snapshot(2), keep_entries=0)


def test_leaders_snapshot_that_the_log_contains_keeps_the_suffix() -> None:
    log = log_of(1, 1, 2, 2)
    log.install(snapshot(3, term=2))
    assert (log.first_index, log.last_index, log.last_term) == (4, 4, 2)


@pytest.mark.parametrize("installed", [snapshot(3, term=5), snapshot(9, term=2)])
def test_leaders_snapshot_that_the_log_does_not_contain_replaces_all(installed: Snapshot) -> None:
    log = RaftLog(None, [configuration_entry(1, THREE), entry(2), entry(3), entry(4)])
    log.install(installed)
    assert (log.first_index, log.last_index) == (installed.index + 1, installed.index)
    assert log.last_term == installed.term
    assert log.configuration == ONE


def test_node_whose_removal_is_not_known_to_be_committed_may_campaign() -> None:
    """A leader that crashed while it removed itself may have the only log that can win."""
    before, after = Configuration("c", ("n1", "n2")), Configuration("c", ("n2",))
    log = RaftLog(None, [configuration_entry(1, before), entry(2), configuration_entry(3, after)])
    assert log.may_campaign("n1", commit=2)
    assert not log.may_campaign("n1", commit=3)
    assert not log.may_campaign("n9", commit=2)


def test_memory_lets_the_oldest_go_that_are_on_disk_beyond_its_bound() -> None:
    size = ENTRY_OVERHEAD_BYTES + 100
    entries = [entry(index, data=bytes(100)) for index in range(1, 11)]
    log = RaftLog(None, entries, memory_bytes=4 * size)
    log.let_go(durable=3)
    assert (log.held_from, log.held_bytes) == (4, 7 * size)
    log.let_go(durable=10)
    assert (log.held_from, log.held_bytes) == (7, 4 * size)
    assert (log.first_index, log.last_index, log.term_at(1)) == (1, 10, 1)
    with pytest.raises(AssertionError):
        log.slice(6, 10, bytes_max=1000)
    log.truncate_from(5)
    assert (log.held_from, log.held_bytes, log.last_index) == (5, 0, 4)
    log.append([entry(5, 2)])
    assert log.slice(5, 9, bytes_max=1000) == (entry(5, 2),)


def test_compaction_keeps_no_more_than_a_bound_in_bytes() -> None:
    log = RaftLog(None, [entry(index, data=bytes(100_000)) for index in range(1, 101)])
    log.compact(snapshot(90), keep_entries=1000, keep_bytes=5_000_000)
    assert 50 <= log.first_index - 1 <= 55
    assert log.held_from == log.first_index
    log.compact(snapshot(95), keep_entries=1000, keep_bytes=0)
    assert log.first_index == 96


def test_installed_snapshot_leaves_nothing_in_memory_that_it_covers() -> None:
    log = log_of(1, 1, 1)
    log.install(snapshot(2))
    assert (log.held_from, log.held_bytes) == (3, ENTRY_OVERHEAD_BYTES)
    log.install(snapshot(9, term=2))
    assert (log.held_from, log.held_bytes) == (10, 0)


ENTRIES = tuple(entry(index) for index in range(1, 7))


class Reader:
    """A log of six entries of which memory holds none, and what was ordered."""

    def __init__(self) -> None:
        self.log = RaftLog(None, ENTRIES, memory_bytes=0)
        self.log.let_go(6)
        self.orders: list[ReadEntries] = []
        self.reading = Reading(self.log, bytes_max=100, order=self.orders.append)


def test_each_reader_has_one_read_under_way() -> None:
    reader = Reader()
    reader.reading.want("n2", 3)
    reader.reading.want("n2", 4)
    reader.reading.want("n3", 4)
    assert reader.orders == [ReadEntries("n2", 3, 6, 100), ReadEntries("n3", 4, 6, 100)]
    assert reader.reading.take("n2", ENTRIES[2:4]) == ENTRIES[2:4]
    reader.reading.want("n2", 5)
    assert reader.orders[-1] == ReadEntries("n2", 5, 6, 100)


def test_what_another_leader_replaced_meanwhile_is_not_taken() -> None:
    reader = Reader()
    reader.reading.want("n2", 2)
    reader.log.truncate_from(4)
    reader.log.append([entry(4, term=2)])
    assert reader.reading.take("n2", ENTRIES[1:]) == ENTRIES[1:3]


def test_what_was_compacted_meanwhile_is_not_taken_not_even_the_base() -> None:
    """Of the base the log knows the term, and of what comes before it nothing."""
    reader = Reader()
    reader.reading.want("n2", 2)
    reader.reading.want("n3", 3)
    configuration = encode_configuration(Configuration("c", ("n1", "n2", "n3")))
    reader.log.compact(Snapshot(2, 1, configuration, (b"state",)), keep_entries=0)
    assert reader.reading.take("n2", ENTRIES[1:]) == ()
    assert reader.reading.take("n3", ENTRIES[2:]) == ENTRIES[2:]


def test_what_does_not_begin_where_it_was_wanted_is_not_taken() -> None:
    reader = Reader()
    reader.reading.want("n2", 2)
    assert reader.reading.take("n2", ENTRIES[2:]) == ()


def test_what_is_to_be_applied_comes_from_memory_or_is_read_first() -> None:
    reader = Reader()
    reader.log.append([entry(7), entry(8)])
    assert reader.reading.due(7, 7, None) == (entry(7),)
    assert reader.reading.due(5, 7, None) == ()
    assert reader.orders == [ReadEntries(None, 5, 6, 100)]
    assert reader.reading.due(5, 5, ENTRIES[4:]) == (entry(5),)
    assert reader.reading.due(6, 8, ENTRIES[4:]) == ()
