"""Configurations and their bytes."""

from itertools import combinations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.raft.core.membership import (
    Change,
    Configuration,
    decode_configuration,
    encode_configuration,
    has_quorum,
    leave_joint,
    next_configuration,
    reached_by_quorum,
    vote_is_lost,
)

groups = st.lists(st.text(max_size=5), max_size=5).map(tuple)


@given(st.builds(Configuration, st.text(max_size=5), groups, groups, groups))
def test_configuration_survives_encoding(configuration: Configuration) -> None:
    assert decode_configuration(encode_configuration(configuration)) == configuration


@given(st.binary(max_size=40))
def test_garbage_is_refused_or_reads_as_what_it_encodes(data: bytes) -> None:
    try:
        configuration = decode_configuration(data)
    except MessageInvalid:
        return
    assert decode_configuration(encode_configuration(configuration)) == configuration


@pytest.mark.parametrize(
    "fields",
    [
        None,
        7,
        [],
        ["c", [], []],
        ["c", [], [], [], []],
        [7, [], [], []],
        ["c", ["a", 7], [], []],
        ["c", [["a"]], [], []],
        ["c", "abc", [], []],
        ["c", {"a": 1}, [], []],
        {"c": 1, "ab": 2, "d": 3, "e": 4},
        ["c", ["n"] * 2000, [], []],
    ],
)
def test_anything_but_a_configuration_is_refused(fields: object) -> None:
    with pytest.raises(MessageInvalid):
        decode_configuration(msgpack.packb(fields))


def test_members_are_all_who_receive_the_log_once_and_sorted() -> None:
    configuration = Configuration("c", ("b", "c"), outgoing=("a", "b"), learners=("d",))
    assert configuration.members == ("a", "b", "c", "d")


def test_voters_of_either_half_vote_and_learners_do_not() -> None:
    configuration = Configuration("c", ("b",), outgoing=("a",), learners=("d",))
    assert [configuration.is_voter(node) for node in "abde"] == [True, True, False, False]


THREE = Configuration("c1", voters=("a", "b", "c"))


def change(add: str = "", promote: str = "", remove: str = "") -> Change:
    return Change(frozenset(add), frozenset(promote), frozenset(remove))


def test_learners_come_without_a_joint_configuration() -> None:
    following = next_configuration(THREE, change(add="de"))
    assert following == Configuration("c1", voters=("a", "b", "c"), learners=("d", "e"))


def test_one_voter_more_or_less_is_a_single_step() -> None:
    with_learner = Configuration("c1", voters=("a", "b", "c"), learners=("d",))
    assert next_configuration(with_learner, change(promote="d")) == Configuration(
        "c1", voters=("a", "b", "c", "d")
    )
    assert next_configuration(THREE, change(remove="c")) == Configuration("c1", voters=("a", "b"))


def test_demoted_voter_goes_on_receiving_the_log() -> None:
    demoted = Configuration("c1", voters=("a", "b"), learners=("c",))
    assert next_configuration(THREE, Change(demote=frozenset("c"))) == demoted
    assert next_configuration(demoted, Change(demote=frozenset("c"))) is None
    assert next_configuration(THREE, Change(demote=frozenset("z"))) is None


def test_replacing_a_voter_goes_through_both_halves() -> None:
    with_learner = Configuration("c1", voters=("a", "b", "c"), learners=("d",))
    joint = next_configuration(with_learner, change(promote="d", remove="c"))
    assert joint == Configuration("c1", voters=("a", "b", "d"), outgoing=("a", "b", "c"))
    assert leave_joint(joint) == Configuration("c1", voters=("a", "b", "d"))


def test_what_is_so_already_changes_nothing() -> None:
    assert next_configuration(THREE, change(add="a")) is None
    assert next_configuration(THREE, change(promote="b")) is None
    assert next_configuration(THREE, change(remove="z")) is None


