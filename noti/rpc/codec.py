"""Turns what nodes send each other into frames, and back.

A frame is a protobuf message with one field of bytes (`noti.v1.Frame`), and in it is msgpack, which
is read and written in C: of the first frame of each side
`[format version, cluster id, node id, name]`, of every other one a list of messages. A message is
`[kind, sender, term, …]`, with the fields of its class in their order. An entry is its record: the
bytes that the leader made once. Bytes come from the network: whatever is wrong with them is
`MessageInvalid`.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Final

import msgpack

from noti.errors import ClusterMismatch, LocalError, MessageInvalid
from noti.protobuf import length_field, length_keys, number_field, number_in, number_keys, scan
from noti.raft.core.messages import (
    BACKLOG_MAX,
    ENTRY_HEAD_BYTES,
    INDEX_MAX,
    REQUESTS_MAX,
    AppendAccepted,
    AppendRejected,
    AppendRequest,
    DemotionRequest,
    Entry,
    Forward,
    ForwardAnswer,
    ForwardOutcome,
    PeerMessage,
    SnapshotChunk,
    SnapshotReceived,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from noti.raft.core.records import ENTRY_DATA_BYTES_MAX, decode_entry
from noti.raft.core.validate import find_invalid
from noti.raft.ports import Hello

FORMAT_VERSION: Final = 3
"""Of all that is in a frame, said in the hello of a node whose cluster is above level 0. Nodes of
another version are rejected at their first frame."""

LEVEL_0_VERSION: Final = 2
"""In the hello at level 0. Releases that know no levels take only this one, and skip fields of the
frame that they do not know, where the levels are."""

_VERSIONS: Final = (LEVEL_0_VERSION, FORMAT_VERSION)

_LEVEL_MAX: Final = 2**16
"""Each release adds one level at most."""

FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
"""Longest frame sent or accepted. Four times gRPC's customary 4 MiB, so that one entry made of a
whole batch of large events fits; small enough that a stranger cannot make a node hold much."""

NAME_CHARACTERS_MAX: Final = 256
"""Longest cluster id, node id or name accepted; real ones have at most 63 (a DNS label)."""

REASON_CHARACTERS_MAX: Final = 1024
"""What is taken of a reason for a rejection; the longest of ours has 300, and two names."""

_OVERHEAD_BYTES: Final = 16
"""More than a frame takes beside its messages."""

_ITEMS_MAX: Final = FRAME_BYTES_MAX // ENTRY_HEAD_BYTES
"""Longest list: of the smallest entries that fit a frame."""

_DATA: Final = 1
_LEVEL: Final = 2
_SUPPORTS: Final = 3
_REJECTED_BECAUSE: Final = 4
_FRAME_KEYS: Final = length_keys(_DATA)
_HELLO_NUMBERS: Final = number_keys(_LEVEL, _SUPPORTS)
_REJECTION_KEYS: Final = length_keys(_REJECTED_BECAUSE)
"""The fields of `noti.v1.Frame`; only the first one has more than the first of them."""

_KINDS: Final[dict[int, tuple[type[PeerMessage], tuple[type, ...]]]] = {
    1: (VoteRequest, (str, int, int, int, bool, bool)),
    2: (VoteResponse, (str, int, bool, bool)),
    3: (AppendRequest, (str, int, int, int, int, list, int, int)),
    4: (AppendAccepted, (str, int, int, int, int)),
    5: (AppendRejected, (str, int, int, int, int, int, int)),
    6: (SnapshotChunk, (str, int, int, int, bytes, int, bytes, int)),
    7: (TimeoutNow, (str, int)),
    8: (Forward, (str, int, list, list)),
    9: (ForwardAnswer, (str, int, list)),
    10: (DemotionRequest, (str, int)),
    11: (SnapshotReceived, (str, int, int, int)),
}
"""Kind -> class, and the types of its fields on the wire."""

_WRITERS: Final = {
    message_class: (kind, attrgetter(*message_class.__match_args__))
    for kind, (message_class, _) in _KINDS.items()
}
"""Class -> kind, and what takes its fields."""


NO_HELLO: Final = (
    "the stream does not begin with a hello of this release: "
    "run the same release on all nodes of the cluster"
)
"""Nodes of 0.1 speak protobuf, whose bytes name no version."""


def encode_hello(hello: Hello) -> bytes:
    """Return the first frame of a stream."""
    version = FORMAT_VERSION if hello.level else LEVEL_0_VERSION
    identity = _pack((version, hello.cluster_id, hello.node_id, hello.name))
    levels = number_field(_LEVEL, hello.level) + number_field(_SUPPORTS, hello.supports)
    return length_field(_DATA, identity) + levels


def decode_hello(data: bytes) -> Hello:
    """Return the hello in a stream's first frame.

    Raises `ClusterMismatch` for a node that speaks another version, else `MessageInvalid`.
    """
    try:
        hello = _unpack(data)
    except MessageInvalid as error:
        raise MessageInvalid(f"{NO_HELLO} ({error})") from None
    match hello:
        case [version, *_] if type(version) is int and version not in _VERSIONS:
            raise ClusterMismatch(
                f"a node that speaks version {version} of noti's frames met one that speaks "
                f"versions {LEVEL_0_VERSION} and {FORMAT_VERSION}: run the same release on all "
                "nodes of the cluster"
            )
        case [version, str(cluster_id), str(node_id), str(name)] if type(version) is int:
            if not node_id:
                raise MessageInvalid("the hello has no node id")
            longest = max(len(cluster_id), len(node_id), len(name))
            if longest > NAME_CHARACTERS_MAX:
                raise MessageInvalid(f"the hello has a name of {longest} characters")
            return Hello(cluster_id, node_id, name, *_levels(data))
        case _:
            raise MessageInvalid(NO_HELLO)


def encode_rejection(reason: str) -> bytes:
    """Return the answer to a hello that is rejected, on a connection without gRPC."""
    return length_field(_REJECTED_BECAUSE, reason.encode("utf-8", "replace"))


def decode_answer(data: bytes) -> Hello:
    """Return the hello in the first frame of the side that was dialed.

    Raises what `decode_hello` raises, and `ClusterMismatch` with the reason of a rejection.
    """
    reasons = scan(data, _REJECTION_KEYS)
    if reasons:
        reason = reasons[0][1][: 4 * REASON_CHARACTERS_MAX].decode("utf-8", "replace")
        raise ClusterMismatch(reason[:REASON_CHARACTERS_MAX] or "the peer rejected the stream")
    return decode_hello(data)


def _levels(frame: bytes) -> tuple[int, int]:
    """Return the level of a hello's cluster, and what the node supports."""
    found = {_LEVEL: 0, _SUPPORTS: 0}
    for number, value in scan(frame, {}, _HELLO_NUMBERS):
        found[number] = number_in(value)
    level, supports = found[_LEVEL], found[_SUPPORTS]
    if not level <= supports <= _LEVEL_MAX:
        raise MessageInvalid("the hello has a level that no node can have")
    return level, supports


