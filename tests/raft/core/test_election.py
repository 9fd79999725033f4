"""When a node campaigns, and how votes add up."""

import random

import pytest

from noti.raft.core.config import RaftConfig
from noti.raft.core.election import EARLY_ROUNDS, Ballot, ElectionTimer, VoteResult
from noti.raft.core.membership import Configuration
from tests import promises

THREE = Configuration("c", ("n1", "n2", "n3"))


def timer(name: str = "n1", seed: int = 1) -> ElectionTimer:
    return ElectionTimer(RaftConfig(name), random.Random(seed), THREE, now=0.0)


def test_voter_without_others_does_not_wait_for_a_leader() -> None:
    config = RaftConfig("n1")
    alone, others_still_count = Configuration("c", ("n1",)), Configuration("c", ("n1",), ("n2",))
    waiting = ElectionTimer(config, random.Random(1), alone, now=10.0)
    assert waiting.deadline == 10.0
    waiting.begin(20.0, alone)
    assert waiting.deadline == 20.0
    for configuration in (others_still_count, Configuration("c", ("n2",)), THREE):
        waiting.begin(20.0, configuration)
        assert waiting.deadline >= 20.5


def test_timeout_is_drawn_from_once_to_twice_the_configured_one() -> None:
    waiting = timer()
    drawn = set()
    for now in range(100):
        waiting.reset(float(now))
        drawn.add(waiting.deadline - now)
    assert all(0.5 <= timeout <= 1.0 for timeout in drawn)
    assert len(drawn) > 50
    assert max(drawn) - min(drawn) > 0.4


@promises.NEXT_LEADER_AT_ONCE
@pytest.mark.parametrize("leader", THREE.voters)
def test_lost_leader_lets_the_voters_that_are_left_campaign_in_turn(leader: str) -> None:
    """The first of them at once, whoever led: nobody waits for the turn of one that is gone."""
    deadlines = []
    for name in THREE.voters:
        if name != leader:
            waiting = timer(name)
            waiting.reset(10.0)
            waiting.leader_lost(leader, 10.0, THREE)
            deadlines.append(waiting.deadline - 10.0)
    step_s = RaftConfig("n1").reset_step_s
    assert deadlines == sorted(deadlines)
    for turn, soon in enumerate(deadlines):
        assert turn * step_s <= soon < (turn + 1) * step_s


def test_lost_rounds_stay_early_only_so_often() -> None:
    waiting = timer()
    waiting.leader_lost("n2", 10.0, THREE)
    rounds = 1
    while True:
        waiting.reset(10.0)
        waiting.round_lost(10.0, THREE)
        if waiting.deadline >= 10.5:
            break
        rounds += 1
    assert rounds == EARLY_ROUNDS


def test_leader_that_speaks_ends_the_early_rounds() -> None:
    waiting = timer()
    waiting.leader_lost("n2", 10.0, THREE)
    waiting.leader_spoke(10.0)
    waiting.round_lost(10.0, THREE)
    assert waiting.deadline >= 10.5


def test_lost_leader_never_postpones_a_campaign() -> None:
    waiting = timer("n3")
    waiting.deadline = 10.001
    waiting.leader_lost("n2", 10.0, THREE)
    assert waiting.deadline == 10.001


def test_rival_gets_the_time_to_ask_and_a_later_deadline_stays() -> None:
    waiting = timer()
    waiting.deadline = 10.0
    waiting.yield_to_rival(10.0)
    assert waiting.deadline == pytest.approx(10.1)
    waiting.deadline = 11.0
    waiting.yield_to_rival(10.0)
    assert waiting.deadline == 11.0


def test_equal_seeds_and_no_leader_lost_give_equal_timeouts() -> None:
    """The timer adds nothing of its own: whoever makes it must give each node its own generator."""
    assert timer("n1").deadline == timer("n2").deadline
    assert timer("n1", 1).deadline != timer("n1", 2).deadline


def test_votes_decide_as_soon_as_the_rest_cannot_matter() -> None:
    ballot = Ballot()
    assert ballot.count("n1", True, THREE) is VoteResult.OPEN
    assert ballot.count("n3", False, THREE) is VoteResult.OPEN
    assert ballot.count("n2", True, THREE) is VoteResult.WON
    refused = Ballot()
    assert refused.count("n2", False, THREE) is VoteResult.OPEN
    assert refused.count("n3", False, THREE) is VoteResult.LOST


def test_vote_counts_once_however_often_it_arrives() -> None:
    ballot = Ballot()
    assert ballot.count("n1", True, THREE) is VoteResult.OPEN
    assert ballot.count("n1", True, THREE) is VoteResult.OPEN


def test_stranger_and_learner_do_not_decide() -> None:
    configuration = Configuration("c", ("n1", "n2", "n3"), learners=("n4",))
    ballot = Ballot()
    for node in ("n1", "n4", "n9"):
        assert ballot.count(node, True, configuration) is VoteResult.OPEN


@promises.ONE_CHANGE_AT_A_TIME
def test_joint_configuration_needs_both_majorities() -> None:
    configuration = Configuration("c", ("n1", "n2", "n3"), outgoing=("n3", "n4", "n5"))
    ballot = Ballot()
    for node in ("n1", "n2", "n3"):
        assert ballot.count(node, True, configuration) is VoteResult.OPEN
    assert ballot.count("n4", True, configuration) is VoteResult.WON
