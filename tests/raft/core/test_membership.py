"""Configurations and their bytes."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import MessageInvalid
from noti.raft.core.membership import Configuration, decode_configuration, encode_configuration

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
