import random

from noti.swim.core.rotation import Rotation

NAMES = ["a", "b", "c", "d", "e"]


def test_everyone_has_a_turn_before_anyone_has_another() -> None:
    rotation = Rotation(random.Random(1))
    turns = [name for _ in range(10) for name in rotation.next(NAMES, 3)]
    for start in range(len(turns) - len(NAMES)):
        assert sorted(turns[start : start + len(NAMES)]) == NAMES


def test_nobody_has_two_turns_at_once_in_a_small_cluster() -> None:
    rotation = Rotation(random.Random(1))
    assert sorted(rotation.next(["a", "b"], 3)) == ["a", "b"]
    assert rotation.next([], 3) == []


def test_newcomers_have_turns_and_those_who_went_have_none() -> None:
    rotation = Rotation(random.Random(1))
    rotation.next(NAMES, 2)
    others = ["b", "d", "new"]
    assert sorted(rotation.next(others, 2) + rotation.next(others, 1)) == others


def test_nodes_do_not_all_take_the_same_turns() -> None:
    firsts = {Rotation(random.Random(seed)).next(NAMES, 1)[0] for seed in range(30)}
    assert firsts == set(NAMES)
