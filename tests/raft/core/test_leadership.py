"""What a leader does with requests, and when it must not."""

from typing import TypeVar

from noti.raft.core.config import RaftConfig
from noti.raft.core.events import (
    ChangeRejected,
    ChangeRequested,
    CommitStalled,
    DeadlineReached,
    Effect,
    ProposalAccepted,
    ProposalRejected,
    Proposed,
    ReadReady,
    ReadRequested,
    Role,
    TransferRequested,
)
from noti.raft.core.leadership import has_better, obstacle
from noti.raft.core.log import RaftLog, Reading
from noti.raft.core.membership import Change, Configuration, encode_configuration
from noti.raft.core.messages import AppendAccepted, EntryKind, TimeoutNow
from noti.raft.core.records import new_entry
from noti.raft.core.replication import Replication
from tests import promises
from tests.raft.core.test_machine_pitfalls import OneCore, append, confirmed, entry

E = TypeVar("E", bound=Effect)
LEARNING = Configuration("test", ("n1", "n2", "n3"), learners=("n4",))
ADD = Change(add=frozenset({"n9"}))


def a_leader(known_commit: int = 0) -> OneCore:
    """Of term 2, with entries 1 to 4 of term 1, and its own first one at 5, not committed yet."""
    entries = tuple(entry(index, 1) for index in (2, 3, 4))
    core = OneCore(entries=entries, configuration=LEARNING)
    if known_commit:
        core.hear(append("n3", 1, (4, 1), commit=known_commit))
        core.now += 5
    core.lead()
    core.write()
    return core


def a_ready_leader() -> OneCore:
    core = a_leader()
    core.hear(confirmed("n2", 2, 5))
    assert core.raft.status().leads_ready
    return core


def found(core: OneCore, kind: type[E]) -> list[E]:
    return [effect for effect in core.effects if isinstance(effect, kind)]


def propose(core: OneCore) -> bool:
    """Return whether a command is taken."""
    core.step(Proposed(((99, b"x"),)))
    assert len(found(core, ProposalAccepted)) + len(found(core, ProposalRejected)) == 1
    return bool(found(core, ProposalAccepted))


@promises.CONSISTENT_READ
def test_readers_of_a_new_leader_wait_for_the_first_entry_of_its_term() -> None:
    """What its predecessor committed last may be more than it knows to be committed (Raft 6.4)."""
    core = a_leader()
    assert core.raft.status().commit_index < 4, "it does not know that 4 is committed"
    core.step(ReadRequested((7,)))
    core.hear(AppendAccepted("n2", 2, 0, round=2))
    assert found(core, ReadReady) == [ReadReady(7, 5)]


def test_no_change_before_the_first_entry_of_the_own_term_is_committed() -> None:
    """Also when the last change was committed long ago: two leaders that have not committed yet
    could each append a change to the same configuration (Ongaro 2015)."""
    core = a_leader(known_commit=3)
    assert core.raft.status().commit_index > core.raft.status().configuration_index
    core.step(ChangeRequested(1, ADD))
    assert len(found(core, ChangeRejected)) == 1
    core.hear(confirmed("n2", 2, 4))
    core.step(ChangeRequested(2, ADD))
    assert len(found(core, ChangeRejected)) == 1, "entries of older terms prove nothing"
    core.hear(confirmed("n2", 2, 5))
    core.step(ChangeRequested(3, ADD))
    assert len(found(core, ProposalAccepted)) == 1


def test_no_change_while_leadership_is_handed_over() -> None:
    core = a_ready_leader()
    core.step(TransferRequested())
    core.step(ChangeRequested(1, ADD))
    assert found(core, ChangeRejected) == [ChangeRejected(1, "leadership is being handed over")]


def test_learner_that_holds_nothing_of_the_log_is_not_promoted() -> None:
    """It knows of no cluster, so it would refuse the vote that is needed next."""
    core = a_ready_leader()
    core.step(ChangeRequested(1, Change(promote=frozenset({"n4"}))))
    assert "has nothing of the log" in found(core, ChangeRejected)[0].reason
    core.hear(confirmed("n4", 2, 1))
    core.step(ChangeRequested(2, Change(promote=frozenset({"n4"}))))
    assert len(found(core, ProposalAccepted)) == 1


def test_repeated_wish_to_hand_over_does_not_prolong_it() -> None:
    """Otherwise who wishes often enough keeps all proposers out."""
    core = a_ready_leader()
    core.step(TransferRequested())
    assert not propose(core)
    core.now += 0.4
    core.hear(confirmed("n2", 2, 5))
    core.step(TransferRequested())
    core.now += 0.11
    core.step(DeadlineReached())
    assert propose(core)


