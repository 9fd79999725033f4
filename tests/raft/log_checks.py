"""What must hold between the logs of all cores, and within each.

Enters: logs. Leaves: an `AssertionError`. Never: changes anything.
"""

import itertools
from collections.abc import Sequence

from noti.raft.log import RaftLog
from noti.raft.membership import decode_configuration
from noti.raft.messages import INDEX_MAX, EntryKind


def check_logs(logs: Sequence[RaftLog]) -> None:
    """Same index and term, same entries before; configurations are those of the entries."""
    for log in logs:
        check_configurations_of(log)
    for one, other in itertools.combinations(logs, 2):
        last = min(one.last_index, other.last_index)
        first = max(one.first_index, other.first_index)
        same = False
        for index in range(last, first - 1, -1):
            if same or one.term_at(index) == other.term_at(index):
                same = True
                assert one.slice(index, index, 1) == other.slice(index, index, 1)


def check_configurations_of(log: RaftLog) -> None:
    """The configurations in force are those of the entries that are there (thesis 4.1)."""
    entries = log.slice(log.first_index, log.last_index, INDEX_MAX) if log.last_index else ()
    covered = log.snapshot.index if log.snapshot else 0
    changes = [
        (entry.index, decode_configuration(entry.data))
        for entry in entries
        if entry.kind is EntryKind.CONFIGURATION and entry.index > covered
    ]
    assert log._configurations == changes, "a configuration that is not in the log"
