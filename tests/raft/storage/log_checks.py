"""What must hold between the logs of all cores, and within each.

Enters: logs. Leaves: an `AssertionError`. Never: changes anything.
"""

import itertools
import sys
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from noti.raft.core.events import Role
from noti.raft.core.log import RaftLog
from noti.raft.core.machine import Raft
from noti.raft.core.membership import decode_configuration
from noti.raft.core.messages import AppendAccepted, Entry, EntryKind
from tests.raft.storage.disk_image import DiskImage

Held: TypeAlias = tuple[RaftLog, DiskImage]
"""A log: the entries that memory let go are on disk."""


def first_at_hand(held: Held) -> int:
    """Return from where on entries of a log can be looked at: a leader's snapshot replaces the log
    on disk a little before the core hears that it has."""
    log, disk = held
    if disk.snapshot is None or disk.snapshot.index <= log.snapshot_index:
        return log.first_index
    return max(log.first_index, min(log.held_from, disk.snapshot.index + 1))


def entry_at(held: Held, index: int) -> Entry:
    """Return an entry of a log."""
    log, disk = held
    if index >= log.held_from:
        return log.slice(index, index, bytes_max=1)[0]
    entry = disk.entry_at(index)
    assert entry.term == log.term_at(index), "let go of an entry that is not on disk"
    return entry


def check_acknowledgement(answer: AppendAccepted, core: Raft, disk: DiskImage) -> None:
    """A node vouches for what is on its disk, and for what the leader has there."""
    match_index = answer.match_index
    assert match_index <= disk.last_index(), "vouched for what is not on disk"
    on_disk, in_log = disk.term_at(match_index), core._log.term_at(match_index)
    if answer.term == core._term and on_disk is not None and in_log is not None:
        assert on_disk == in_log, "vouched for what the disk has otherwise"


def check_completeness(
    name: str, log: RaftLog, disk: DiskImage, committed: Mapping[int, tuple[int, bytes]]
) -> None:
    """A new leader has what was `committed`: index, term and data."""
    for index, known in committed.items():
        if index >= log.first_index:
            lacks = log.last_index < index
            assert not lacks, f"leader completeness: {name} lacks committed entry {index}"
            entry = entry_at((log, disk), index)
            same = (entry.term, entry.data) == known
            assert same, f"leader completeness: {name} differs at {index}"


def entries_at_hand(held: Held) -> list[Entry]:
    """Return the entries of a log that can be looked at, which are as its outline has them."""
    log, disk = held
    first = first_at_hand(held)
    entries: list[Entry] = []
    if first < log.held_from:
        skipped = disk.entries[0].index
        entries += disk.entries[first - skipped : log.held_from - skipped]
    entries += log.slice(max(first, log.held_from), log.last_index, bytes_max=sys.maxsize)
    for index, entry in enumerate(entries, first):
        assert (entry.index, entry.term) == (index, log.term_at(index)), (
            "let go of an entry that is not on disk"
        )
    assert first + len(entries) == log.last_index + 1, "let go of what is not on disk"
    return entries


def check_logs(logs: Sequence[Held]) -> None:
    """Same index and term, same entries before; configurations are those of the entries."""
    listed = [(first_at_hand(held), entries_at_hand(held)) for held in logs]
    for (log, _), (first, entries) in zip(logs, listed, strict=True):
        check_configurations_of(log, first, entries)
    for (first, entries), (other_first, others) in itertools.combinations(listed, 2):
        both = max(first, other_first)
        one, other = entries[both - first :], others[both - other_first :]
        same = min(len(one), len(other))
        while same and one[same - 1].term != other[same - 1].term:
            same -= 1
        assert one[:same] == other[:same], f"logs differ below {both + same}"


def check_configurations_of(log: RaftLog, first: int, entries: Sequence[Entry]) -> None:
    """The configurations in force are those of the entries that are there (thesis 4.1)."""
    covered = log.snapshot_index
    changes = [
        (entry.index, decode_configuration(entry.data))
        for entry in entries
        if entry.kind is EntryKind.CONFIGURATION and entry.index > covered
    ]
    in_force = [change for change in log._configurations if change[0] >= first]
    assert in_force == changes, "a configuration that is not in the log"


def check_configuration(core: Raft) -> None:
    """A leader takes one step at a time, and each so that no two majorities miss each other."""
    log = core._log
    configuration = log.configuration
    if core.role is not Role.LEADER or log.configuration_index != log.last_index:
        return
    before = log.configuration_at(log.configuration_index - 1)
    earlier = [index for index, _ in log._configurations[:-1]]
    assert not earlier or earlier[-1] <= core._commit, (
        "changed the membership before the last change was committed"
    )
    assert log.term_at(core._commit) == core._term, (
        "changed the membership before anything of its term was committed"
    )
    if before.outgoing:
        joined = configuration.voters == before.voters and not configuration.outgoing
        assert joined, "left a joint configuration for another one than it led to"
    elif configuration.outgoing:
        assert configuration.outgoing == before.voters, "entered a joint configuration askew"
    else:
        changed = set(before.voters) ^ set(configuration.voters)
        assert len(changed) <= 1, "changed several voters in one step"
