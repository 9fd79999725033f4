"""Which nodes are promoted to voters, and when voters are demoted or removed."""

from dataclasses import replace

import pytest

from noti.membership.voters import (
    LeadershipTransfer,
    VoterLimits,
    VoterPolicy,
    VoterState,
    additional_voters,
    live_voters,
    voter_state,
)
from noti.raft.core.membership import Change, Configuration
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import MemberState
from tests import promises
from tests.membership.nodes import change, leaving, member, status

LIMITS = VoterLimits()
NOTHING = Change()
NOBODY = frozenset[NodeId]()


def test_node_that_is_alive_and_has_no_cluster_becomes_a_learner() -> None:
    members = [*map(member, "abc"), member("d", cluster="")]
    policy, connected = VoterPolicy(LIMITS), frozenset("bcd")
    assert policy.advise(status("abc"), members, NOBODY, connected, 0.0) == change(add="d")


def test_member_that_only_gossips_does_not_become_a_learner() -> None:
    members = [*map(member, "abc"), member("d"), member("e", cluster="")]
    policy, connected = VoterPolicy(LIMITS), frozenset("bc")
    assert policy.advise(status("abc"), members, NOBODY, connected, 0.0) == NOTHING


def test_member_of_another_cluster_and_a_dead_node_are_not_added() -> None:
    members = [*map(member, "abc"), member("d", cluster="c2"), member("e", MemberState.DEAD)]
    assert VoterPolicy(LIMITS).advise(status("abc"), members, NOBODY, NOBODY, 0.0) == NOTHING


@promises.LEARNER_DOES_NOT_COUNT
def test_learner_votes_only_when_it_has_caught_up() -> None:
    policy = VoterPolicy(LIMITS)
    members = list(map(member, "abc"))
    assert policy.advise(status("ab", "c"), members, NOBODY, NOBODY, 0.0) == NOTHING
    assert policy.advise(status("ab", "c", caught_up="c"), members, NOBODY, NOBODY, 1.0) == change(
        promote="c"
    )


def test_third_and_fifth_voter_come_and_a_fourth_only_together_with_the_fifth() -> None:
    policy, members = VoterPolicy(LIMITS), list(map(member, "abcde"))
    alone = status("abc", "de", caught_up="d")
    assert policy.advise(alone, members, NOBODY, NOBODY, 0.0) == NOTHING
    both = status("abc", "de", caught_up="de")
    assert policy.advise(both, members, NOBODY, NOBODY, 1.0) == change(promote="de")
    four = status("abcd", "e", caught_up="e")
    assert policy.advise(four, members, NOBODY, NOBODY, 2.0) == change(promote="e")


@pytest.mark.parametrize(
    ("voters", "learners", "voters_max", "promoted"),
    [
        *[(1, 0, 5, 0), (1, 1, 5, 1), (1, 2, 5, 2), (1, 9, 5, 2), (1, 1, 1, 0), (1, 2, 2, 1)],
        *[(2, 1, 5, 1), (2, 3, 5, 1), (2, 1, 2, 0), (3, 1, 5, 0), (3, 2, 5, 2), (3, 2, 4, 0)],
        *[(4, 1, 5, 1), (5, 2, 5, 0), (5, 2, 7, 2)],
    ],
)
def test_number_of_voters_becomes_odd_but_two_are_better_than_one(
    voters: int, learners: int, voters_max: int, promoted: int
) -> None:
    assert additional_voters(voters, learners, voters_max) == promoted


def test_learner_with_nothing_of_a_short_log_does_not_vote_although_it_lacks_little() -> None:
    """It knows of no cluster, and would refuse its own."""
    policy, members = VoterPolicy(LIMITS), list(map(member, "abc"))
    short = status("ab", "c", last_index=50)
    nothing_yet = replace(short, followers=(("b", 50), ("c", 0)))
    assert policy.advise(nothing_yet, members, NOBODY, NOBODY, 0.0) == NOTHING
    assert policy.advise(short, members, NOBODY, NOBODY, 1.0) == change(promote="c")


