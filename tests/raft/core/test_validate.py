"""What no honest peer sends is told from what a slow, lagging or deposed one does."""

import pytest

from noti.raft.core.log import RaftLog
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    INDEX_MAX,
    AppendAccepted,
    AppendRequest,
    Entry,
    EntryKind,
    Message,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import new_entry
from noti.raft.core.validate import INDEX_JUMP_MAX, TERM_JUMP_MAX, find_violation
from tests import promises

TERM, COMMIT, LEADER = 5, 4, "n2"
VOTERS = encode_configuration(Configuration("c", ("n1", "n2", "n3")))


def entry(index: int, term: int) -> Entry:
    return new_entry(index, term, EntryKind.COMMAND, b"")


FIRST = new_entry(1, 1, EntryKind.CONFIGURATION, VOTERS)
LOG = RaftLog(None, [FIRST, entry(2, 1), entry(3, 3), entry(4, 3), entry(5, 4), entry(6, 4)])
"""Those up to 4 are committed."""


def object_to(message: Message) -> str | None:
    return find_violation(message, "n1", TERM, LEADER, COMMIT, LOG)


def append(term: int, previous: tuple[int, int], *entries: Entry, sender: str = LEADER) -> Message:
    return AppendRequest(sender, term, *previous, 0, entries)


def chunk(term: int, index: int, snapshot_term: int, configuration: bytes = VOTERS) -> Message:
    return SnapshotChunk(LEADER, term, index, snapshot_term, configuration, 0, b"x", 1)


def configuration(*voters: str, learners: tuple[str, ...] = ()) -> Entry:
    data = encode_configuration(Configuration("c", voters, learners=learners))
    return new_entry(7, 5, EntryKind.CONFIGURATION, data)


@promises.VIOLATIONS_REJECTED
@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (VoteRequest("n1", 6, 9, 5, False, False), "in our own name"),
        (TimeoutNow("n1", 5), "in our own name"),
        (VoteRequest("n3", TERM + TERM_JUMP_MAX + 1, 9, 5, False, False), "far beyond ours"),
        (VoteResponse("n3", INDEX_MAX, True, True), "far beyond ours"),
        (AppendAccepted("n3", 5, INDEX_MAX + 1), "no index, term or size"),
        (AppendAccepted("n3", 5, -1), "no index, term or size"),
        (VoteRequest("n3", 6, INDEX_MAX + 1, 5, False, False), "no index, term or size"),
        (append(5, (INDEX_MAX, 4), entry(INDEX_MAX + 1, 5)), "beyond the last possible index"),
        (append(0, (0, 0)), "a leader of term 0"),
        (TimeoutNow("n3", 0), "a leader of term 0"),
        (append(5, (6, 4), entry(8, 5)), "entry 8 where 7 belongs"),
        (append(5, (6, 4), entry(7, 3)), "entry 7 of term 3, after term 4"),
        (append(5, (6, 4), entry(7, 6)), "entry 7 of term 6"),
        (append(5, (0, 0), entry(1, 0)), "entry 1 of term 0"),
        (append(5, (6, 4), configuration()), "without voters"),
        (append(5, (6, 4), configuration("n2", "n1")), "in disorder"),
        (append(5, (6, 4), configuration("n1", learners=("n2", "n2"))), "names a node twice"),
        (append(5, (6, 4), new_entry(7, 5, EntryKind.CONFIGURATION, b"x")), "does not"),
        (append(5, (6, 4), sender="n3"), "a second leader in term 5, beside n2"),
        (append(6, (3, 3), entry(4, 4)), "entry 4 of term 4 in place of a committed one"),
        (append(5, (1, 1), entry(2, 3)), "entry 2 of term 3 in place of a committed one"),
        (chunk(5, 0, 1), "a snapshot at 0 of term 1"),
        (chunk(5, 9, 0), "a snapshot at 9 of term 0"),
        (chunk(5, 9, 6), "a snapshot at 9 of term 6"),
        (chunk(5, 6 + INDEX_JUMP_MAX + 1, 5), "far beyond our log, which ends at 6"),
        (chunk(5, 9, 2), "of term 2 after what is committed here"),
        (chunk(5, 9, 5, b"none"), "does not"),
        (SnapshotChunk(LEADER, 5, 9, 5, VOTERS, 1, b"x", 1), "beyond the snapshot's end"),
    ],
    ids=str,
)
def test_what_no_honest_peer_sends_is_rejected(message: Message, reason: str) -> None:
    found = object_to(message)
    assert found is not None
    assert reason in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    "message",
    [
        VoteRequest("n3", TERM + TERM_JUMP_MAX, INDEX_MAX, 5, False, False),
        VoteRequest("n9", 1, 0, 0, True, False),
        VoteResponse("n3", 3, False, False),
        AppendAccepted("n3", 5, INDEX_MAX),
        TimeoutNow("n3", 5),
        append(5, (6, 4)),
        append(5, (6, 4), entry(7, 5)),
        append(5, (9, 5), entry(10, 5)),  # a gap: it is refused with a hint
        append(6, (4, 3), entry(5, 6), sender="n3"),  # replaces what is not committed
        append(5, (1, 1), entry(2, 1), entry(3, 3)),  # comes again
        append(3, (4, 3), sender="n3"),  # a deposed leader
        append(3, (3, 3), entry(4, 3), sender="n3"),
        chunk(5, 9, 4),
        chunk(5, 3, 1),  # older than our commit: it is answered with that
        chunk(5, 6 + INDEX_JUMP_MAX, 5),
        chunk(4, 9, 2),  # of a deposed leader
    ],
    ids=str,
)
def test_nothing_is_rejected_that_a_slow_lagging_or_deposed_peer_sends(message: Message) -> None:
    assert object_to(message) is None
