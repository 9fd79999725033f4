"""Raft messages in frames, and what no peer sends."""

import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import ClusterMismatch, LocalError, MessageInvalid
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    BACKLOG_MAX,
    INDEX_MAX,
    REQUESTS_MAX,
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    EntryKind,
    Forward,
    HardState,
    Message,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX, encode_hard_state, new_entry
from noti.raft.ports import Hello
from noti.rpc.codec import (
    FORMAT_VERSION,
    FRAME_BYTES_MAX,
    REASON_CHARACTERS_MAX,
    decode_answer,
    decode_hello,
    decode_messages,
    encode_hello,
    encode_messages,
    encode_rejection,
)
from noti.rpc.generated.noti import v1 as wire


def members_of(*voters: str) -> bytes:
    return encode_configuration(Configuration("c", voters))


CONFIGURATION = members_of("n1", "n2")

node_ids = st.text(min_size=1, max_size=40)
numbers = st.integers(0, INDEX_MAX)


@st.composite
def append_requests(draw: st.DrawFn) -> AppendRequest:
    previous = draw(st.integers(0, INDEX_MAX - 10))
    term = draw(st.integers(1, INDEX_MAX))
    terms = sorted(draw(st.lists(st.integers(1, term), min_size=1, max_size=5)))
    kinds = st.sampled_from(EntryKind)
    entries = tuple(
        new_entry(
            index, entry_term, kind, CONFIGURATION if kind is EntryKind.CONFIGURATION else command
        )
        for index, entry_term in enumerate(terms[1:], previous + 1)
        for kind, command in [(draw(kinds), draw(st.binary(max_size=50)))]
    )
    return AppendRequest(draw(node_ids), term, previous, terms[0], draw(numbers), entries)


@st.composite
def snapshot_chunks(draw: st.DrawFn) -> SnapshotChunk:
    data, offset = draw(st.binary(max_size=50)), draw(st.integers(0, 2**40))
    total = offset + len(data) + draw(st.integers(0, 2**40))
    term, index = draw(st.integers(1, INDEX_MAX)), draw(st.integers(1, INDEX_MAX))
    snapshot_term = draw(st.integers(1, term))
    sender = draw(node_ids)
    return SnapshotChunk(sender, term, index, snapshot_term, CONFIGURATION, offset, data, total)


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(VoteRequest, node_ids, numbers, numbers, numbers, st.booleans(), st.booleans()),
    st.builds(VoteResponse, node_ids, numbers, st.booleans(), st.booleans()),
    append_requests(),
    st.builds(AppendAccepted, node_ids, numbers, numbers, numbers, st.integers(0, BACKLOG_MAX)),
    st.builds(AppendRejected, node_ids, numbers, numbers, numbers, numbers, numbers),
    snapshot_chunks(),
    st.builds(TimeoutNow, node_ids, st.integers(1, INDEX_MAX)),
)


@given(st.lists(messages, max_size=8))
def test_messages_survive_the_wire(sent: list[Message]) -> None:
    received = [m for frame in encode_messages(sent) for m in decode_messages(frame)]
    assert received == sent


@given(st.lists(messages, max_size=3))
def test_frame_is_the_message_of_the_generated_class(sent: list[Message]) -> None:
    for frame in encode_messages(sent):
        assert bytes(wire.Frame.parse(frame)) == frame
        assert decode_messages(bytes(wire.Frame(wire.Frame.parse(frame).data))) == sent


def test_entries_travel_as_the_bytes_that_their_leader_made() -> None:
    entries = tuple(new_entry(index, 2, EntryKind.COMMAND, b"c" * index) for index in (6, 7))
    [frame] = encode_messages([AppendRequest("n", 2, 5, 2, 5, entries)])
    assert all(entry.record in frame for entry in entries)
    [request] = decode_messages(frame)
    assert isinstance(request, AppendRequest)
    assert [entry.record for entry in request.entries] == [entry.record for entry in entries]


