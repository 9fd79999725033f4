"""Elections, replication and persistence of the core, in virtual time."""

import random

import pytest

from noti.raft.core.config import RaftConfig
from noti.raft.core.events import (
    Apply,
    Bootstrapped,
    DeadlineReached,
    DiskOutdated,
    MessageReceived,
    PeerConnected,
    Persist,
    Persisted,
    ProposalAccepted,
    ProposalRejected,
    Proposed,
    Role,
    RoleChanged,
    SendMessage,
)
from noti.raft.core.machine import Raft
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    INDEX_MAX,
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    Entry,
    EntryKind,
    HardState,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import new_entry
from tests import promises
from tests.raft.core.cluster import Cluster, Node
from tests.raft.faults import torment


def commands(node: Node) -> list[bytes]:
    return node.applied


def test_three_nodes_elect_exactly_one_leader() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(2.0)
    roles = [node.running.status().role for node in cluster.nodes.values()]
    assert roles.count(Role.LEADER) == 1
    assert roles.count(Role.FOLLOWER) == 2
    assert {node.running.status().leader for node in cluster.nodes.values()} == {leader.name}


def test_single_leader_wakes_for_its_quorum_check_only() -> None:
    """And not for heartbeats that nobody gets: they cost an idle node ten turns a second."""
    cluster = Cluster(size=1)
    leader = cluster.elect()
    woken = set()
    for _ in range(300):
        cluster.run(0.01)
        woken.add(leader.running.deadline())
    assert 5 <= len(woken) <= 8, "3 s, an election timeout of 0.5 s"


def test_single_node_leads_and_commits_alone() -> None:
    cluster = Cluster(size=1)
    leader = cluster.elect()
    cluster.propose(leader, b"one")
    cluster.run(1.0)
    assert commands(leader) == [b"one"]


def test_command_reaches_every_state_machine_in_order() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    expected = [b"%d" % number for number in range(100)]
    for data in expected:
        cluster.propose(leader, data)
    cluster.run(1.0)
    assert all(commands(node) == expected for node in cluster.nodes.values())


def test_idle_followers_learn_a_commit_without_waiting_for_a_heartbeat() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.run(1.0)
    start = cluster.now
    cluster.propose(leader, b"x")
    cluster.run_until(lambda: all(commands(node) == [b"x"] for node in cluster.nodes.values()))
    assert cluster.now - start < 0.03


def test_new_leader_after_a_crash_keeps_everything_committed() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(leader, b"kept")
    cluster.run_until(lambda: commands(leader) == [b"kept"])
    leader.crash()
    start = cluster.now
    successor = cluster.elect()
    assert successor is not leader
    assert cluster.now - start < 0.15, "a reset stream starts the election at once"
    cluster.propose(successor, b"new")
    leader.start()
    cluster.run(2.0)
    assert all(commands(node) == [b"kept", b"new"] for node in cluster.nodes.values())


def test_silent_leader_is_replaced_within_three_election_timeouts() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.isolate(leader.name)
    start = cluster.now
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    assert cluster.now - start < 1.5


def test_isolated_leader_steps_down_and_its_entries_are_replaced() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.isolate(leader.name)
    cluster.propose(leader, b"lost")
    cluster.run(2.0)
    assert leader.running.status().role is not Role.LEADER
    successor = cluster.elect()
    cluster.propose(successor, b"won")
    cluster.heal()
    cluster.run(3.0)
    assert all(commands(node) == [b"won"] for node in cluster.nodes.values())


@promises.LEADER_NOT_DISTURBED
def test_follower_cut_off_for_long_does_not_disturb_the_term() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    term = leader.running.status().term
    cluster.isolate(follower.name)
    cluster.run(10.0)
    assert follower.running.status().term == term, "pre-vote keeps the term where it is"
    cluster.heal()
    cluster.run(3.0)
    assert cluster.leader() is leader
    assert leader.running.status().term == term