def test_there_are_never_more_voters_than_the_limit() -> None:
    policy = VoterPolicy(VoterLimits(voters_max=3))
    members = list(map(member, "abcde"))
    view = status("abc", "de", caught_up="de")
    assert policy.advise(view, members, NOBODY, NOBODY, 0.0) == NOTHING


@promises.LOG_BEFORE_VOTE
def test_dead_voter_stays_a_voter_without_a_successor() -> None:
    policy = VoterPolicy(LIMITS)
    members = [member("a"), member("b"), member("c", MemberState.DEAD)]
    for now in (0.0, 100.0, 100_000.0):
        assert policy.advise(status("abc"), members, NOBODY, NOBODY, now) == NOTHING


def test_caught_up_learner_replaces_a_dead_voter_after_the_hold_down() -> None:
    policy = VoterPolicy(VoterLimits(hold_down_s=15.0))
    members = [member("a"), member("b"), member("c", MemberState.DEAD), member("d")]
    view = status("abc", "d", caught_up="d")
    assert policy.advise(view, members, NOBODY, NOBODY, 0.0) == NOTHING, "it may only be restarting"
    assert policy.advise(view, members, NOBODY, NOBODY, 14.9) == NOTHING
    assert policy.advise(view, members, NOBODY, NOBODY, 15.0) == change(promote="d", remove="c")


def test_voter_that_comes_back_in_time_stays_a_voter() -> None:
    policy = VoterPolicy(VoterLimits(hold_down_s=15.0))
    view = status("abc", "d", caught_up="d")
    away = [member("a"), member("b"), member("c", MemberState.DEAD), member("d")]
    policy.advise(view, away, NOBODY, NOBODY, 0.0)
    policy.advise(view, list(map(member, "abcd")), NOBODY, NOBODY, 10.0)
    assert policy.advise(view, away, NOBODY, NOBODY, 20.0) == NOTHING, "the absence is counted anew"


def test_voter_that_gossip_does_not_know_any_more_is_replaced_by_its_new_self() -> None:
    """A wiped node has a new id under its old name: the old id is in nobody's member list."""
    policy = VoterPolicy(VoterLimits(hold_down_s=15.0))
    members = list(map(member, "abd"))
    view = status("abc", "d", caught_up="d")
    policy.advise(view, members, NOBODY, NOBODY, 0.0)
    assert policy.advise(view, members, NOBODY, NOBODY, 15.0) == change(promote="d", remove="c")


def test_only_one_voter_is_replaced_at_a_time() -> None:
    policy = VoterPolicy(VoterLimits(hold_down_s=1.0))
    members = [member("a"), *map(member, "fg")]
    view = status("abcde", "fg", caught_up="fg")
    policy.advise(view, members, NOBODY, NOBODY, 0.0)
    assert policy.advise(view, members, NOBODY, NOBODY, 5.0) == change(promote="f", remove="b")


def test_voter_that_left_stays_a_voter_in_a_cluster_of_three() -> None:
    policy = VoterPolicy(LIMITS)
    members = [member("a"), member("b"), member("c", MemberState.LEFT)]
    policy.advise(status("abc"), members, NOBODY, NOBODY, 0.0)
    assert policy.advise(status("abc"), members, NOBODY, NOBODY, 10_000.0) == NOTHING


def test_voter_that_left_and_stays_away_is_removed_when_at_least_three_remain() -> None:
    policy = VoterPolicy(VoterLimits(forget_s=60.0))
    members = [*map(member, "abc"), member("d", MemberState.LEFT)]
    assert policy.advise(status("abcd"), members, NOBODY, NOBODY, 0.0) == NOTHING
    assert policy.advise(status("abcd"), members, NOBODY, NOBODY, 59.0) == NOTHING
    assert policy.advise(status("abcd"), members, NOBODY, NOBODY, 60.0) == change(remove="d")


def test_voter_that_left_is_not_removed_while_another_voter_is_absent() -> None:
    policy = VoterPolicy(VoterLimits(forget_s=60.0))
    members = [
        member("a"),
        member("b"),
        member("c", MemberState.DEAD),
        member("d", MemberState.LEFT),
    ]
    policy.advise(status("abcd"), members, NOBODY, NOBODY, 0.0)
    assert policy.advise(status("abcd"), members, NOBODY, NOBODY, 600.0) == NOTHING


