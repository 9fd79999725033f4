"""The bytes of commands."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import CommandUnknown, MessageInvalid
from noti.history.commands import (
    INTEGER_MAX,
    Command,
    Publish,
    PublishBatch,
    SetLimits,
    decode,
    encode,
)
from noti.history.notification import Event

texts = st.text(max_size=20)
events = st.builds(
    Event,
    st.integers(1, INTEGER_MAX),
    texts,
    st.lists(texts, min_size=1, max_size=3).map(tuple),
    texts,
    st.integers(0, INTEGER_MAX),
)
published = st.builds(
    Event,
    st.just(0),
    texts,
    st.lists(texts, min_size=1, max_size=3).map(tuple),
    texts,
    st.integers(0, INTEGER_MAX),
)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(PublishBatch, texts, st.lists(events, max_size=5).map(tuple)),
    st.builds(SetLimits, st.integers(1, INTEGER_MAX)),
    st.builds(Publish, st.lists(published, max_size=5).map(tuple)),
)


@given(commands)
def test_command_survives_its_bytes(command: Command) -> None:
    assert decode(encode(command)) == command


@given(st.binary(max_size=100))
def test_random_bytes_are_invalid_or_unknown(data: bytes) -> None:
    with contextlib.suppress(MessageInvalid, CommandUnknown):
        decode(data)


@given(commands, st.data())
def test_cut_command_is_invalid(command: Command, data: st.DataObject) -> None:
    encoded = encode(command)
    with pytest.raises(MessageInvalid):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


def test_bytes_are_an_array_that_begins_with_the_kind() -> None:
    event = Event(7, "id", ("a.b",), "{}", 5)
    assert msgpack.unpackb(encode(PublishBatch("s", (event,)))) == [
        1,
        "s",
        [[7, "id", ["a.b"], "{}", 5]],
    ]
    assert msgpack.unpackb(encode(SetLimits(9))) == [2, 9]
    published = Event(0, "id", ("a.b",), "{}", 5)
    assert msgpack.unpackb(encode(Publish((published,)))) == [3, [["id", ["a.b"], "{}", 5]]]


def test_unknown_kind_fails_with_what_to_do() -> None:
    with pytest.raises(CommandUnknown, match="older than the cluster: upgrade it") as caught:
        decode(msgpack.packb([99, "from", "the future"]))
    assert caught.value.kind == 99


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        ["1"],
        [-1],
        [True, "s", []],
        [1],
        [1, "s"],
        [1, "s", [[0, "id", ["t"], "d", 1]]],
        [1, "s", [[1, "id", [], "d", 1]]],
        [1, "s", [[1, "id", ["t", 2], "d", 1]]],
        [1, "s", [[1, "id", ["t"], "d", -1]]],
        [1, "s", [[True, "id", ["t"], "d", 1]]],
        [1, "s", [["id"]]],
        [1, "s", [], "more"],
        [2, 0],
        [2, 2**63],
        [2, False],
        [3],
        [3, [["id", [], "d", 1]]],
        [3, [["id", ["t"], "d", -1]]],
        [3, [[1, "id", ["t"], "d", 1]]],
        [3, [], "more"],
    ],
)
def test_wrong_fields_are_invalid(value: object) -> None:
    with pytest.raises(MessageInvalid):
        decode(msgpack.packb(value))


def test_trailing_bytes_are_invalid() -> None:
    with pytest.raises(MessageInvalid):
        decode(encode(SetLimits(5)) + b"\x00")