def test_second_wish_to_hand_over_asks_nobody_else() -> None:
    core = a_ready_leader()
    [asked] = [m for m in core.step(TransferRequested()) if isinstance(m, TimeoutNow)]
    assert asked.term == 2
    core.hear(confirmed("n3", 2, 5))
    assert not [m for m in core.step(TransferRequested()) if isinstance(m, TimeoutNow)]


def test_joint_change_committed_in_a_hand_over_is_ended_when_that_is_given_up() -> None:
    """The successor was to end it, and never took over."""
    core = a_ready_leader()
    core.hear(confirmed("n4", 2, 5))
    swap = Change(promote=frozenset({"n4"}), remove=frozenset({"n3"}))
    core.step(ChangeRequested(1, swap))
    core.step(TransferRequested())
    core.write()
    for follower in ("n2", "n4"):
        core.hear(confirmed(follower, 2, 6))
    status = core.raft.status()
    assert status.commit_index == status.last_index == 6, "the joint configuration"
    core.now += 0.4
    core.hear(confirmed("n2", 2, 6))
    core.now += 0.11
    core.step(DeadlineReached())
    status = core.raft.status()
    assert (status.last_index, status.configuration.outgoing) == (7, ())


def stalls(core: OneCore) -> list[str]:
    return [effect.reason for effect in core.effects if isinstance(effect, CommitStalled)]


def test_elected_leader_that_commits_nothing_reports_why_once() -> None:
    core = a_leader()
    core.now += 0.4
    core.hear(confirmed("n2", 2, 4))
    core.now += 0.11
    core.step(DeadlineReached())
    assert stalls(core) == ["the entry is not on the disk of n2"]
    assert core.raft.status().role is Role.LEADER, "nobody else would do better"
    core.hear(confirmed("n3", 2, 4))
    core.now += 0.4
    core.step(DeadlineReached())
    assert stalls(core) == []


def test_elected_leader_whose_own_disk_took_nothing_hands_over_after_an_election_timeout() -> None:
    """Its first entry is with the others, so they could serve, and it cannot."""
    core = OneCore(entries=(), configuration=LEARNING)
    core.lead()
    core.now += 0.4
    for other in ("n2", "n3"):
        core.hear(confirmed(other, 2, 2))
    assert not core.raft.status().leads_ready
    core.now += 0.11
    asked = core.step(DeadlineReached())
    assert stalls(core) == ["this node's own disk has not taken its entry yet"]
    assert [type(message) for message in asked if isinstance(message, TimeoutNow)] == [TimeoutNow]


def test_leader_whose_disk_hangs_leads_on_when_nobody_is_known_to_do_better() -> None:
    """All disks are slow, say: an election needs them, too."""
    core = a_ready_leader()
    propose(core)
    for _ in range(4):
        core.now += 0.3
        core.hear(confirmed("n2", 2, 5))
        assert not [m for m in core.step(DeadlineReached()) if isinstance(m, TimeoutNow)]
    assert core.raft.status().disk_hung_since is not None
    assert core.raft.status().role is Role.LEADER
    core.hear(confirmed("n2", 2, 6))
    core.now += 0.1
    assert [m for m in core.step(DeadlineReached()) if isinstance(m, TimeoutNow)]


def test_node_whose_disk_answers_again_gives_the_leader_time_to_speak() -> None:
    core = a_ready_leader()
    for follower in ("n2", "n3"):
        core.hear(confirmed(follower, 2, 5))
    core.hear(append("n2", 3, (5, 2), entry(6, 3)))
    core.now += 1.01
    core.step(DeadlineReached())
    assert core.raft.status().disk_hung_since is not None
    core.now += 10
    assert not core.step(DeadlineReached()), "it does not campaign"
    core.write()
    assert core.raft.status().disk_hung_since is None
    assert not core.step(DeadlineReached())
    assert core.raft.status().role is Role.FOLLOWER, "nor at once when it can"
    core.now += 1.01
    core.step(DeadlineReached())
    assert core.raft.status().role is Role.PRE_CANDIDATE


def test_elected_leader_that_nobody_answers_reports_it_and_steps_down() -> None:
    core = a_leader()
    core.now += 0.51
    core.step(DeadlineReached())
    assert stalls(core) == ["no majority answers; no answer from n2, n3, n4"]
    assert core.raft.status().role is Role.FOLLOWER


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
    assert why(replication(("b", 1, 0.1)), 3, 1.0) == ("no majority answers; no answer from b, d")


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