@given(st.builds(Hello, st.text(max_size=40), node_ids, st.text(max_size=40)))
def test_hello_survives_the_wire(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


@given(st.binary(max_size=200))
def test_random_bytes_decode_or_are_invalid(data: bytes) -> None:
    for decode in (decode_hello, decode_messages):
        with contextlib.suppress(MessageInvalid, ClusterMismatch):
            decode(data)


@given(messages, st.data())
def test_cut_frame_never_raises_anything_else(message: Message, data: st.DataObject) -> None:
    [frame] = encode_messages([message])
    cut = frame[: data.draw(st.integers(0, len(frame) - 1))]
    with contextlib.suppress(MessageInvalid):
        assert decode_messages(cut) == []


def frame_of(value: object) -> bytes:
    return bytes(wire.Frame(msgpack.packb(value)))


def append_of(*records: object, term: int = 5, previous: int = 0) -> list[object]:
    return [3, "n", term, previous, min(previous, 1), 0, list(records), 0, 0]


def record(index: int, term: int, kind: EntryKind = EntryKind.NOOP, data: bytes = b"") -> bytes:
    return new_entry(index, term, kind, data).record


def configuration_entry(data: bytes) -> list[object]:
    return append_of(record(1, 1, EntryKind.CONFIGURATION, data))


def chunk(
    index: int = 3, term: int = 2, members: bytes = CONFIGURATION, offset: int = 0, total: int = 9
) -> list[object]:
    return [6, "n", 5, index, term, members, offset, b"abc", total]


@pytest.mark.parametrize(
    "message",
    [
        [1, "n", 5, 0, 0, True, False],
        append_of(record(1, 1), record(2, 3)),
        configuration_entry(CONFIGURATION),
        [4, "n", 5, 1, 0, BACKLOG_MAX],
        chunk(),
        [8, "n", 0, [[1, b"command"]], [2, 3]],
        [9, "n", 0, [[1, 0, 7]]],
        [10, "n", 0],
    ],
)
def test_sound_message_is_valid(message: list[object]) -> None:
    """What the invalid ones below are made from would be accepted."""
    assert len(decode_messages(frame_of([message]))) == 1


INVALID: dict[str, object] = {
    "no list": {},
    "a number": 5,
    "a message that is none": [5],
    "an empty message": [[]],
    "a kind that is a list": [[[], "n", 5]],
    "a kind that is true": [[True, "n", 5, 0, 0, True, False]],
    "an unknown kind": [[99, "n", 5]],
    "too few fields": [[7, "n"]],
    "too many fields": [[7, "n", 5, 0]],
    "a number where a name belongs": [[7, 1, 5]],
    "true where a number belongs": [[7, "n", True]],
    "a number where true belongs": [[2, "n", 5, 1, False]],
    "text where bytes belong": [[6, "n", 5, 3, 2, "text", 0, b"abc", 9]],
    "no sender": [[7, "", 5]],
    "an endless sender": [[7, "n" * 300, 5]],
    "an index too large": [[1, "n", 5, INDEX_MAX + 1, 0, True, False]],
    "a negative index": [[1, "n", 5, -1, 0, True, False]],
    "a term too large": [[5, "n", 5, 0, 0, 2**64 - 1, 0]],
    "a message's term too large": [[7, "n", 2**64 - 1]],
    "a forward's term too large": [[8, "n", 2**64 - 1, [], []]],
    "a demotion's term too large": [[10, "n", 2**64 - 1]],
    "a backlog beyond its bound": [[4, "n", 5, 1, 0, BACKLOG_MAX + 1]],
    "an entry that is no bytes": [append_of("record")],
    "an entry that is no record": [append_of(b"no record, of a length that may be one")],
    "another record": [append_of(encode_hard_state(HardState(3, "somebody with a long name")))],
    "two records in one": [append_of(record(1, 1) + record(2, 1))],
    "entries elsewhere": [append_of(record(9, 1), previous=7)],
    "an entry of a later term": [append_of(record(1, 6))],
    "entries of falling terms": [append_of(record(1, 3), record(2, 2))],
    "a configuration that does not decode": [configuration_entry(b"garbage")],
    "a configuration without voters": [configuration_entry(members_of())],
    "a configuration with a double vote": [configuration_entry(members_of("n1", "n1"))],
    "a snapshot beyond its end": [chunk(offset=5, total=7)],
    "a snapshot whose configuration does not decode": [chunk(members=b"garbage")],
    "a snapshot of a later term": [chunk(term=6)],
    "a snapshot of nothing": [chunk(index=0)],
    "a forwarded command without its number": [[8, "n", 0, [[b"command"]], []]],
    "a forwarded command that is text": [[8, "n", 0, [[1, "command"]], []]],
    "a forwarded command that is no pair": [[8, "n", 0, [7], []]],
    "a forwarded command too large for the log": [
        [8, "n", 0, [[1, bytes(ENTRY_DATA_BYTES_MAX + 1)]], []]
    ],
    "a forwarded number too large": [[8, "n", 0, [[2**64 - 1, b""]], []]],
    "a forwarded number below zero": [[8, "n", 0, [], [-1]]],
    "a forwarded read that is no number": [[8, "n", 0, [], [True]]],
    "an outcome that is no triple": [[9, "n", 0, [[1, 0]]]],
    "an unknown outcome": [[9, "n", 0, [[1, 99, 7]]]],
    "an extension": [[7, "n", msgpack.ExtType(1, b"x")]],
    "a time": [[7, "n", msgpack.Timestamp(2**33)]],
}


@pytest.mark.parametrize("value", INVALID.values(), ids=INVALID)
def test_frame_that_no_peer_sends_is_invalid(value: object) -> None:
    with pytest.raises(MessageInvalid):
        decode_messages(frame_of(value))


def test_hello_is_not_a_batch_and_a_batch_is_not_a_hello() -> None:
    with pytest.raises(MessageInvalid):
        decode_messages(encode_hello(Hello("c", "n", "x")))
    with pytest.raises(MessageInvalid):
        decode_hello(next(encode_messages([TimeoutNow("n", 5)])))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\x00",
        bytes(wire.Frame(b"\x90")) * 2,
        bytes(wire.Frame(b"\x90\x90")),
        bytes(wire.Frame(b"\x91" * 100_000)),
        bytes(wire.Frame(b"\xdd\xff\xff\xff\xff")),
        bytes(wire.Frame(b"\x91\x93\x07\xa1\xff\x05")),
    ],
    ids=["nothing", "empty", "two", "more", "deep", "endless", "no UTF-8"],
)
def test_bytes_that_are_not_one_value_are_invalid(data: bytes) -> None:
    for decode in (decode_hello, decode_messages):
        with pytest.raises(MessageInvalid):
            decode(data)


