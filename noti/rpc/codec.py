"""Turns what nodes say to each other into protobuf frames, and back.

Enters: hellos, Raft messages; bytes. Leaves: bytes; hellos, Raft messages, fully checked.
Never: I/O; trust. Bytes come from the network: whatever is wrong with them is `MessageInvalid`.
"""

from collections.abc import Iterator, Sequence
from typing import Final, assert_never

from noti.errors import LocalError, MessageInvalid
from noti.ports import Hello
from noti.raft.messages import (
    AppendRequest,
    AppendResponse,
    Forward,
    ForwardAnswer,
    PeerMessage,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.records import ENTRY_DATA_BYTES_MAX, decode_entries, encode_entries
from noti.raft.validity import flaw
from noti.rpc import forwards
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.protobuf import parse

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest frame sent or accepted. Four times gRPC's customary 4 MiB, so that one entry made of a
whole batch of large events fits; small enough that a stranger cannot make a node hold much."""

_OVERHEAD_BYTES: Final = 1024
"""More than a message's fields take beside its payload."""

NAME_CHARACTERS_MAX: Final = 256
"""Longest cluster id, node id or name accepted; real ones have at most 63 (a DNS label)."""


def encode_hello(hello: Hello) -> bytes:
    """Return the first frame of a stream."""
    return bytes(
        wire.Frame(
            hello=wire.Hello(cluster_id=hello.cluster_id, node_id=hello.node_id, name=hello.name)
        )
    )


def decode_hello(data: bytes) -> Hello:
    """Return the hello in a stream's first frame; raises `MessageInvalid`."""
    hello = parse(wire.Frame, data).hello
    if hello is None:
        raise MessageInvalid("the stream does not begin with a hello")
    if not hello.node_id:
        raise MessageInvalid("the hello has no node id")
    for text in (hello.cluster_id, hello.node_id, hello.name):
        if len(text) > NAME_CHARACTERS_MAX:
            raise MessageInvalid(f"the hello has a name of {len(text)} characters")
    return Hello(hello.cluster_id, hello.node_id, hello.name)


def encode_messages(messages: Sequence[PeerMessage]) -> Iterator[bytes]:
    """Return `messages` as few frames of at most `FRAME_BYTES_MAX`, in order.

    Raises `LocalError` for a single message that does not fit: whoever cuts entries and snapshots
    into messages has to respect the limit.
    """
    group: list[wire.Message] = []
    group_bytes = 0
    for message in messages:
        encoded = _to_wire(message)
        size_bytes = _payload_bytes(encoded) + _OVERHEAD_BYTES
        if size_bytes > FRAME_BYTES_MAX:
            raise LocalError(
                f"a {type(message).__name__} of {size_bytes} bytes exceeds {FRAME_BYTES_MAX}"
            )
        if group and group_bytes + size_bytes > FRAME_BYTES_MAX:
            yield bytes(wire.Frame(batch=wire.Batch(messages=group)))
            group, group_bytes = [], 0
        group.append(encoded)
        group_bytes += size_bytes
    if group:
        yield bytes(wire.Frame(batch=wire.Batch(messages=group)))


def decode_messages(data: bytes) -> list[PeerMessage]:
    """Return the messages of one frame; raises `MessageInvalid`."""
    frame = parse(wire.Frame, data)
    if frame.batch is None or frame.hello is not None:
        raise MessageInvalid("a frame after the hello is not a batch")
    return [_checked(_from_wire(message)) for message in frame.batch.messages]


def _payload_bytes(message: wire.Message) -> int:
    if message.append_request is not None:
        return len(message.append_request.entries)
    if message.snapshot_chunk is not None:
        return len(message.snapshot_chunk.data) + len(message.snapshot_chunk.configuration)
    if message.forward is not None:
        return len(message.forward.proposals)
    return 0


def _to_wire(message: PeerMessage) -> wire.Message:
    encoded = wire.Message(sender=message.sender, term=message.term)
    match message:
        case VoteRequest():
            encoded.vote_request = wire.VoteRequest(
                last_index=message.last_index,
                last_term=message.last_term,
                pre=message.pre,
                transfer=message.transfer,
            )
        case VoteResponse():
            encoded.vote_response = wire.VoteResponse(granted=message.granted, pre=message.pre)
        case AppendRequest():
            encoded.append_request = wire.AppendRequest(
                previous_index=message.previous_index,
                previous_term=message.previous_term,
                commit=message.commit,
                entries=encode_entries(message.entries),
                round=message.round,
            )
        case AppendResponse():
            encoded.append_response = wire.AppendResponse(
                success=message.success,
                match_index=message.match_index,
                rejected_index=message.rejected_index,
                hint_index=message.hint_index,
                hint_term=message.hint_term,
                round=message.round,
            )
        case SnapshotChunk():
            encoded.snapshot_chunk = wire.SnapshotChunk(
                index=message.index,
                snapshot_term=message.snapshot_term,
                configuration=message.configuration,
                offset=message.offset,
                data=message.data,
                total=message.total,
            )
        case TimeoutNow():
            encoded.timeout_now = wire.TimeoutNow()
        case Forward():
            encoded.forward = wire.Forward(
                proposals=forwards.pack(message.proposals), reads=forwards.pack(message.reads)
            )
        case ForwardAnswer():
            encoded.forward_answer = wire.ForwardAnswer(outcomes=forwards.pack(message.outcomes))
        case _:
            assert_never(message)
    return encoded


def _from_wire(message: wire.Message) -> PeerMessage:
    contents = [
        content
        for content in (
            message.vote_request,
            message.vote_response,
            message.append_request,
            message.append_response,
            message.snapshot_chunk,
            message.timeout_now,
            message.forward,
            message.forward_answer,
        )
        if content is not None
    ]
    if len(contents) != 1:
        # None of them: a kind that only a newer version knows. Dropping it would be worse than
        # dropping the stream, which the other side sees.
        raise MessageInvalid(f"a message with {len(contents)} contents that this version knows")
    if not message.sender or len(message.sender) > NAME_CHARACTERS_MAX:
        raise MessageInvalid("a message without a proper sender")
    sender, term = message.sender, message.term
    match contents[0]:
        case wire.VoteRequest() as m:
            return VoteRequest(sender, term, m.last_index, m.last_term, m.pre, m.transfer)
        case wire.VoteResponse() as m:
            return VoteResponse(sender, term, m.granted, m.pre)
        case wire.AppendRequest() as m:
            previous, entries = (m.previous_index, m.previous_term), decode_entries(m.entries)
            return AppendRequest(sender, term, *previous, m.commit, entries, m.round)
        case wire.AppendResponse() as m:
            return AppendResponse(
                sender=sender,
                term=term,
                success=m.success,
                match_index=m.match_index,
                rejected_index=m.rejected_index,
                hint_index=m.hint_index,
                hint_term=m.hint_term,
                round=m.round,
            )
        case wire.SnapshotChunk() as m:
            return SnapshotChunk(
                sender=sender,
                term=term,
                index=m.index,
                snapshot_term=m.snapshot_term,
                configuration=m.configuration,
                offset=m.offset,
                data=m.data,
                total=m.total,
            )
        case wire.TimeoutNow():
            return TimeoutNow(sender, term)
        case wire.Forward() as m:
            proposals = forwards.unpack_proposals(m.proposals)
            return Forward(sender, term, proposals, forwards.unpack_reads(m.reads))
        case wire.ForwardAnswer() as m:
            return ForwardAnswer(sender, term, forwards.unpack_outcomes(m.outcomes))
        case other:
            assert_never(other)


def _checked(message: PeerMessage) -> PeerMessage:
    """Return the message; raises `MessageInvalid` for one that no honest peer sends."""
    match message:
        case Forward(proposals=proposals):
            longest = max((len(command) for _, command in proposals), default=0)
            found = f"a command of {longest} bytes" if longest > ENTRY_DATA_BYTES_MAX else None
        case ForwardAnswer():
            found = None
        case _:
            found = flaw(message)
    if found is not None:
        raise MessageInvalid(found)
    return message
