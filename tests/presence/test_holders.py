"""Promises of the names under which the processes of a node announce their streams."""

from noti.presence.holders import holder_of, is_left_over, node_of


def test_a_holder_is_known_to_be_a_part_of_its_node() -> None:
    assert node_of(holder_of("n1", 3)) == node_of("n1") == "n1"


def test_what_a_node_has_no_more_is_left_over() -> None:
    holders = ["n1", holder_of("n1", 1), holder_of("n1", 2), "n12", holder_of("n12", 9)]
    assert [one for one in holders if is_left_over(one, "n1", 1)] == ["n1", "n1/2"]
    assert [one for one in holders if is_left_over(one, "n1", 0)] == ["n1", "n1/1", "n1/2"]
