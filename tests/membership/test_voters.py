"""Which seat a node gets, and when a seat is taken away."""

from dataclasses import replace

from noti.membership.tags import TAG_CLUSTER, TAG_LEAVING, TAG_NODE_ID
from noti.membership.voters import HandOver, Seating, SeatingConfig, Standing, standing
from noti.raft.core.changes import Change
from noti.raft.core.events import Role, Status
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import Member, MemberState
from tests import promises

NOTHING = Change()
NOBODY = frozenset[NodeId]()


def member(
    node: str,
    state: MemberState = MemberState.ALIVE,
    cluster: str = "c1",
    *,
    leaving: bool = False,
) -> Member:
    tags = {TAG_NODE_ID: node, TAG_CLUSTER: cluster}
    if leaving:
        tags[TAG_LEAVING] = "1"
    return Member(f"name-{node}", ("10.0.0.1", 8401), tags, state, 1)


def status(voters: str, learners: str = "", caught_up: str = "", last_index: int = 1000) -> Status:
    followers = {n: last_index if n in caught_up else 1 for n in voters + learners}
    return Status(
        role=Role.LEADER,
        term=2,
        leader=voters[0],
        commit_index=last_index,
        applied_index=last_index,
        last_index=last_index,
        first_index=1,
        configuration=Configuration("c1", voters=tuple(voters), learners=tuple(learners)),
        configuration_index=1,
        followers=tuple(followers.items()),
        leads_ready=True,
        fresh_at=None,
    )


def change(add: str = "", promote: str = "", remove: str = "", demote: str = "") -> Change:
    return Change(frozenset(add), frozenset(promote), frozenset(remove), frozenset(demote))


def leaving(node: str) -> Member:
    return member(node, leaving=True)


def test_whoever_is_alive_and_has_no_cluster_becomes_a_learner() -> None:
    members = [*map(member, "abc"), member("d", cluster="")]
    assert Seating(SeatingConfig()).advise(status("abc"), members, NOBODY, NOBODY, 0.0) == change(
        add="d"
    )


def test_member_of_another_cluster_or_a_dead_stranger_gets_no_seat() -> None:
    members = [*map(member, "abc"), member("d", cluster="c2"), member("e", MemberState.DEAD)]
    assert Seating(SeatingConfig()).advise(status("abc"), members, NOBODY, NOBODY, 0.0) == NOTHING


@promises.LEARNER_DOES_NOT_COUNT
def test_learner_votes_only_when_it_has_caught_up() -> None:
    seating = Seating(SeatingConfig())
    members = list(map(member, "abcd"))
    assert seating.advise(status("abc", "d"), members, NOBODY, NOBODY, 0.0) == NOTHING
    assert seating.advise(
        status("abc", "d", caught_up="d"), members, NOBODY, NOBODY, 1.0
    ) == change(promote="d")


def test_learner_with_nothing_of_a_short_log_does_not_vote_although_it_lacks_little() -> None:
    """It knows of no cluster, and would refuse its own."""
    seating, members = Seating(SeatingConfig()), list(map(member, "abcd"))
    short = status("abc", "d", last_index=50)
    nothing_yet = replace(short, followers=(("b", 50), ("c", 50), ("d", 0)))
    assert seating.advise(nothing_yet, members, NOBODY, NOBODY, 0.0) == NOTHING
    assert seating.advise(short, members, NOBODY, NOBODY, 1.0) == change(promote="d")


def test_there_are_never_more_voters_than_the_limit() -> None:
    seating = Seating(SeatingConfig(voters_max=3))
    members = list(map(member, "abcd"))
    assert (
        seating.advise(status("abc", "d", caught_up="d"), members, NOBODY, NOBODY, 0.0) == NOTHING
    )


@promises.LOG_BEFORE_VOTE
def test_dead_voter_keeps_its_seat_without_a_successor() -> None:
    seating = Seating(SeatingConfig())
    members = [member("a"), member("b"), member("c", MemberState.DEAD)]
    for now in (0.0, 100.0, 100_000.0):
        assert seating.advise(status("abc"), members, NOBODY, NOBODY, now) == NOTHING


def test_dead_voters_seat_goes_to_a_caught_up_learner_after_the_hold_down() -> None:
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = [member("a"), member("b"), member("c", MemberState.DEAD), member("d")]
    view = status("abc", "d", caught_up="d")
    assert seating.advise(view, members, NOBODY, NOBODY, 0.0) == NOTHING, (
        "it may only be restarting"
    )
    assert seating.advise(view, members, NOBODY, NOBODY, 14.9) == NOTHING
    assert seating.advise(view, members, NOBODY, NOBODY, 15.0) == change(promote="d", remove="c")


