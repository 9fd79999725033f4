"""Members come, are promoted, replaced and removed, while the cluster works."""

import random

import pytest

from noti.raft.core.events import (
    ChangeRejected,
    ProposalAccepted,
    ProposalRejected,
    ReadReady,
    Role,
)
from noti.raft.core.membership import Change
from tests import promises
from tests.raft.core.cluster import Cluster, Node


def change(**sets: list[Node]) -> Change:
    return Change(**{name: frozenset(node.name for node in nodes) for name, nodes in sets.items()})


def settled(cluster: Cluster, node: Node) -> bool:
    status = node.running.status()
    return not status.configuration.outgoing and status.commit_index == status.last_index


def voters(node: Node) -> tuple[str, ...]:
    return node.running.status().configuration.voters


@promises.LEARNER_DOES_NOT_COUNT
def test_learner_receives_everything_and_does_not_count() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(leader, b"before")
    learner = cluster.add_machine()
    cluster.change(leader, change(add=[learner]))
    cluster.propose(leader, b"after")
    cluster.run(1.0)
    assert learner.applied == [b"before", b"after"]
    assert learner.running.status().role is Role.FOLLOWER
    for node in cluster.nodes.values():
        if node not in (leader, learner):
            node.crash()
    cluster.propose(leader, b"alone")
    cluster.run(3.0)
    assert b"alone" not in leader.applied, "a learner is no majority"


@promises.LEARNER_DOES_NOT_COUNT
def test_promoted_learner_votes_and_can_lead() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    newcomer = cluster.add_machine()
    cluster.change(leader, change(add=[newcomer]))
    cluster.run(0.5)
    cluster.change(leader, change(promote=[newcomer]))
    cluster.run_until(lambda: settled(cluster, leader))
    assert newcomer.name in voters(leader)
    for node in list(cluster.nodes.values()):
        if node is not newcomer and node is not leader:
            node.crash()
            break
    cluster.transfer(leader)
    cluster.run(2.0)
    successor = cluster.elect()
    cluster.propose(successor, b"x")
    cluster.run(1.0)
    assert newcomer.applied == [b"x"]


@promises.LOG_BEFORE_VOTE
def test_wiped_node_is_replaced_by_its_new_self_in_one_joint_step() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(leader, b"kept")
    cluster.run(0.5)
    wiped = next(node for node in cluster.nodes.values() if node is not leader)
    wiped.crash()
    reborn = cluster.add_machine()
    cluster.change(leader, change(add=[reborn]))
    cluster.run(0.5)
    cluster.change(leader, change(promote=[reborn], remove=[wiped]))
    cluster.run_until(lambda: settled(cluster, leader))
    assert reborn.name in voters(leader)
    assert wiped.name not in voters(leader)
    assert reborn.applied == [b"kept"]
    others = [n for n in cluster.nodes.values() if n not in (leader, wiped, reborn)]
    others[0].crash()
    cluster.propose(leader, b"with the new one")
    cluster.run(1.0)
    assert reborn.applied == [b"kept", b"with the new one"]


@promises.ONE_CHANGE_AT_A_TIME
def test_joint_configuration_needs_both_majorities() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    newcomers = [cluster.add_machine(), cluster.add_machine()]
    cluster.change(leader, change(add=newcomers))
    cluster.run(0.5)
    old = [node for node in cluster.nodes.values() if node not in newcomers and node is not leader]
    for node in old:
        cluster.isolate(node.name)
    cluster.change(leader, change(promote=newcomers))
    cluster.run(0.4)
    status = leader.running.status()
    assert status.configuration.outgoing, "the old half has not agreed"
    assert status.commit_index < status.last_index


@promises.ONE_CHANGE_AT_A_TIME
def test_new_leader_finishes_a_joint_change_that_it_finds() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    newcomers = [cluster.add_machine(), cluster.add_machine()]
    cluster.change(leader, change(add=newcomers))
    cluster.run(0.5)
    cluster.change(leader, change(promote=newcomers))
    cluster.run(0.004)
    leader.crash()
    cluster.run(3.0)
    successor = cluster.elect()
    cluster.run_until(lambda: settled(cluster, successor))
    assert not successor.running.status().configuration.outgoing


@promises.ONE_CHANGE_AT_A_TIME
def test_second_change_waits_for_the_first() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    one, two = cluster.add_machine(), cluster.add_machine()
    first = cluster.change(leader, change(add=[one]))
    second = cluster.change(leader, change(add=[two]))
    assert isinstance(leader.outcomes[first], ProposalAccepted)
    assert isinstance(leader.outcomes[second], ChangeRejected)
    cluster.run(0.5)
    third = cluster.change(leader, change(add=[two]))
    assert isinstance(leader.outcomes[third], ProposalAccepted)


