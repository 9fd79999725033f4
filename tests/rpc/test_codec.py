"""Raft messages as protobuf frames."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noti.errors import LocalError, MessageInvalid
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    BACKLOG_MAX,
    INDEX_MAX,
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    EntryKind,
    Message,
    PeerMessage,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX, new_entry
from noti.raft.ports import Hello
from noti.rpc import forwards
from noti.rpc.codec import (
    FRAME_BYTES_MAX,
    decode_hello,
    decode_messages,
    encode_hello,
    encode_messages,
)
from noti.rpc.generated.noti import v1 as wire

CHANGE = EntryKind.CONFIGURATION
CONFIGURATION = encode_configuration(Configuration("c", ("n1", "n2")))

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


def test_answer_of_an_older_node_says_nothing_of_its_backlog_and_one_too_large_is_full() -> None:
    """It is advice: whatever is in that field, the answer counts."""

    def read(response: wire.AppendResponse) -> PeerMessage:
        message = wire.Message(sender="n", term=3, append_response=response)
        return decode_messages(bytes(wire.Frame(batch=wire.Batch(messages=[message]))))[0]

    old = wire.AppendResponse(success=True, match_index=7, round=2)
    assert read(old) == AppendAccepted("n", 3, 7, 2)
    wild = wire.AppendResponse(success=True, match_index=7, round=2, backlog=2**32 - 1)
    assert read(wild) == AppendAccepted("n", 3, 7, 2, BACKLOG_MAX)


@given(st.lists(messages, max_size=8))
def test_messages_survive_the_wire(sent: list[Message]) -> None:
    received = [m for frame in encode_messages(sent) for m in decode_messages(frame)]
    assert received == sent


@given(messages)
def test_messages_are_written_and_read_as_the_generated_classes_do(message: Message) -> None:
    [frame] = encode_messages([message])
    assert bytes(wire.Frame.parse(frame)) == frame
    assert decode_messages(bytes(wire.Frame.parse(frame))) == [message]


@given(st.builds(Hello, st.text(max_size=40), node_ids, st.text(max_size=40)))
def test_hello_survives_the_wire(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


@given(st.binary(max_size=200))
def test_random_bytes_decode_or_are_invalid(data: bytes) -> None:
    for decode in (decode_hello, decode_messages):
        with contextlib.suppress(MessageInvalid):
            decode(data)


@given(messages, st.data())
def test_cut_frame_never_raises_anything_else(message: Message, data: st.DataObject) -> None:
    [frame] = encode_messages([message])
    cut = frame[: data.draw(st.integers(0, len(frame) - 1))]
    with contextlib.suppress(MessageInvalid):
        assert decode_messages(cut) == []


def frame_of(term: int = 5, **content: object) -> bytes:
    message = wire.Message(sender="n", term=term, **content)  # type: ignore[arg-type]
    return bytes(wire.Frame(batch=wire.Batch(messages=[message])))


def configuration_entry(data: bytes) -> bytes:
    entries = new_entry(1, 1, EntryKind.CONFIGURATION, data).record
    return frame_of(append_request=wire.AppendRequest(entries=entries))


def snapshot_chunk(**fields: object) -> wire.SnapshotChunk:
    sound = {"index": 3, "snapshot_term": 2, "configuration": CONFIGURATION, "total": 9}
    return wire.SnapshotChunk(**{**sound, **fields})  # type: ignore[arg-type]


def test_sound_frame_is_valid() -> None:
    """What the illegal frames below are made from would be accepted."""
    assert decode_messages(frame_of(snapshot_chunk=snapshot_chunk()))
    assert decode_messages(configuration_entry(CONFIGURATION))


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(vote_request=wire.VoteRequest(last_index=INDEX_MAX + 1)),
        frame_of(append_response=wire.AppendResponse(hint_term=2**64 - 1)),
        frame_of(append_request=wire.AppendRequest(entries=b"no records")),
        frame_of(
            append_request=wire.AppendRequest(
                previous_index=7, entries=new_entry(9, 1, EntryKind.NOOP, b"").record
            )
        ),
        frame_of(
            append_request=wire.AppendRequest(entries=new_entry(1, 6, EntryKind.NOOP, b"").record)
        ),
        frame_of(
            append_request=wire.AppendRequest(
                entries=new_entry(1, 3, EntryKind.NOOP, b"").record
                + new_entry(2, 2, EntryKind.NOOP, b"").record
            )
        ),
        configuration_entry(b"garbage"),
        configuration_entry(encode_configuration(Configuration("c"))),
        configuration_entry(encode_configuration(Configuration("c", ("n1", "n1")))),
        frame_of(snapshot_chunk=snapshot_chunk(offset=5, data=b"abc", total=7)),
        frame_of(snapshot_chunk=snapshot_chunk(configuration=b"garbage")),
        frame_of(snapshot_chunk=snapshot_chunk(snapshot_term=6)),
        frame_of(snapshot_chunk=snapshot_chunk(index=0)),
        frame_of(timeout_now=wire.TimeoutNow(), term=2**64 - 1),
        frame_of(
            forward=wire.Forward(proposals=forwards.pack([(1, bytes(ENTRY_DATA_BYTES_MAX + 1))]))
        ),
        frame_of(vote_request=wire.VoteRequest(), timeout_now=wire.TimeoutNow()),
        frame_of(),
        bytes(wire.Frame(hello=wire.Hello(node_id="n"))),
        bytes(wire.Frame(batch=wire.Batch(messages=[wire.Message(timeout_now=wire.TimeoutNow())]))),
    ],
    ids=[
        "index-too-large",
        "term-too-large",
        "entries-garbage",
        "entries-elsewhere",
        "entry-of-a-later-term",
        "entries-of-falling-terms",
        "configuration-garbage",
        "configuration-without-voters",
        "configuration-with-a-double-vote",
        "snapshot-beyond-its-end",
        "snapshot-with-a-configuration-that-is-garbage",
        "snapshot-of-a-later-term",
        "snapshot-of-nothing",
        "message-term-too-large",
        "forwarded-command-too-large-for-the-log",
        "two-contents",
        "no-content",
        "hello-instead-of-batch",
        "no-sender",
    ],
)
def test_illegal_frame_is_invalid(frame: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_messages(frame)


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


def test_hello_with_an_endless_name_is_invalid() -> None:
    with pytest.raises(MessageInvalid):
        decode_hello(encode_hello(Hello("c", "n", "x" * 300)))


def test_hello_without_node_id_is_invalid() -> None:
    with pytest.raises(MessageInvalid):
        decode_hello(encode_hello(Hello("c", "", "x")))
