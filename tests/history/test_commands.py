"""The bytes of commands."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import CommandUnknown, MessageInvalid
from noti.history.commands import (
    INTEGER_MAX,
    AdvanceFloor,
    Command,
    Expire,
    Publish,
    PublishBatch,
    PublishBatchV1,
    PublishV1,
    SetHistorySize,
    SetLimits,
    decode,
    encode,
)
from noti.history.levels import RaiseLevel
from noti.history.limits import HistoryLimits
from noti.history.notification import Event

texts = st.text(max_size=20)
integers = st.integers(0, INTEGER_MAX)
positive = st.integers(1, INTEGER_MAX)
old_content: tuple[st.SearchStrategy[Any], ...] = (
    texts,
    st.lists(texts, min_size=1, max_size=3).map(tuple),
    texts,
    integers,
)
content = (*old_content, texts, integers, st.booleans())
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
traces = st.sampled_from(["", TRACE])


def old_event(
    source_seq: int, event_id: str, topics: tuple[str, ...], data: str, created_ms: int
) -> Event:
    return Event(source_seq, event_id, topics, data, created_ms)


def batches(of: st.SearchStrategy[Event]) -> st.SearchStrategy[tuple[Event, ...]]:
    return st.lists(of, max_size=5).map(tuple)


commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(
        PublishBatch,
        texts,
        batches(st.builds(Event, positive, *content, st.just(""), traces)),
        integers,
    ),
    st.builds(Publish, batches(st.builds(Event, st.just(0), *content, texts, traces)), integers),
    st.builds(
        SetLimits, st.builds(HistoryLimits, positive, positive, integers, integers, positive)
    ),
    st.builds(Expire, integers),
    st.builds(AdvanceFloor, texts, positive),
    st.builds(
        PublishBatchV1,
        texts,
        batches(st.builds(old_event, positive, *old_content)),
    ),
    st.builds(PublishV1, batches(st.builds(old_event, st.just(0), *old_content))),
    st.builds(SetHistorySize, positive),
    st.builds(RaiseLevel, positive),
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
    event = Event(7, "id", ("a.b",), "{}", 5, "chat", 9, True)
    assert msgpack.unpackb(encode(PublishBatch("s", (event,), 6))) == [
        4,
        6,
        "s",
        [[7, "id", ["a.b"], "{}", 5, "chat", 9, True]],
    ]
    published = Event(0, "id", ("a.b",), "{}", 5, "chat", 9, True, "key")
    assert msgpack.unpackb(encode(Publish((published,), 6))) == [
        5,
        6,
        [["id", ["a.b"], "{}", 5, "chat", 9, True, "key"]],
    ]
    assert msgpack.unpackb(encode(SetLimits(HistoryLimits(1, 2, 3, 4, 5)))) == [6, 1, 2, 3, 4, 5]
    assert msgpack.unpackb(encode(Expire(9))) == [7, 9]
    assert msgpack.unpackb(encode(AdvanceFloor("s", 9))) == [8, "s", 9]


def test_traces_stand_behind_events_in_kinds_of_their_own() -> None:
    event = Event(7, "id", ("t",), "d", 5)
    told = [7, "id", ["t"], "d", 5, "", 0, False]
    batch = PublishBatch("s", (event, event._replace(trace=TRACE)), 6)
    assert msgpack.unpackb(encode(batch)) == [10, 6, "s", [told, told], [[1, TRACE]]]
    published = Publish((event._replace(source_seq=0, trace=TRACE),), 6)
    assert msgpack.unpackb(encode(published)) == [11, 6, [[*told[1:], ""]], [[0, TRACE]]]


@pytest.mark.parametrize(
    "traces", [[[2, TRACE]], [[-1, TRACE]], [[0, ""]], [[0, TRACE.upper()]], [[0, TRACE]] * 2, [0]]
)
def test_trace_of_no_event_is_invalid(traces: list[object]) -> None:
    told = ["id", ["t"], "d", 5, "", 0, False, ""]
    with pytest.raises(MessageInvalid, match="a trace in a batch"):
        decode(msgpack.packb([11, 6, [told, told], traces]))


def test_kinds_of_older_versions_are_read_as_they_were_meant() -> None:
    event = Event(7, "id", ("a.b",), "{}", 5)
    old_batch = msgpack.packb([1, "s", [[7, "id", ["a.b"], "{}", 5]]])
    assert decode(old_batch) == PublishBatchV1("s", (event,))
    assert decode(msgpack.packb([2, 9])) == SetHistorySize(9)
    published = msgpack.packb([3, [["id", ["a.b"], "{}", 5]]])
    assert decode(published) == PublishV1((event._replace(source_seq=0),))


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
        [4, "s", []],
        [4, -1, "s", []],
        [4, True, "s", []],
        [4, 1, "s", [[0, "id", ["t"], "d", 1, "", 0, False]]],
        [4, 1, "s", [[1, "id", [], "d", 1, "", 0, False]]],
        [4, 1, "s", [[1, "id", ["t"], "d", 1, "", -1, False]]],
        [4, 1, "s", [[1, "id", ["t"], "d", 1, "", 0, 0]]],
        [4, 1, "s", [[1, "id", ["t"], "d", 1, "", 0, False, "key"]]],
        [5, 1, [["id", ["t"], "d", 1, "", 0, False]]],
        [5, 1, [["id", ["t"], "d", 1, "", 0, False, 7]]],
        [5, 1, [["id", ["t"], "d", 1, None, 0, False, ""]]],
        [5, [], "more"],
        [6, 1, 2, 3, 4],
        [6, 0, 2, 3, 4, 5],
        [6, 1, 0, 3, 4, 5],
        [6, 1, 2, 3, 4, 0],
        [7],
        [7, -1],
        [8, "s"],
        [8, "s", 0],
        [8, 1, 1],
    ],
)
def test_wrong_fields_are_invalid(value: object) -> None:
    with pytest.raises(MessageInvalid):
        decode(msgpack.packb(value))


def test_trailing_bytes_are_invalid() -> None:
    with pytest.raises(MessageInvalid):
        decode(encode(Expire(5)) + b"\x00")