def test_voter_that_comes_back_in_time_keeps_its_seat() -> None:
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    view = status("abc", "d", caught_up="d")
    away = [member("a"), member("b"), member("c", MemberState.DEAD), member("d")]
    seating.advise(view, away, NOBODY, NOBODY, 0.0)
    seating.advise(view, list(map(member, "abcd")), NOBODY, NOBODY, 10.0)
    assert seating.advise(view, away, NOBODY, NOBODY, 20.0) == NOTHING, (
        "the absence is counted anew"
    )


def test_voter_that_gossip_does_not_know_any_more_is_replaced_by_its_new_self() -> None:
    """A wiped node has a new id under its old name: the old id is in nobody's member list."""
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = list(map(member, "abd"))
    view = status("abc", "d", caught_up="d")
    seating.advise(view, members, NOBODY, NOBODY, 0.0)
    assert seating.advise(view, members, NOBODY, NOBODY, 15.0) == change(promote="d", remove="c")


def test_only_one_voter_is_replaced_at_a_time() -> None:
    seating = Seating(SeatingConfig(hold_down_s=1.0))
    members = [member("a"), *map(member, "fg")]
    view = status("abcde", "fg", caught_up="fg")
    seating.advise(view, members, NOBODY, NOBODY, 0.0)
    assert seating.advise(view, members, NOBODY, NOBODY, 5.0) == change(promote="f", remove="b")


def test_voter_that_left_keeps_its_seat_in_a_cluster_of_three() -> None:
    seating = Seating(SeatingConfig())
    members = [member("a"), member("b"), member("c", MemberState.LEFT)]
    seating.advise(status("abc"), members, NOBODY, NOBODY, 0.0)
    assert seating.advise(status("abc"), members, NOBODY, NOBODY, 10_000.0) == NOTHING


def test_seat_of_a_voter_that_left_for_good_is_taken_down_when_more_than_three_remain() -> None:
    seating = Seating(SeatingConfig(forget_s=60.0))
    members = [*map(member, "abc"), member("d", MemberState.LEFT)]
    assert seating.advise(status("abcd"), members, NOBODY, NOBODY, 0.0) == NOTHING
    assert seating.advise(status("abcd"), members, NOBODY, NOBODY, 59.0) == NOTHING
    assert seating.advise(status("abcd"), members, NOBODY, NOBODY, 60.0) == change(remove="d")


def test_no_seat_is_taken_down_while_another_voter_is_away() -> None:
    seating = Seating(SeatingConfig(forget_s=60.0))
    members = [
        member("a"),
        member("b"),
        member("c", MemberState.DEAD),
        member("d", MemberState.LEFT),
    ]
    seating.advise(status("abcd"), members, NOBODY, NOBODY, 0.0)
    assert seating.advise(status("abcd"), members, NOBODY, NOBODY, 600.0) == NOTHING


def test_learner_that_left_or_stayed_away_is_dropped() -> None:
    seating = Seating(SeatingConfig(forget_s=60.0))
    left = [*map(member, "abc"), member("d", MemberState.LEFT)]
    assert seating.advise(status("abc", "d"), left, NOBODY, NOBODY, 0.0) == change(remove="d")
    dead = [*map(member, "abc"), member("d", MemberState.DEAD)]
    seating = Seating(SeatingConfig(forget_s=60.0))
    assert seating.advise(status("abc", "d"), dead, NOBODY, NOBODY, 0.0) == NOTHING
    assert seating.advise(status("abc", "d"), dead, NOBODY, NOBODY, 60.0) == change(remove="d")


def test_learner_that_left_goes_on_receiving_while_it_sends_its_browsers_away() -> None:
    seating = Seating(SeatingConfig(forget_s=60.0))
    members = [*map(member, "abc"), member("d", MemberState.LEFT)]
    view = status("abc", "d")
    for now in (0.0, 100.0):
        assert seating.advise(view, members, NOBODY, {"d"}, now) == NOTHING
    assert seating.advise(view, members, NOBODY, NOBODY, 101.0) == change(remove="d")


def test_voter_that_asks_becomes_a_learner_whatever_the_number_of_voters() -> None:
    for voters in ("abcde", "abcd", "abc", "ab"):
        members = [*map(member, voters[:-1]), leaving(voters[-1])]
        advice = Seating(SeatingConfig()).advise(status(voters), members, {voters[-1]}, NOBODY, 0.0)
        assert advice == change(demote=voters[-1])


@promises.DECOMMISSION_KEEPS_QUORUM
def test_gossip_alone_takes_nobodys_seat() -> None:
    """A word in gossip, which is not authenticated, only keeps a node from getting a seat."""
    members = [member("a"), member("b"), leaving("c")]
    assert Seating(SeatingConfig()).advise(status("abc"), members, NOBODY, NOBODY, 0.0) == NOTHING