def test_learner_that_left_or_stayed_away_is_dropped() -> None:
    policy = VoterPolicy(VoterLimits(forget_s=60.0))
    left = [*map(member, "abc"), member("d", MemberState.LEFT)]
    assert policy.advise(status("abc", "d"), left, NOBODY, NOBODY, 0.0) == change(remove="d")
    dead = [*map(member, "abc"), member("d", MemberState.DEAD)]
    policy = VoterPolicy(VoterLimits(forget_s=60.0))
    assert policy.advise(status("abc", "d"), dead, NOBODY, NOBODY, 0.0) == NOTHING
    assert policy.advise(status("abc", "d"), dead, NOBODY, NOBODY, 60.0) == change(remove="d")


def test_learner_that_left_goes_on_receiving_while_it_sends_its_browsers_away() -> None:
    policy = VoterPolicy(VoterLimits(forget_s=60.0))
    members = [*map(member, "abc"), member("d", MemberState.LEFT)]
    view = status("abc", "d")
    for now in (0.0, 100.0):
        assert policy.advise(view, members, NOBODY, {"d"}, now) == NOTHING
    assert policy.advise(view, members, NOBODY, NOBODY, 101.0) == change(remove="d")


def test_voter_that_asks_becomes_a_learner_whatever_the_number_of_voters() -> None:
    for voters in ("abcde", "abcd", "abc", "ab"):
        members = [*map(member, voters[:-1]), leaving(voters[-1])]
        advice = VoterPolicy(LIMITS).advise(status(voters), members, {voters[-1]}, NOBODY, 0.0)
        assert advice == change(demote=voters[-1])


@promises.DECOMMISSION_KEEPS_QUORUM
def test_gossip_alone_demotes_nobody() -> None:
    """A tag in gossip, which is not authenticated, only keeps a node from being promoted."""
    members = [member("a"), member("b"), leaving("c")]
    assert VoterPolicy(LIMITS).advise(status("abc"), members, NOBODY, NOBODY, 0.0) == NOTHING


def test_request_of_a_node_that_was_restarted_since_demotes_nobody() -> None:
    members = list(map(member, "abc"))
    assert VoterPolicy(LIMITS).advise(status("abc"), members, {"c"}, NOBODY, 0.0) == NOTHING


def test_two_that_ask_at_once_go_one_after_the_other() -> None:
    policy = VoterPolicy(LIMITS)
    members = [member("a"), leaving("b"), leaving("c")]
    asked = {"b", "c"}
    assert policy.advise(status("abc"), members, asked, NOBODY, 0.0) == change(demote="b")
    assert policy.advise(status("ac", "b"), members, asked, NOBODY, 1.0) == change(demote="c")
    assert policy.advise(status("a", "bc"), members, asked, NOBODY, 2.0) == NOTHING


def test_leader_that_asks_goes_last_and_hands_over_first() -> None:
    policy = VoterPolicy(LIMITS)
    members = [leaving("a"), leaving("b"), member("c")]
    asked = {"a", "b"}
    assert policy.advise(status("abc"), members, asked, NOBODY, 0.0) == change(demote="b")
    assert policy.advise(status("ac", "b"), members, asked, NOBODY, 1.0) == LeadershipTransfer()


def test_last_voter_is_not_demoted() -> None:
    members = [leaving("a"), leaving("b")]
    assert VoterPolicy(LIMITS).advise(status("a", "b"), members, {"a"}, NOBODY, 0.0) == NOTHING
    assert voter_state(status("a", "b"), members, "a") is VoterState.LAST_VOTER


def test_last_voter_waits_while_a_learner_may_still_be_promoted() -> None:
    assert voter_state(status("a", "b"), [leaving("a"), member("b")], "a") is VoterState.VOTER


