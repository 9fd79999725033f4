"""Why a leader gets nothing done, and whether somebody else would do better."""

from noti.raft.core.config import RaftConfig
from noti.raft.core.log import RaftLog
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import AppendAccepted, EntryKind
from noti.raft.core.obstacles import has_better, obstacle
from noti.raft.core.read_back import Reading
from noti.raft.core.records import new_entry
from noti.raft.core.replication import Replication

THREE = Configuration("c", ("a", "b", "d"))
TERM = 2


def replication(*answers: tuple[str, int, float]) -> Replication:
    """Of leader a, whose log ends at 3; each answer tells who has how much, and when he said so."""
    entries = [new_entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(THREE))]
    entries += [new_entry(index, TERM, EntryKind.NOOP, b"") for index in (2, 3)]
    log = RaftLog(None, entries)
    reading = Reading(log, bytes_max=1, order=lambda _: None)
    found = Replication(
        RaftConfig("a"), log, reading=reading, term=TERM, now=0.0, send=lambda *_: None
    )
    for node, match, now in answers:
        found.on_response(AppendAccepted(node, TERM, match), 1, now)
    return found


def why(found: Replication, durable: int, now: float) -> str:
    return obstacle(found, THREE, own_id="a", index=3, durable=durable, now=now)


def test_silent_majority_is_named() -> None:
    assert why(replication(("b", 1, 0.1)), 3, 1.0) == (
        "no majority answers; nothing is heard of b, d"
    )


def test_own_disk_is_named_before_others() -> None:
    found = replication(("b", 3, 1.0), ("d", 1, 1.0))
    assert why(found, 2, now=1.0) == "this node's own disk has not taken its entry yet"


def test_slow_disks_of_others_are_named() -> None:
    found = replication(("b", 2, 1.0), ("d", 1, 1.0))
    assert why(found, 3, 1.0) == "the entry is not on the disk of b, d"


def test_only_who_answers_and_has_more_does_better() -> None:
    assert has_better(replication(("b", 3, 1.0)), 2, now=1.0)
    assert not has_better(replication(("b", 2, 1.0)), 2, now=1.0), "its disk is no better"
    assert not has_better(replication(("b", 3, 0.1)), 2, now=1.0), "it does not answer"