def test_large_batch_is_cut_into_frames_within_the_limit() -> None:
    data = bytes(5 * 1024 * 1024)
    chunks = [SnapshotChunk("n", 1, 1, 1, CONFIGURATION, 0, data, len(data)) for _ in range(7)]
    frames = list(encode_messages(chunks))
    assert [len(frame) <= FRAME_BYTES_MAX for frame in frames] == [True] * 3
    assert [len(decode_messages(frame)) for frame in frames] == [3, 3, 1]


def test_message_that_fits_no_frame_is_our_own_mistake() -> None:
    data = bytes(FRAME_BYTES_MAX)
    with pytest.raises(LocalError, match="SnapshotChunk"):
        list(encode_messages([SnapshotChunk("n", 1, 1, 1, b"", 0, data, len(data))]))


@pytest.mark.parametrize(
    "value",
    [
        5,
        [],
        [FORMAT_VERSION],
        [True, "c", "n", "x"],
        ["1", "c", "n", "x"],
        [FORMAT_VERSION, "c", "n"],
        [FORMAT_VERSION, "c", "n", "x", "y"],
        [FORMAT_VERSION, "c", b"n", "x"],
    ],
)
def test_hello_with_wrong_fields_is_invalid(value: object) -> None:
    with pytest.raises(MessageInvalid):
        decode_hello(frame_of(value))