def encode_messages(messages: Sequence[PeerMessage]) -> Iterator[bytes]:
    """Return `messages` as few frames of at most `FRAME_BYTES_MAX`, in order.

    Raises `LocalError` for a single message that does not fit: what cuts entries and snapshots
    into messages has to respect the limit.
    """
    group: list[bytes] = []
    group_bytes = _OVERHEAD_BYTES
    for message in messages:
        kind, fields_of = _WRITERS[type(message)]
        encoded = _pack((kind, *fields_of(message)))
        if len(encoded) + _OVERHEAD_BYTES > FRAME_BYTES_MAX:
            raise LocalError(
                f"a {type(message).__name__} of {len(encoded)} bytes exceeds {FRAME_BYTES_MAX}"
            )
        if group_bytes + len(encoded) > FRAME_BYTES_MAX:
            yield _list_frame(group)
            group, group_bytes = [], _OVERHEAD_BYTES
        group.append(encoded)
        group_bytes += len(encoded)
    if group:
        yield _list_frame(group)


def decode_messages(data: bytes) -> list[PeerMessage]:
    """Return the messages of one frame; raises `MessageInvalid`."""
    messages = _unpack(data)
    if type(messages) is not list:
        raise MessageInvalid("a frame after the hello is not a list of messages")
    return [_decode(fields) for fields in messages]