@promises.ONE_CHANGE_AT_A_TIME
def test_no_change_before_the_own_term_has_a_commit() -> None:
    """The single-server change bug (Ongaro 2015)."""
    cluster = Cluster()
    cluster.disk_delay_s = (0.05, 0.05)
    cluster.run_until(
        lambda: any(n.running.status().role is Role.LEADER for n in cluster.nodes.values())
    )
    leader = next(n for n in cluster.nodes.values() if n.running.status().role is Role.LEADER)
    request = cluster.change(leader, Change(add=frozenset({"n9"})))
    assert isinstance(leader.outcomes[request], ChangeRejected)


def test_leader_that_removes_itself_hands_over_and_is_not_missed() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    start = cluster.now
    cluster.change(leader, change(remove=[leader]))
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    assert cluster.now - start < 0.2
    successor = cluster.elect()
    assert leader.name not in voters(successor)
    cluster.propose(successor, b"x")
    cluster.run(3.0)
    assert cluster.leader() is successor, "the removed node does not disturb"


def test_last_voter_cannot_be_removed_and_strangers_cannot_be_promoted() -> None:
    cluster = Cluster(size=1)
    leader = cluster.elect()
    cluster.run(0.5)
    for impossible in (change(remove=[leader]), Change(promote=frozenset({"n9"})), Change()):
        request = cluster.change(leader, impossible)
        assert isinstance(leader.outcomes[request], ChangeRejected)


@promises.CONSISTENT_READ
def test_read_is_confirmed_by_a_majority_and_covers_what_was_committed_before() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    cluster.propose(leader, b"x")
    cluster.run_until(lambda: leader.applied == [b"x"])
    request = cluster.read(leader)
    assert request not in leader.outcomes, "not before others confirmed the leader"
    cluster.run(0.05)
    ready = leader.outcomes[request]
    assert isinstance(ready, ReadReady)
    assert ready.index >= leader.applied_index


@promises.LEADER_WITHOUT_MAJORITY_STEPS_DOWN
def test_paused_leader_confirms_no_read() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    leader.paused = True
    cluster.run_until(lambda: cluster.leader() not in (None, leader))
    successor = cluster.leader()
    assert successor is not None
    cluster.propose(successor, b"newer")
    cluster.run(1.0)
    request = cluster.read(leader)
    leader.paused = False
    cluster.run(1.0)
    assert not isinstance(leader.outcomes.get(request), ReadReady)


def test_follower_does_not_answer_reads() -> None:
    cluster = Cluster()
    leader = cluster.elect()
    follower = next(node for node in cluster.nodes.values() if node is not leader)
    request = cluster.read(follower)
    assert isinstance(follower.outcomes[request], ProposalRejected)


@promises.LOG_BEFORE_VOTE
@pytest.mark.parametrize("seed", range(40))
def test_random_changes_under_faults_keep_every_promise(seed: int) -> None:
    rng = random.Random(f"changes:{seed}")
    cluster = Cluster(
        3, seed, snapshot_every=rng.choice([0, 9]), keep_entries=rng.choice([3, 1000])
    )
    cluster.run(1.0)
    machines = [cluster.add_machine() for _ in range(3)]
    number = 0
    for _ in range(50):
        leader = cluster.leader()
        if leader is not None:
            number += 1
            cluster.propose(leader, b"%d" % number)
            status = leader.running.status()
            configuration = status.configuration
            target = rng.choice(cluster.names)
            caught_up = dict(status.followers).get(target, 0) >= status.commit_index
            match rng.randrange(5):
                case 0 | 1:
                    cluster.change(leader, Change(add=frozenset({rng.choice(machines).name})))
                case 2 if target in configuration.learners and caught_up:
                    gone = frozenset(
                        {rng.choice(configuration.voters)} if rng.random() < 0.6 else ()
                    )
                    cluster.change(leader, Change(promote=frozenset({target}), remove=gone))
                case 3 if len(configuration.voters) > 3:
                    gone = frozenset({target})
                    demoted = rng.random() < 0.5
                    cluster.change(leader, Change(demote=gone) if demoted else Change(remove=gone))
                case _:
                    pass
        node = cluster.nodes[rng.choice(cluster.names)]
        match rng.randrange(8):
            case 0 if node.core is not None:
                node.crash()
            case 1 | 2 | 3:
                for other in cluster.nodes.values():
                    if other.core is None:
                        other.start()
            case 4:
                cluster.isolate(node.name)
            case 5 | 6:
                cluster.heal()
            case _:
                cluster.loss = rng.choice([0.0, 0.2])
        cluster.run(rng.uniform(0.0, 0.6))
        cluster.check_log_matching()
    cluster.heal()
    for node in cluster.nodes.values():
        if node.core is None:
            node.start()
    cluster.run(6.0)
    leader = cluster.elect()
    cluster.run_until(lambda: settled(cluster, cluster.elect()))
    leader = cluster.elect()
    cluster.propose(leader, b"end")
    members = leader.running.status().configuration.members
    cluster.run_until(lambda: all(cluster.nodes[name].applied[-1:] == [b"end"] for name in members))
    assert len({tuple(cluster.nodes[name].applied) for name in members}) == 1
