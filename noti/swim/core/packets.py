"""Turns SWIM messages into packets and back, in memberlist's dialect of msgpack.

Enters: messages, or bytes from anywhere. Leaves: bytes, or messages with every field checked.
Never: I/O; any exception but `MessageInvalid` for bytes from outside.

We send neither CRC nor compression: both are optional for senders. A packet that we receive may
have both around its messages, in this order; within a compound neither is valid.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import msgpack

from noti.errors import ConfigInvalid, MessageInvalid
from noti.swim.core.encoding import (
    MessageFields,
    MessageType,
    pack,
    pack_ip,
    raw_of,
    text_of,
    unpack,
)
from noti.swim.core.lzw import expand
from noti.swim.core.messages import (
    META_BYTES_MAX,
    Ack,
    Address,
    Alive,
    Dead,
    IndirectPing,
    Message,
    Nack,
    Ping,
    Suspect,
    User,
)

COMPOUND_PARTS_MAX = 255
"""The part count of a compound packet is one byte."""

COMPOUND_OVERHEAD_BYTES = 2
"""Type and part count of a compound packet; its parts cost as much again, for their length."""

COMPRESSED_BYTES_MAX = 4 * 1024
"""Compressed bytes in a packet: some times what agents fill one with, or answer a query with.
Expanding so many takes 2 ms, and anybody can send them."""

EXPANDED_BYTES_MAX = 64 * 1024
"""What a compressed packet may stand for: as much as an uncompressed one may have."""

_NESTING_MAX = 4
"""Compounds within compounds are valid and pointless; deeper than this it is an attack."""

_LZW = 0
"""The only way to compress."""

_TAGS_MAGIC = b"\xff"


@dataclass(frozen=True, slots=True)
class Packet:
    """A decoded packet."""

    messages: tuple[Message, ...]
    invalid_parts: int
    """Number of parts of a compound that were cut off or did not decode; the others count."""


def encode(message: Message) -> bytes:
    """Return one message with its type byte."""
    match message:
        case Ping(sequence, target, source, source_name):
            fields: dict[str, object] = {"Node": target, "SeqNo": sequence}
            return pack(MessageType.PING, fields | _source_fields(source, source_name))
        case IndirectPing(sequence, target, (host, port), wants_nack, source, source_name):
            fields = {"Nack": wants_nack, "Node": target, "Port": port, "SeqNo": sequence}
            fields |= _source_fields(source, source_name)
            return pack(MessageType.INDIRECT_PING, fields | {"Target": pack_ip(host)})
        case Ack(sequence, payload):
            return pack(MessageType.ACK, {"Payload": payload, "SeqNo": sequence})
        case Nack(sequence):
            return pack(MessageType.NACK, {"SeqNo": sequence})
        case Alive(incarnation, node, (host, port), meta, versions):
            fields = {"Addr": pack_ip(host), "Incarnation": incarnation, "Meta": meta}
            return pack(MessageType.ALIVE, fields | {"Node": node, "Port": port, "Vsn": versions})
        case Suspect(incarnation, node, accuser):
            fields = {"From": accuser, "Incarnation": incarnation, "Node": node}
            return pack(MessageType.SUSPECT, fields)
        case Dead(incarnation, node, accuser):
            fields = {"From": accuser, "Incarnation": incarnation, "Node": node}
            return pack(MessageType.DEAD, fields)
        case User(payload):
            return bytes([MessageType.USER]) + payload
    assert_never(message)


def encode_packet(parts: Sequence[bytes]) -> bytes:
    """Return one packet of 1 to `COMPOUND_PARTS_MAX` encoded messages."""
    assert 1 <= len(parts) <= COMPOUND_PARTS_MAX
    if len(parts) == 1:
        return parts[0]
    lengths = b"".join(len(part).to_bytes(2, "big") for part in parts)
    return bytes([MessageType.COMPOUND, len(parts)]) + lengths + b"".join(parts)


def decode_packet(data: bytes) -> Packet:
    """Return what a UDP packet says; raises `MessageInvalid`.

    A compound of which some parts are invalid still yields the valid ones.
    """
    if data[:1] == bytes([MessageType.HAS_CRC]):
        if len(data) < 5 or zlib.crc32(data[5:]) != int.from_bytes(data[1:5], "big"):
            raise MessageInvalid("packet with a wrong checksum")
        data = data[5:]
    if data[:1] == bytes([MessageType.COMPRESS]):
        compressed = compressed_in(MessageFields(unpack(data[1:])))
        if len(compressed) > COMPRESSED_BYTES_MAX:
            raise MessageInvalid(f"packet with {len(compressed)} compressed bytes")
        data = expand(compressed, EXPANDED_BYTES_MAX)
    return _decode_parts(data, _NESTING_MAX)


def _decode_parts(data: bytes, nesting_left: int) -> Packet:
    if data[:1] != bytes([MessageType.COMPOUND]):
        return Packet((_decode_message(data),), 0)
    if nesting_left == 0:
        raise MessageInvalid("compound packet nested too deep")
    if len(data) < 2 or len(data) < COMPOUND_OVERHEAD_BYTES + 2 * data[1]:
        raise MessageInvalid("compound packet cut off in its table of lengths")
    count = data[1]
    messages: list[Message] = []
    invalid_parts = 0
    start = COMPOUND_OVERHEAD_BYTES + 2 * count
    for index in range(count):
        end = start + int.from_bytes(data[2 + 2 * index : 4 + 2 * index], "big")
        if end > len(data):
            invalid_parts += count - index
            break
        try:
            part = _decode_parts(data[start:end], nesting_left - 1)
        except MessageInvalid:
            invalid_parts += 1
        else:
            messages += part.messages
            invalid_parts += part.invalid_parts
        start = end
    return Packet(tuple(messages), invalid_parts)


def _decode_message(data: bytes) -> Message:
    """Return one message that starts with its type byte."""
    if not data:
        raise MessageInvalid("empty packet")
    body = data[1:]
    match data[0]:
        case MessageType.PING:
            return ping_of(MessageFields(unpack(body)))
        case MessageType.INDIRECT_PING:
            fields = MessageFields(unpack(body))
            return IndirectPing(
                sequence=fields.number("SeqNo"),
                target=fields.name("Node"),
                address=fields.address("Target", "Port"),
                wants_nack=fields.flag("Nack"),
                source=fields.source(),
                source_name=fields.text("SourceNode"),
            )
        case MessageType.ACK:
            return ack_of(MessageFields(unpack(body)))
        case MessageType.NACK:
            return Nack(MessageFields(unpack(body)).number("SeqNo"))
        case MessageType.ALIVE:
            fields = MessageFields(unpack(body))
            return Alive(
                incarnation=fields.number("Incarnation"),
                node=fields.name("Node"),
                address=fields.address("Addr", "Port"),
                meta=fields.meta(),
                versions=fields.versions(),
            )
        case MessageType.SUSPECT:
            fields = MessageFields(unpack(body))
            return Suspect(fields.number("Incarnation"), fields.name("Node"), fields.text("From"))
        case MessageType.DEAD:
            fields = MessageFields(unpack(body))
            return Dead(fields.number("Incarnation"), fields.name("Node"), fields.text("From"))
        case MessageType.USER:
            return User(body)
        case kind:
            raise MessageInvalid(f"packet of type {kind}, which we do not know or do not accept")


def compressed_in(fields: MessageFields) -> bytes:
    """Return the bytes that a decoded map has compressed, in the one way that there is."""
    if fields.number("Algo") != _LZW:
        raise MessageInvalid("compressed in a way that we do not know")
    return fields.raw("Buf") or b""


def ping_of(fields: MessageFields) -> Ping:
    """Return the ping in a decoded map."""
    sequence = fields.number("SeqNo")
    return Ping(sequence, fields.text("Node"), fields.source(), fields.text("SourceNode"))


def ack_of(fields: MessageFields) -> Ack:
    """Return the ack in a decoded map."""
    return Ack(fields.number("SeqNo"), fields.raw("Payload"))


def encode_tags(tags: Mapping[str, str]) -> bytes:
    """Return a node's metadata; raises `ConfigInvalid` when it is longer than `META_BYTES_MAX`."""
    body: bytes = msgpack.packb(dict(sorted(tags.items())), use_bin_type=False)
    if len(body) + 1 > META_BYTES_MAX:
        raise ConfigInvalid(
            f"the node's tags take {len(body) + 1} bytes and gossip allows {META_BYTES_MAX}: "
            "use shorter addresses or names"
        )
    return _TAGS_MAGIC + body


def decode_tags(meta: bytes) -> dict[str, str]:
    """Return a node's tags; text that is no map is the old `role`. Raises `MessageInvalid`."""
    if not meta.startswith(_TAGS_MAGIC):
        return {"role": text_of(meta)}
    tags = unpack(meta[1:])
    return {text_of(raw_of(key)): text_of(raw_of(value)) for key, value in tags.items()}


def _source_fields(source: Address | None, source_name: str) -> dict[str, object]:
    if source is None:
        return {}
    host, port = source
    return {"SourceAddr": pack_ip(host), "SourceNode": source_name, "SourcePort": port}