def test_paused_leader_learns_that_it_was_replaced() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    leader.paused = True
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    successor = cluster.leader()
    assert successor is not None
    cluster.propose(successor, b"meanwhile")
    cluster.run(5.0)
    leader.paused = False
    request = cluster.propose(leader, b"zombie")
    cluster.run(2.0)
    assert leader.running.status().role is Role.FOLLOWER
    assert isinstance(leader.outcomes[request], ProposalAccepted | ProposalRejected)
    assert all(commands(node) == [b"meanwhile"] for node in cluster.nodes.values())


def test_transfer_hands_leadership_to_a_caught_up_follower_without_losing_a_command() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(leader, b"before")
    start = cluster.now
    cluster.transfer(leader)
    refused = cluster.propose(leader, b"during")
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    assert cluster.now - start < 0.1
    assert isinstance(leader.outcomes[refused], ProposalRejected)
    cluster.run(1.0)
    assert all(commands(node) == [b"before"] for node in cluster.nodes.values())


@promises.LEADERSHIP_HANDED_OVER
def test_transfer_to_a_vanished_follower_is_given_up_and_proposals_go_on() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(leader, b"before")
    cluster.run(0.5)
    for other in cluster.names:
        if other != leader.name:
            cluster.blocked.add((leader.name, other))
    cluster.transfer(leader)
    cluster.run(0.3)
    cluster.heal()
    cluster.run(3.0)
    survivor = cluster.elect()
    cluster.propose(survivor, b"after")
    cluster.run(1.0)
    assert all(commands(node) == [b"before", b"after"] for node in cluster.nodes.values())


@promises.COMMITTED_SURVIVES
def test_all_nodes_crash_and_come_back_with_everything() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(leader, b"kept")
    cluster.run(1.0)
    for node in cluster.nodes.values():
        node.crash()
    cluster.run(1.0)
    for node in cluster.nodes.values():
        node.start()
    cluster.elect()
    cluster.run(1.0)
    assert all(commands(node) == [b"kept"] for node in cluster.nodes.values())


def test_late_follower_catches_up_by_snapshot_when_the_log_is_compacted() -> None:
    cluster = Cluster(snapshot_every=10, keep_entries=5)
    leader = cluster.elect()
    late = next(node for node in cluster.nodes.values() if node is not leader)
    late.crash()
    expected = [b"%d" % number for number in range(100)]
    for data in expected:
        cluster.propose(leader, data)
        cluster.run(0.02)
    assert leader.running.status().first_index > 50
    late.start()
    cluster.run(2.0)
    assert commands(late) == expected
    assert late.disk.snapshot is not None
    late.crash()
    late.start()
    cluster.run(2.0)
    assert commands(late) == expected, "also after a restart from snapshot and log"


def test_two_of_three_keep_committing_and_one_of_three_does_not() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    followers = [node for node in cluster.nodes.values() if node is not leader]
    followers[0].crash()
    cluster.propose(leader, b"two")
    cluster.run(1.0)
    assert commands(leader) == [b"two"]
    followers[1].crash()
    cluster.propose(leader, b"one")
    cluster.run(3.0)
    assert commands(leader) == [b"two"]
    assert leader.running.status().role is not Role.LEADER


# --- one core, by hand ----------------------------------------------------------------------------


def follower(term: int = 1, entries: tuple[Entry, ...] = ()) -> Raft:
    core = Raft(
        RaftConfig("n1"), HardState(), snapshot=None, entries=(), rng=random.Random(1), now=0.0
    )
    core.handle(Bootstrapped(Configuration("test", ("n1", "n2", "n3"))), 0.0)
    core.handle(Persisted(1), 0.0)
    return core


def sent(effects: object) -> list[object]:
    assert isinstance(effects, list)
    return [effect.message for effect in effects if isinstance(effect, SendMessage)]


def vote(term: int = 2, *, pre: bool = False, sender: str = "n2") -> MessageReceived:
    return MessageReceived(VoteRequest(sender, term, 9, 9, pre, transfer=False))


def heartbeat(term: int = 1, sender: str = "n3", commit: int = 0) -> MessageReceived:
    return MessageReceived(AppendRequest(sender, term, 1, 1, commit, ()))


