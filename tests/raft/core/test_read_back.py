"""Entries on their way back from disk."""

from noti.raft.core.events import ReadEntries
from noti.raft.core.log import RaftLog
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import Entry, EntryKind, Snapshot
from noti.raft.core.read_back import Reading
from noti.raft.core.records import new_entry


def entry(index: int, term: int = 1) -> Entry:
    return new_entry(index, term, EntryKind.COMMAND, b"12345")


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
    reader.log.compact(Snapshot(2, 1, configuration, b"state"), keep_entries=0)
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