@pytest.mark.parametrize(
    ("current", "wanted"),
    [
        (THREE, change(promote="z")),
        (THREE, change(remove="abc")),
        (THREE, Change(demote=frozenset("abc"))),
        (Configuration("c1", voters=("a", "b"), outgoing=("b", "c")), change(add="d")),
    ],
)
def test_impossible_changes_are_refused_with_a_reason(
    current: Configuration, wanted: Change
) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        next_configuration(current, wanted)


NODES = ("a", "b", "c", "d", "e", "f")

halves = st.sets(st.sampled_from(NODES), max_size=6).map(lambda nodes: tuple(sorted(nodes)))
voters = st.sets(st.sampled_from(NODES), min_size=1, max_size=6).map(
    lambda nodes: tuple(sorted(nodes))
)
configurations = st.builds(Configuration, st.just("c"), voters, halves, halves)


def majorities(half: tuple[str, ...]) -> list[set[str]]:
    return [
        set(chosen)
        for size in range(len(half) // 2 + 1, len(half) + 1)
        for chosen in combinations(half, size)
    ]


def agrees(configuration: Configuration, agreeing: set[str]) -> bool:
    """The definition: in each half that there is, some majority agrees as a whole."""
    return all(
        any(majority <= agreeing for majority in majorities(half))
        for half in (configuration.voters, configuration.outgoing)
        if half
    )


@given(configurations, st.sets(st.sampled_from(NODES)))
def test_quorum_is_a_majority_of_both_halves(
    configuration: Configuration, agreeing: set[str]
) -> None:
    assert has_quorum(configuration, agreeing) == agrees(configuration, agreeing)


@given(configurations, st.sets(st.sampled_from(NODES)), st.sets(st.sampled_from(NODES)))
def test_two_quorums_of_one_configuration_share_a_node(
    configuration: Configuration, one: set[str], other: set[str]
) -> None:
    if has_quorum(configuration, one) and has_quorum(configuration, other):
        assert one & other


@given(configurations, st.fixed_dictionaries({node: st.integers(0, 9) for node in NODES}))
def test_quorum_has_reached_the_highest_number_that_a_quorum_has(
    configuration: Configuration, values: dict[str, int]
) -> None:
    expected = max(
        number
        for number in range(10)
        if agrees(configuration, {node for node in NODES if values[node] >= number})
    )
    assert reached_by_quorum(configuration, values.__getitem__) == expected


@given(configurations, st.dictionaries(st.sampled_from(NODES), st.booleans()))
def test_vote_is_lost_when_the_undecided_cannot_win_it_any_more(
    configuration: Configuration, votes: dict[str, bool]
) -> None:
    hoped = {node for node in NODES if votes.get(node, True)}
    assert vote_is_lost(configuration, votes) == (not agrees(configuration, hoped))


@given(voters, st.fixed_dictionaries({node: st.integers(0, 9) for node in NODES}))
def test_joint_configuration_with_itself_equals_the_simple_one(
    half: tuple[str, ...], values: dict[str, int]
) -> None:
    simple, joint = Configuration("c", half), Configuration("c", half, outgoing=half)
    of_both = [reached_by_quorum(c, values.__getitem__) for c in (simple, joint)]
    assert of_both[0] == of_both[1]


@pytest.mark.parametrize("agreeing", [(), ("a",), NODES])
def test_nobody_decides_in_an_empty_configuration(agreeing: tuple[str, ...]) -> None:
    assert not has_quorum(Configuration(), agreeing)
    assert vote_is_lost(Configuration(), {})
    assert reached_by_quorum(Configuration(), lambda node: 9) == 0


def test_learner_does_not_count() -> None:
    configuration = Configuration("c", ("a", "b", "c"), learners=("d", "e"))
    assert not has_quorum(configuration, ["a", "d", "e"])
    assert reached_by_quorum(configuration, lambda node: 9 if node in "ade" else 1) == 1