def test_node_that_is_being_decommissioned_is_promoted_only_after_its_restart() -> None:
    policy = VoterPolicy(LIMITS)
    view = status("ab", "c", caught_up="c")
    assert (
        policy.advise(view, [member("a"), member("b"), leaving("c")], NOBODY, NOBODY, 0.0)
        == NOTHING
    )
    assert policy.advise(view, list(map(member, "abc")), NOBODY, NOBODY, 1.0) == change(promote="c")


def test_node_that_is_being_decommissioned_replaces_no_dead_voter() -> None:
    policy = VoterPolicy(VoterLimits(hold_down_s=15.0))
    members = [member("a"), member("b"), member("c", MemberState.DEAD), leaving("d")]
    view = status("abc", "d", caught_up="d")
    policy.advise(view, members, {"d"}, NOBODY, 0.0)
    assert policy.advise(view, members, {"d"}, NOBODY, 15.0) == NOTHING


@promises.DECOMMISSION_KEEPS_QUORUM
def test_voter_is_not_demoted_while_those_that_would_stay_cannot_commit() -> None:
    """Without b, a and c would be left, and c is away: nothing could be committed any more."""
    policy = VoterPolicy(VoterLimits(hold_down_s=15.0))
    members = [member("a"), leaving("b"), member("c", MemberState.DEAD)]
    assert policy.advise(status("abc"), members, {"b"}, NOBODY, 0.0) == NOTHING
    assert policy.advise(status("abc"), members, {"b"}, NOBODY, 14.9) == NOTHING


def test_long_absent_voter_is_removed_with_a_demotion_that_could_not_be_committed_otherwise() -> (
    None
):
    policy = VoterPolicy(VoterLimits(hold_down_s=15.0))
    members = [member("a"), leaving("b"), member("c", MemberState.DEAD)]
    policy.advise(status("abc"), members, {"b"}, NOBODY, 0.0)
    advice = policy.advise(status("abc"), members, {"b"}, NOBODY, 15.0)
    assert advice == change(demote="b", remove="c")


def test_dead_voter_is_not_removed_with_a_demotion_that_can_be_committed() -> None:
    policy = VoterPolicy(VoterLimits(hold_down_s=15.0))
    members = [*map(member, "abc"), leaving("d"), member("e", MemberState.DEAD)]
    policy.advise(status("abcde"), members, NOBODY, NOBODY, 0.0)
    assert policy.advise(status("abcde"), members, {"d"}, NOBODY, 60.0) == change(demote="d")


def test_node_is_no_voter_when_the_others_have_committed_that() -> None:
    members = list(map(member, "abc"))
    assert voter_state(status("abc"), members, "c") is VoterState.VOTER
    assert voter_state(status("ab", "c"), members, "c") is VoterState.NO_VOTER
    uncommitted = replace(status("ab", "c"), configuration_index=1001)
    assert voter_state(uncommitted, members, "c") is VoterState.VOTER
    joint = Configuration("c1", voters=("a",), outgoing=("a", "b", "c"), learners=("c",))
    assert (
        voter_state(replace(status("abc"), configuration=joint), members, "c") is VoterState.VOTER
    )


def test_voters_that_gossip_sees_dead_or_in_another_cluster_do_not_live() -> None:
    members = [member("a"), member("b", MemberState.DEAD), member("c", cluster="c2"), member("d")]
    assert live_voters(status("abc", "d"), members) == ["name-a"]


def test_who_gave_up_its_vote_counts_until_that_is_committed() -> None:
    members = list(map(member, "abc"))
    assert live_voters(status("ab", "c"), members) == ["name-a", "name-b"]
    uncommitted = replace(status("ab", "c"), configuration_index=1001)
    assert live_voters(uncommitted, members) == ["name-a", "name-b", "name-c"]
    joint = Configuration("c1", voters=("a",), outgoing=("a", "b", "c"), learners=("c",))
    assert live_voters(replace(status("abc"), configuration=joint), members) == [
        "name-a",
        "name-b",
        "name-c",
    ]


def test_node_without_a_cluster_is_no_voter() -> None:
    nowhere = replace(status("abc"), configuration=Configuration())
    assert voter_state(nowhere, [], "a") is VoterState.NO_CLUSTER