def _decode(message: object) -> PeerMessage:
    if type(message) is not list or not message or type(message[0]) is not int:
        raise MessageInvalid("a message that does not begin with its kind")
    kind, *fields = message
    if kind not in _KINDS:
        raise MessageInvalid(f"a message of kind {kind}, which this version does not know")
    message_class, types = _KINDS[kind]
    if tuple(map(type, fields)) != types:
        raise MessageInvalid(f"a {message_class.__name__} with wrong fields")
    if not 0 < len(fields[0]) <= NAME_CHARACTERS_MAX:
        raise MessageInvalid("a message without a proper sender")
    if message_class is AppendRequest:
        fields[5] = _entries(fields[5])
    elif message_class is Forward:
        if len(fields[2]) + len(fields[3]) > REQUESTS_MAX:
            raise MessageInvalid(f"a Forward of more than {REQUESTS_MAX} requests")
        fields[2] = tuple([_row(pair, (int, bytes)) for pair in fields[2]])
        fields[3] = _row(fields[3], (int,) * len(fields[3]))
    elif message_class is ForwardAnswer:
        fields[2] = tuple([_outcome(triple) for triple in fields[2]])
    found = message_class(*fields)
    reason = _invalid(found)
    if reason is not None:
        raise MessageInvalid(reason)
    return found


def _entries(records: list[Any]) -> tuple[Entry, ...]:
    if not {*map(type, records)} <= {bytes}:
        raise MessageInvalid("an entry that is not bytes")
    return tuple([decode_entry(record) for record in records])


def _row(values: Any, types: tuple[type, ...]) -> tuple[Any, ...]:
    """Return one element of a list in a message."""
    if type(values) is not list or tuple(map(type, values)) != types:
        raise MessageInvalid("a list in a message with wrong fields")
    if not all(0 <= value <= INDEX_MAX for value in values if type(value) is int):
        raise MessageInvalid("a number in a message out of bounds")
    return tuple(values)


def _outcome(triple: Any) -> tuple[int, ForwardOutcome, int]:
    number, outcome, index = _row(triple, (int, int, int))
    try:
        return number, ForwardOutcome(outcome), index
    except ValueError:
        raise MessageInvalid(f"an outcome {outcome}, which this version does not know") from None


def _invalid(message: PeerMessage) -> str | None:
    """Return why no honest peer sends this message; None when one may."""
    match message:
        case Forward() | ForwardAnswer() | DemotionRequest():
            if not 0 <= message.term <= INDEX_MAX:
                return "a number that is no term"
            proposals = message.proposals if isinstance(message, Forward) else ()
            longest = max((len(command) for _, command in proposals), default=0)
            return f"a command of {longest} bytes" if longest > ENTRY_DATA_BYTES_MAX else None
        case AppendAccepted() | AppendRejected() if not 0 <= message.backlog <= BACKLOG_MAX:
            return f"a backlog of {message.backlog}"
        case _:
            return find_invalid(message)


def _pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, default=_record_of)
    return packed


def _record_of(entry: Entry) -> bytes:
    return entry.record


def _list_frame(messages: Sequence[bytes]) -> bytes:
    head: bytes = msgpack.Packer().pack_array_header(len(messages))
    return length_field(_DATA, head + b"".join(messages))


def _unpack(frame: bytes) -> object:
    """Return what a frame holds; raises `MessageInvalid` unless it is exactly one value."""
    fields = scan(frame, _FRAME_KEYS)
    if len(fields) != 1:
        raise MessageInvalid("a frame without its one field")
    try:
        value: object = msgpack.unpackb(
            fields[0][1], max_array_len=_ITEMS_MAX, max_map_len=0, max_ext_len=0
        )
    except (ValueError, RecursionError) as error:
        # Every error of msgpack about its input is a ValueError (also UnicodeDecodeError).
        raise MessageInvalid(f"a frame that is not msgpack: {error}") from None
    return value