def test_hello_with_an_endless_name_is_invalid() -> None:
    with pytest.raises(MessageInvalid):
        decode_hello(encode_hello(Hello("c", "n", "x" * 300)))


def test_message_with_more_requests_than_a_node_may_have_is_invalid() -> None:
    reads = tuple(range(REQUESTS_MAX))
    [frame] = encode_messages([Forward("n", 0, (), reads)])
    assert decode_messages(frame) == [Forward("n", 0, (), reads)]
    for proposals, asked in (((), (*reads, 1)), (((1, b"x"),), reads)):
        [frame] = encode_messages([Forward("n", 0, proposals, asked)])
        with pytest.raises(MessageInvalid, match="requests"):
            decode_messages(frame)


@given(st.integers(0, 2**16), st.integers(0, 2**16))
def test_hello_says_the_level_in_fields_that_older_releases_skip(level: int, above: int) -> None:
    hello = Hello("c", "n", "x", level, min(level + above, 2**16))
    frame = encode_hello(hello)
    assert decode_hello(frame) == hello
    version = FORMAT_VERSION if level else 2
    assert msgpack.unpackb(wire.Frame.parse(frame).data) == [version, "c", "n", "x"]


@pytest.mark.parametrize(("level", "supports"), [(2, 1), (1, 0), (0, 2**16 + 1)])
def test_hello_with_a_level_that_no_node_can_have_is_invalid(level: int, supports: int) -> None:
    with pytest.raises(MessageInvalid, match="level"):
        decode_hello(encode_hello(Hello("c", "n", "x", level, supports)))


def test_hello_without_node_id_is_invalid() -> None:
    with pytest.raises(MessageInvalid):
        decode_hello(encode_hello(Hello("c", "", "x")))


def test_hello_of_a_release_that_spoke_protobuf_says_to_run_one_release() -> None:
    old = b"\x0a\x08a-group1\x12\x06node-a\x1a\x05node1"
    with pytest.raises(MessageInvalid, match="run the same release on all nodes"):
        decode_hello(old)


def test_node_of_another_version_is_rejected_with_what_to_do() -> None:
    newer = frame_of([FORMAT_VERSION + 1, "cluster", "id", "node", "more"])
    with pytest.raises(ClusterMismatch, match=r"version 4 .* run the same release on all nodes"):
        decode_hello(newer)


def test_rejection_arrives_with_its_reason() -> None:
    with pytest.raises(ClusterMismatch, match=r"^node .ü. belongs to another cluster$"):
        decode_answer(encode_rejection("node 'ü' belongs to another cluster"))


def test_answer_of_a_node_that_lets_us_in_is_its_hello() -> None:
    hello = Hello("cluster", "id", "name", level=1, supports=2)
    assert decode_answer(encode_hello(hello)) == hello


@given(st.binary(max_size=3000))
def test_whatever_a_rejection_says_is_a_short_text(reason: bytes) -> None:
    frame = bytes(wire.Frame(data=reason)).replace(b"\n", b'"', 1)
    with pytest.raises((ClusterMismatch, MessageInvalid)) as caught:
        decode_answer(frame)
    if caught.type is ClusterMismatch:
        assert len(str(caught.value)) <= REASON_CHARACTERS_MAX


def test_releases_that_know_no_rejections_see_no_hello_in_one() -> None:
    with pytest.raises(MessageInvalid):
        decode_hello(encode_rejection("anything"))
