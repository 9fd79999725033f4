"""Turns what nodes say to each other into protobuf frames, and back.

Enters: hellos, Raft messages; bytes. Leaves: bytes; hellos, Raft messages, fully checked.
Never: I/O; trust. Bytes come from the network: whatever is wrong with them is `MessageInvalid`.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, assert_never

from noti.errors import LocalError, MessageInvalid
from noti.protobuf import LENGTH, VARINT, Fields, length_field, parse, scan
from noti.raft.core.messages import (
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    DemotionRequest,
    Forward,
    ForwardAnswer,
    PeerMessage,
    SnapshotChunk,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX
from noti.raft.core.validate import flaw
from noti.raft.ports import Hello
from noti.rpc import appends, forwards
from noti.rpc.generated.noti import v1 as wire

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest frame sent or accepted. Four times gRPC's customary 4 MiB, so that one entry made of a
whole batch of large events fits; small enough that a stranger cannot make a node hold much."""

_OVERHEAD_BYTES: Final = 1024
"""More than a message's fields take beside its payload."""

NAME_CHARACTERS_MAX: Final = 256
"""Longest cluster id, node id or name accepted; real ones have at most 63 (a DNS label)."""

_BATCH, _MESSAGE = 2, 1
_FRAME_FIELDS: Final = Fields({1: LENGTH, _BATCH: LENGTH})
_BATCH_FIELDS: Final = Fields({_MESSAGE: LENGTH})
_MESSAGE_FIELDS: Final = Fields({1: LENGTH, 2: VARINT} | dict.fromkeys(range(3, 11), LENGTH))
"""Numbers and wire types of `Frame`, `Batch` and `Message` in raft.proto."""

_Rare: TypeAlias = (
    VoteRequest
    | VoteResponse
    | SnapshotChunk
    | TimeoutNow
    | Forward
    | ForwardAnswer
    | DemotionRequest
)
"""Messages that the generated classes read and write."""


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
    group: list[bytes] = []
    group_bytes = 0
    for message in messages:
        encoded = _encode(message)
        size_bytes = len(encoded) + _OVERHEAD_BYTES
        if size_bytes > FRAME_BYTES_MAX:
            raise LocalError(
                f"a {type(message).__name__} of {size_bytes} bytes exceeds {FRAME_BYTES_MAX}"
            )
        if group and group_bytes + size_bytes > FRAME_BYTES_MAX:
            yield length_field(_BATCH, b"".join(group))
            group, group_bytes = [], 0
        group.append(length_field(_MESSAGE, encoded))
        group_bytes += size_bytes
    if group:
        yield length_field(_BATCH, b"".join(group))


def decode_messages(data: bytes) -> list[PeerMessage]:
    """Return the messages of one frame; raises `MessageInvalid`."""
    contents = scan(data, _FRAME_FIELDS)
    if [number for number, _ in contents] != [_BATCH]:
        raise MessageInvalid("a frame after the hello is not a batch")
    return [_checked(_decode(message)) for _, message in scan(contents[0][1], _BATCH_FIELDS)]


def _encode(message: PeerMessage) -> bytes:
    if isinstance(message, AppendRequest | AppendAccepted | AppendRejected):
        return appends.write(message)
    return bytes(_to_wire(message))


def _decode(data: bytes) -> PeerMessage:
    sender, term, number, content = "", 0, 0, b""
    for field, value in scan(data, _MESSAGE_FIELDS):
        if field == 1:
            sender = _sender(value)
        elif field == 2:
            term = value
        elif number:
            raise MessageInvalid("a message with more than one content")
        else:
            number, content = field, value
    if not sender:
        raise MessageInvalid("a message without a proper sender")
    if number == appends.REQUEST:
        return appends.read_request(sender, term, content)
    if number == appends.RESPONSE:
        return appends.read_response(sender, term, content)
    return _from_wire(parse(wire.Message, data))


def _sender(value: bytes) -> str:
    try:
        sender = value.decode()
    except UnicodeDecodeError as error:
        raise MessageInvalid(f"a sender that is not UTF-8: {error.reason}") from None
    if len(sender) > NAME_CHARACTERS_MAX:
        raise MessageInvalid("a message without a proper sender")
    return sender


def _to_wire(message: _Rare) -> wire.Message:
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
                proposals=forwards.pack(message.proposals),
                reads=forwards.pack(message.reads),
            )
        case DemotionRequest():
            encoded.forward = wire.Forward(gives_up_seat=True)
        case ForwardAnswer():
            encoded.forward_answer = wire.ForwardAnswer(outcomes=forwards.pack(message.outcomes))
        case _:
            assert_never(message)
    return encoded


def _from_wire(message: wire.Message) -> _Rare:
    contents = [
        content
        for content in (
            message.vote_request,
            message.vote_response,
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
    sender, term = message.sender, message.term
    match contents[0]:
        case wire.VoteRequest() as m:
            return VoteRequest(sender, term, m.last_index, m.last_term, m.pre, m.transfer)
        case wire.VoteResponse() as m:
            return VoteResponse(sender, term, m.granted, m.pre)
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
        case wire.Forward(gives_up_seat=True):
            return DemotionRequest(sender, term)
        case wire.Forward() as m:
            proposals = forwards.unpack_proposals(m.proposals)
            reads = forwards.unpack_reads(m.reads)
            return Forward(sender, term, proposals, reads)
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
        case ForwardAnswer() | DemotionRequest():
            found = None
        case _:
            found = flaw(message)
    if found is not None:
        raise MessageInvalid(found)
    return message
