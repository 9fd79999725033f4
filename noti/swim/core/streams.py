"""Turns the message of a TCP connection into bytes and back, as far as it has arrived.

Enters: messages, or bytes in pieces of any size. Leaves: bytes, or one complete message.
Never: I/O; any exception but `MessageInvalid` for bytes from outside.

A stream carries one message in each direction, without a length in front: the reader must parse to
find the end, and neither side closes its half before it has the answer. What may be around it is
`stream_layers`.
"""

from collections.abc import Generator
from typing import assert_never

import msgpack

from noti.errors import MessageInvalid
from noti.swim.core.encoding import (
    UNPACK_ERRORS,
    MessageFields,
    MessageType,
    new_unpacker,
    pack,
    pack_ip,
)
from noti.swim.core.messages import (
    Ack,
    Failure,
    MemberState,
    Ping,
    PushPull,
    RemoteNode,
    StreamMessage,
    User,
)
from noti.swim.core.packets import ack_of, encode, ping_of

NODES_MAX = 4096
"""Nodes in a state: some times what a node remembers (`members_max`); memberlist takes 2**20."""

STREAM_BYTES_MAX = 8 * 1024 * 1024
"""The limit on a whole stream. So many nodes with all the metadata that they may have, and Serf's
512 latest events, fit; memberlist takes 20 MiB of user state alone."""

_REASON_CHARACTERS_MAX = 200
"""Of the other side's reason to reject what we sent, for the log."""


def encode_stream(message: StreamMessage) -> bytes:
    """Return the bytes of one stream message."""
    match message:
        case Ping() | Ack():
            return encode(message)
        case User(payload):
            return pack(MessageType.USER, {"UserMsgLen": len(payload)}) + payload
        case Failure(reason):
            return pack(MessageType.ERR, {"Error": reason})
        case PushPull(join, nodes, user_state):
            header = {"Join": join, "Nodes": len(nodes), "UserStateLen": len(user_state)}
            encoded = [pack(MessageType.PUSH_PULL, header)]
            encoded += [_encode_node(node) for node in nodes]
            return b"".join([*encoded, user_state])
    assert_never(message)


class StreamDecoder:
    """Parses one message out of the pieces of a stream."""

    def __init__(self) -> None:
        # The nodes of a state are maps one after the other, not an array.
        self._unpacker = new_unpacker(STREAM_BYTES_MAX)
        self._received_bytes = 0
        self._parse = self._message()
        next(self._parse)
        self.invalid_records: list[str] = []
        """Why nodes of a state were skipped: one odd name must not keep all others apart."""

    def feed(self, data: bytes) -> StreamMessage | None:
        """Take the next piece; return the message once it is complete. Raises `MessageInvalid`.

        Not to be called again after it returned a message or raised.
        """
        self._received_bytes += len(data)
        if self._received_bytes > STREAM_BYTES_MAX:
            raise MessageInvalid(f"a stream of more than {STREAM_BYTES_MAX} bytes")
        try:
            self._unpacker.feed(data)
            self._parse.send(None)
        except StopIteration as complete:
            message: StreamMessage = complete.value
            return message
        except UNPACK_ERRORS as error:
            raise MessageInvalid("a stream that is not msgpack") from error
        return None

    def _message(self) -> Generator[None, None, StreamMessage]:
        yield
        kind = (yield from self._bytes(1))[0]
        match kind:
            case MessageType.PING:
                return ping_of((yield from self._fields()))
            case MessageType.ACK:
                return ack_of((yield from self._fields()))
            case MessageType.USER:
                header = yield from self._fields()
                size_bytes = header.number("UserMsgLen", STREAM_BYTES_MAX)
                return User((yield from self._bytes(size_bytes)))
            case MessageType.ERR:
                return _failure_of((yield from self._fields()))
            case MessageType.PUSH_PULL:
                return (yield from self._push_pull())
            case _:
                raise MessageInvalid(f"stream of type {kind}, which is not valid here")

    def _push_pull(self) -> Generator[None, None, PushPull]:
        header = yield from self._fields()
        nodes: list[RemoteNode] = []
        for _ in range(header.number("Nodes", NODES_MAX)):
            fields = yield from self._fields()
            try:
                nodes.append(_node_of(fields))
            except MessageInvalid as error:
                self.invalid_records.append(str(error))
        user_state = yield from self._bytes(header.number("UserStateLen", STREAM_BYTES_MAX))
        return PushPull(header.flag("Join"), tuple(nodes), user_state)

    def _fields(self) -> Generator[None, None, MessageFields]:
        while True:
            try:
                value = self._unpacker.unpack()
            except msgpack.OutOfData:
                yield
                continue
            if not isinstance(value, dict):
                raise MessageInvalid("something other than a map in a stream")
            return MessageFields(value)

    def _bytes(self, count: int) -> Generator[None, None, bytes]:
        data = bytearray()
        while True:
            data += self._unpacker.read_bytes(count - len(data))
            if len(data) == count:
                return bytes(data)
            yield


def _encode_node(node: RemoteNode) -> bytes:
    host, port = node.address
    body: bytes = msgpack.packb(
        {
            "Addr": pack_ip(host),
            "Incarnation": node.incarnation,
            "Meta": node.meta,
            "Name": node.name,
            "Port": port,
            "State": int(node.state),
            "Vsn": node.versions,
        },
        use_bin_type=False,
    )
    return body


def _failure_of(fields: MessageFields) -> Failure:
    reason = (fields.raw("Error") or b"").decode(errors="replace")[:_REASON_CHARACTERS_MAX]
    return Failure("".join(each if each.isprintable() else " " for each in reason))


def _node_of(fields: MessageFields) -> RemoteNode:
    return RemoteNode(
        name=fields.name("Name"),
        address=fields.address("Addr", "Port"),
        meta=fields.meta(),
        incarnation=fields.number("Incarnation"),
        state=MemberState(fields.number("State", max(MemberState))),
        versions=fields.versions(),
    )