def test_request_of_a_life_that_is_over_takes_nobodys_seat() -> None:
    members = list(map(member, "abc"))
    assert Seating(SeatingConfig()).advise(status("abc"), members, {"c"}, NOBODY, 0.0) == NOTHING


def test_two_that_ask_at_once_go_one_after_the_other() -> None:
    seating = Seating(SeatingConfig())
    members = [member("a"), leaving("b"), leaving("c")]
    asked = {"b", "c"}
    assert seating.advise(status("abc"), members, asked, NOBODY, 0.0) == change(demote="b")
    assert seating.advise(status("ac", "b"), members, asked, NOBODY, 1.0) == change(demote="c")
    assert seating.advise(status("a", "bc"), members, asked, NOBODY, 2.0) == NOTHING


def test_leader_that_asks_goes_last_and_hands_over_first() -> None:
    seating = Seating(SeatingConfig())
    members = [leaving("a"), leaving("b"), member("c")]
    asked = {"a", "b"}
    assert seating.advise(status("abc"), members, asked, NOBODY, 0.0) == change(demote="b")
    assert seating.advise(status("ac", "b"), members, asked, NOBODY, 1.0) == HandOver()


def test_last_voter_keeps_its_seat() -> None:
    members = [leaving("a"), leaving("b")]
    assert Seating(SeatingConfig()).advise(status("a", "b"), members, {"a"}, NOBODY, 0.0) == NOTHING
    assert standing(status("a", "b"), members, "a") is Standing.LAST


def test_last_voter_waits_while_somebody_may_still_get_a_seat() -> None:
    assert standing(status("a", "b"), [leaving("a"), member("b")], "a") is Standing.VOTES


def test_leaver_gets_no_seat_while_it_lives_and_one_in_its_next_life() -> None:
    seating = Seating(SeatingConfig())
    view = status("ab", "c", caught_up="c")
    assert (
        seating.advise(view, [member("a"), member("b"), leaving("c")], NOBODY, NOBODY, 0.0)
        == NOTHING
    )
    assert seating.advise(view, list(map(member, "abc")), NOBODY, NOBODY, 1.0) == change(
        promote="c"
    )


def test_leaver_takes_no_dead_voters_seat() -> None:
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = [member("a"), member("b"), member("c", MemberState.DEAD), leaving("d")]
    view = status("abc", "d", caught_up="d")
    seating.advise(view, members, {"d"}, NOBODY, 0.0)
    assert seating.advise(view, members, {"d"}, NOBODY, 15.0) == NOTHING


@promises.DECOMMISSION_KEEPS_QUORUM
def test_nobody_goes_while_those_who_would_stay_can_not_commit() -> None:
    """Taking b's seat would leave a and c, and c is away: nothing could be committed any more."""
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = [member("a"), leaving("b"), member("c", MemberState.DEAD)]
    assert seating.advise(status("abc"), members, {"b"}, NOBODY, 0.0) == NOTHING
    assert seating.advise(status("abc"), members, {"b"}, NOBODY, 14.9) == NOTHING


def test_who_has_been_away_for_long_goes_along_when_nothing_could_be_committed_otherwise() -> None:
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = [member("a"), leaving("b"), member("c", MemberState.DEAD)]
    seating.advise(status("abc"), members, {"b"}, NOBODY, 0.0)
    advice = seating.advise(status("abc"), members, {"b"}, NOBODY, 15.0)
    assert advice == change(demote="b", remove="c")


def test_dead_voter_keeps_its_seat_when_those_who_stay_can_commit() -> None:
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = [*map(member, "abc"), leaving("d"), member("e", MemberState.DEAD)]
    seating.advise(status("abcde"), members, NOBODY, NOBODY, 0.0)
    assert seating.advise(status("abcde"), members, {"d"}, NOBODY, 60.0) == change(demote="d")


def test_node_is_free_when_the_others_have_committed_that() -> None:
    members = list(map(member, "abc"))
    assert standing(status("abc"), members, "c") is Standing.VOTES
    assert standing(status("ab", "c"), members, "c") is Standing.FREE
    uncommitted = replace(status("ab", "c"), configuration_index=1001)
    assert standing(uncommitted, members, "c") is Standing.VOTES
    joint = Configuration("c1", voters=("a",), outgoing=("a", "b", "c"), learners=("c",))
    assert standing(replace(status("abc"), configuration=joint), members, "c") is Standing.VOTES


def test_node_without_a_cluster_has_no_seat_to_give_up() -> None:
    nowhere = replace(status("abc"), configuration=Configuration())
    assert standing(nowhere, [], "a") is Standing.STRANGER
