"""From one configuration to the next."""

import pytest

from noti.raft.core.changes import Change, leave_joint, next_configuration
from noti.raft.core.membership import Configuration

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
