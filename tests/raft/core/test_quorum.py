"""Majorities, compared with the definition written out."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.raft.core.membership import Configuration
from noti.raft.core.quorum import has_quorum, reached_by_quorum, vote_is_lost

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