@promises.ONE_VOTE_A_TERM
def test_vote_leaves_only_after_it_is_on_disk() -> None:
    core = follower()
    effects = core.handle(vote(), 5.0)
    assert sent(effects) == []
    (order,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert order.hard_state == HardState(2, "n2")
    assert sent(core.handle(Persisted(order.batch), 5.0)) == [
        VoteResponse("n1", 2, granted=True, pre=False)
    ]


def test_second_candidate_of_a_term_is_refused() -> None:
    core = follower()
    core.handle(vote(sender="n2"), 5.0)
    core.handle(Persisted(2), 5.0)
    assert sent(core.handle(vote(sender="n3"), 5.0)) == [
        VoteResponse("n1", 2, granted=False, pre=False)
    ]


def test_node_that_knows_the_leader_of_a_term_votes_for_nobody_in_it() -> None:
    """Even if it has not voted, and has not heard the leader for long."""
    core = follower()
    core.handle(heartbeat(), 5.0)
    assert sent(core.handle(vote(term=1), 50.0)) == [
        VoteResponse("n1", 1, granted=False, pre=False)
    ]


def test_vote_survives_a_restart() -> None:
    core = Raft(
        RaftConfig("n1"),
        HardState(2, "n2"),
        snapshot=None,
        entries=(),
        rng=random.Random(1),
        now=0.0,
    )
    assert sent(core.handle(vote(sender="n3"), 5.0)) == [
        VoteResponse("n1", 2, granted=False, pre=False)
    ]


@promises.LEADER_NOT_DISTURBED
def test_follower_refuses_vote_while_it_receives_from_its_leader() -> None:
    core = follower()
    core.handle(heartbeat(), 5.0)
    assert sent(core.handle(vote(), 5.4)) == []
    assert core.status().term == 1
    assert sent(core.handle(vote(pre=True), 5.4)) == [
        VoteResponse("n1", 1, granted=False, pre=True)
    ]


def test_follower_grants_a_pre_vote_after_the_leader_fell_silent() -> None:
    core = follower()
    core.handle(heartbeat(), 5.0)
    assert sent(core.handle(vote(pre=True), 5.6)) == [VoteResponse("n1", 2, granted=True, pre=True)]
    assert core.status().term == 1, "a pre-vote changes nothing"


def test_pre_vote_for_a_term_that_is_not_newer_is_refused_with_the_term() -> None:
    """Its asker learns the term at once, and not only from the election that it cannot win."""
    core = follower()
    assert sent(core.handle(vote(term=1, pre=True), 5.0)) == [
        VoteResponse("n1", 1, granted=False, pre=True)
    ]


def test_candidate_with_an_older_log_gets_no_vote() -> None:
    core = follower()
    stale = VoteRequest("n2", 2, last_index=0, last_term=0, pre=False, transfer=False)
    effects = core.handle(MessageReceived(stale), 5.0)
    (order,) = [effect for effect in effects if isinstance(effect, Persist)]
    assert order.hard_state == HardState(2, None)
    answers = sent(effects) + sent(core.handle(Persisted(order.batch), 5.0))
    assert answers == [VoteResponse("n1", 2, granted=False, pre=False)]


@promises.ACKNOWLEDGED_AFTER_MAJORITY
def test_append_is_confirmed_only_after_it_is_on_disk() -> None:
    core = follower()
    entry = new_entry(2, 1, EntryKind.COMMAND, b"x")
    effects = core.handle(MessageReceived(AppendRequest("n3", 1, 1, 1, 2, (entry,))), 5.0)
    assert sent(effects) == []
    assert [e.index for effect in effects if isinstance(effect, Apply) for e in effect.entries] == [
        1
    ]
    (order,) = [effect for effect in effects if isinstance(effect, Persist)]
    effects = core.handle(Persisted(order.batch), 5.0)
    assert sent(effects) == [AppendAccepted("n1", 1, 2)]
    assert next(effect for effect in effects if isinstance(effect, Apply)).entries[-1] == entry


@promises.HEARTBEATS_WAIT_FOR_NO_DISK
def test_heartbeat_is_answered_while_the_disk_is_slow() -> None:
    core = follower()
    core.handle(heartbeat(), 5.0)
    entry = new_entry(2, 1, EntryKind.COMMAND, b"x")
    core.handle(MessageReceived(AppendRequest("n3", 1, 1, 1, 1, (entry,))), 5.0)
    beat = MessageReceived(AppendRequest("n3", 1, 2, 1, 1, (), round=7))
    assert sent(core.handle(beat, 5.1)) == [AppendAccepted("n1", 1, 1, round=7)]


def test_news_of_a_commit_is_answered_only_when_there_is_something_to_report() -> None:
    """Every commit is announced to every follower; half of all messages were answers to that."""
    core = follower()
    answer = AppendAccepted("n1", 1, 1, round=7)
    beat = MessageReceived(AppendRequest("n3", 1, 1, 1, 0, (), round=7))
    assert sent(core.handle(beat, 5.0)) == [answer]
    news = MessageReceived(AppendRequest("n3", 1, 1, 1, 1, (), round=7))
    assert sent(core.handle(news, 5.0)) == []
    assert core.status().commit_index == 1
    core.handle(PeerConnected("n3"), 5.0)
    assert sent(core.handle(news, 5.0)) == [answer], "the first may have been lost with the stream"


def test_completion_of_an_overwritten_entry_does_not_count_as_durable() -> None:
    """The ABA race of asynchronous writes: same index, other term."""
    core = follower()
    old = new_entry(2, 1, EntryKind.COMMAND, b"old")
    new = new_entry(2, 2, EntryKind.COMMAND, b"new")
    first = core.handle(MessageReceived(AppendRequest("n3", 1, 1, 1, 1, (old,))), 5.0)
    second = core.handle(MessageReceived(AppendRequest("n2", 2, 1, 1, 1, (new,))), 5.1)
    (first_order,) = [effect for effect in first if isinstance(effect, Persist)]
    (second_order,) = [effect for effect in second if isinstance(effect, Persist)]
    assert sent(core.handle(Persisted(first_order.batch), 5.2)) == []
    assert sent(core.handle(Persisted(second_order.batch), 5.3)) == [AppendAccepted("n1", 2, 2)]


def test_deposed_leader_receives_the_newer_term() -> None:
    core = follower()
    core.handle(heartbeat(term=5, sender="n2"), 5.0)
    core.handle(Persisted(2), 5.0)
    (answer,) = sent(core.handle(heartbeat(term=3, sender="n3"), 5.1))
    assert isinstance(answer, AppendRejected)
    assert answer.term == 5


def test_rejection_hint_skips_a_whole_wrong_term() -> None:
    core = follower()
    wrong = tuple(new_entry(index, 2, EntryKind.COMMAND, b"") for index in range(2, 50))
    core.handle(MessageReceived(AppendRequest("n2", 2, 1, 1, 0, wrong)), 5.0)
    core.handle(Persisted(2), 5.0)
    probe = AppendRequest(
        "n3",
        3,
        previous_index=40,
        previous_term=1,
        commit=0,
        entries=(),
    )
    effects = core.handle(MessageReceived(probe), 6.0)
    (answer,) = sent(effects) + sent(core.handle(Persisted(3), 6.0))
    assert isinstance(answer, AppendRejected)
    assert (answer.rejected_index, answer.hint_index, answer.hint_term) == (40, 1, 1)


@pytest.mark.parametrize(
    "message",
    [
        VoteRequest("n2", INDEX_MAX + 1, 0, 0, pre=False, transfer=False),
        AppendRequest("n2", 2**64 - 1, 0, 0, 0, ()),
        AppendRequest("n1", 7, 0, 0, 0, ()),
        TimeoutNow("n2", 0),
        SnapshotChunk("n2", 0, 9, 9, b"", 0, b"", 0),
        VoteResponse("n9", 1, granted=True, pre=False),
        AppendAccepted("n9", 1, 99),
    ],
)
def test_senseless_message_leaves_the_state_untouched(message: object) -> None:
    core = follower()
    before = core.status()
    core.handle(MessageReceived(message), 0.1)  # type: ignore[arg-type]
    assert core.status() == before


@promises.BACKLOG_REJECTED
def test_proposals_beyond_the_backlog_are_refused_with_a_reason() -> None:
    config = RaftConfig("n1", uncommitted_bytes_max=10)
    core = Raft(config, HardState(), snapshot=None, entries=(), rng=random.Random(1), now=0.0)
    core.handle(Bootstrapped(Configuration("test", ("n1",))), 0.0)
    core.handle(Persisted(1), 0.0)
    core.handle(DeadlineReached(), 5.0)
    core.handle(Persisted(2), 5.0)
    assert core.status().role is Role.LEADER
    effects = core.handle(Proposed(((1, b"12345678"), (2, b"123"))), 5.0)
    outcomes = [e for e in effects if isinstance(e, ProposalAccepted | ProposalRejected)]
    assert outcomes == [
        ProposalAccepted(1, index=3, term=2),
        ProposalRejected(2, backlog_full=True, leader="n1"),
    ]
    for number in range(3, 8):
        [written] = [e for e in effects if isinstance(e, Persist)]
        core.handle(Persisted(written.batch), 5.0)  # it is committed, and its room is free
        effects = core.handle(Proposed(((number, bytes(10)),)), 5.0)
        assert ProposalAccepted(number, index=number + 1, term=2) in effects


# --- volume ---------------------------------------------------------------------------------------


@promises.COMMITTED_SURVIVES
@pytest.mark.parametrize("seed", range(60))
def test_random_faults_never_break_safety_and_the_cluster_recovers(seed: int) -> None:
    torment(seed)


def test_same_seed_gives_the_same_trace() -> None:
    traces = []
    for _ in range(2):
        cluster = Cluster(3, seed=7)
        leader = cluster.elect()
        cluster.propose(leader, b"x")
        leader.crash()
        cluster.run(5.0)
        traces.append(cluster.trace)
    assert traces[0] == traces[1]
    other = Cluster(3, seed=8)
    other.run(5.0)
    assert other.trace != traces[0]


def test_learner_that_receives_from_no_leader_for_long_knows_none() -> None:
    """It never campaigns; but who waits for the leader through it must hear of that."""
    learner = Configuration("test", ("n2", "n3"), learners=("n1",))
    log = [new_entry(1, 1, EntryKind.CONFIGURATION, encode_configuration(learner))]
    core = Raft(
        RaftConfig("n1"), HardState(1), snapshot=None, entries=log, rng=random.Random(1), now=0.0
    )
    core.handle(MessageReceived(AppendRequest("n2", 1, 1, 1, 1, ())), 1.0)
    deadline = core.deadline()
    assert deadline is not None
    assert core.status().leader == "n2"
    effects = core.handle(DeadlineReached(), deadline)
    assert RoleChanged(Role.FOLLOWER, 1, None) in effects
    assert core.deadline() is None
    core.handle(MessageReceived(AppendRequest("n2", 1, 1, 1, 1, ())), 9.0)
    assert core.status().leader == "n2"


def test_node_that_forgot_reports_it_at_once_though_its_disk_knows_nothing_of_the_term() -> None:
    """It ends before anything is written. Found by: just sim seed=1125 layer=core"""
    log = [
        new_entry(
            1,
            1,
            EntryKind.CONFIGURATION,
            encode_configuration(Configuration("test", ("n1", "n2", "n3"))),
        )
    ]
    core = Raft(
        RaftConfig("n1"), HardState(1), snapshot=None, entries=log, rng=random.Random(1), now=0.0
    )
    request = AppendRequest("n2", 7, 5, 7, 5, (), round=9, acknowledged=5)
    effects = core.handle(MessageReceived(request), 1.0)
    told, answer = effects[:2]
    assert told == DiskOutdated(acknowledged=5, holds=1)
    assert answer == SendMessage("n2", AppendRejected("n1", 7, 5, 1, 1, 9))
