"""Which seat a node gets, and when a seat is taken away."""

from noti.raft.changes import Change
from noti.raft.events import Role, Status
from noti.raft.membership import Configuration
from noti.roster import TAG_CLUSTER, TAG_NODE_ID
from noti.seating import Seating, SeatingConfig
from noti.swim.messages import Member, MemberState

NOTHING = Change()


def member(node: str, state: MemberState = MemberState.ALIVE, cluster: str = "c1") -> Member:
    tags = {TAG_NODE_ID: node, TAG_CLUSTER: cluster}
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
        followers=tuple(followers.items()),
        leads_ready=True,
        fresh_at=None,
    )


def change(add: str = "", promote: str = "", remove: str = "") -> Change:
    return Change(frozenset(add), frozenset(promote), frozenset(remove))


def test_whoever_is_alive_and_has_no_cluster_becomes_a_learner() -> None:
    members = [*map(member, "abc"), member("d", cluster="")]
    assert Seating(SeatingConfig()).advise(status("abc"), members, 0.0) == change(add="d")


def test_member_of_another_cluster_or_a_dead_stranger_gets_no_seat() -> None:
    members = [*map(member, "abc"), member("d", cluster="c2"), member("e", MemberState.DEAD)]
    assert Seating(SeatingConfig()).advise(status("abc"), members, 0.0) == NOTHING


def test_learner_votes_only_when_it_has_caught_up() -> None:
    seating = Seating(SeatingConfig())
    members = list(map(member, "abcd"))
    assert seating.advise(status("abc", "d"), members, 0.0) == NOTHING
    assert seating.advise(status("abc", "d", caught_up="d"), members, 1.0) == change(promote="d")


def test_there_are_never_more_voters_than_the_limit() -> None:
    seating = Seating(SeatingConfig(voters_max=3))
    members = list(map(member, "abcd"))
    assert seating.advise(status("abc", "d", caught_up="d"), members, 0.0) == NOTHING


def test_dead_voter_keeps_its_seat_without_a_successor() -> None:
    seating = Seating(SeatingConfig())
    members = [member("a"), member("b"), member("c", MemberState.DEAD)]
    for now in (0.0, 100.0, 100_000.0):
        assert seating.advise(status("abc"), members, now) == NOTHING


def test_dead_voters_seat_goes_to_a_caught_up_learner_after_the_hold_down() -> None:
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = [member("a"), member("b"), member("c", MemberState.DEAD), member("d")]
    view = status("abc", "d", caught_up="d")
    assert seating.advise(view, members, 0.0) == NOTHING, "it may only be restarting"
    assert seating.advise(view, members, 14.9) == NOTHING
    assert seating.advise(view, members, 15.0) == change(promote="d", remove="c")


def test_voter_that_comes_back_in_time_keeps_its_seat() -> None:
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    view = status("abc", "d", caught_up="d")
    away = [member("a"), member("b"), member("c", MemberState.DEAD), member("d")]
    seating.advise(view, away, 0.0)
    seating.advise(view, list(map(member, "abcd")), 10.0)
    assert seating.advise(view, away, 20.0) == NOTHING, "the absence is counted anew"


def test_voter_that_gossip_does_not_know_any_more_is_replaced_by_its_new_self() -> None:
    """A wiped node has a new id under its old name: the old id is in nobody's member list."""
    seating = Seating(SeatingConfig(hold_down_s=15.0))
    members = list(map(member, "abd"))
    view = status("abc", "d", caught_up="d")
    seating.advise(view, members, 0.0)
    assert seating.advise(view, members, 15.0) == change(promote="d", remove="c")


def test_only_one_voter_is_replaced_at_a_time() -> None:
    seating = Seating(SeatingConfig(hold_down_s=1.0))
    members = [member("a"), *map(member, "fg")]
    view = status("abcde", "fg", caught_up="fg")
    seating.advise(view, members, 0.0)
    assert seating.advise(view, members, 5.0) == change(promote="f", remove="b")


def test_voter_that_left_keeps_its_seat_in_a_cluster_of_three() -> None:
    seating = Seating(SeatingConfig())
    members = [member("a"), member("b"), member("c", MemberState.LEFT)]
    seating.advise(status("abc"), members, 0.0)
    assert seating.advise(status("abc"), members, 10_000.0) == NOTHING


def test_seat_of_a_voter_that_left_for_good_is_taken_down_when_more_than_three_remain() -> None:
    seating = Seating(SeatingConfig(forget_s=60.0))
    members = [*map(member, "abc"), member("d", MemberState.LEFT)]
    assert seating.advise(status("abcd"), members, 0.0) == NOTHING
    assert seating.advise(status("abcd"), members, 59.0) == NOTHING
    assert seating.advise(status("abcd"), members, 60.0) == change(remove="d")


def test_no_seat_is_taken_down_while_another_voter_is_away() -> None:
    seating = Seating(SeatingConfig(forget_s=60.0))
    members = [
        member("a"),
        member("b"),
        member("c", MemberState.DEAD),
        member("d", MemberState.LEFT),
    ]
    seating.advise(status("abcd"), members, 0.0)
    assert seating.advise(status("abcd"), members, 600.0) == NOTHING


def test_learner_that_left_or_stayed_away_is_dropped() -> None:
    seating = Seating(SeatingConfig(forget_s=60.0))
    left = [*map(member, "abc"), member("d", MemberState.LEFT)]
    assert seating.advise(status("abc", "d"), left, 0.0) == change(remove="d")
    dead = [*map(member, "abc"), member("d", MemberState.DEAD)]
    seating = Seating(SeatingConfig(forget_s=60.0))
    assert seating.advise(status("abc", "d"), dead, 0.0) == NOTHING
    assert seating.advise(status("abc", "d"), dead, 60.0) == change(remove="d")
