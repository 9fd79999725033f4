"""Turns SWIM messages into packets and back, in memberlist's dialect of msgpack.

Enters: messages, or bytes from anywhere. Leaves: bytes, or messages with every field checked.
Never: I/O; any exception but `MessageInvalid` for bytes from outside.

The dialect: structs are maps keyed by Go field names; strings and bytes are both "raw" of the old
msgpack specification (never str8 or bin); addresses are 4 or 16 raw bytes. Unknown keys are
skipped, missing ones are zero. We send neither CRC nor compression: both are optional for senders.
"""

import ipaddress
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import assert_never

import msgpack

from noti.errors import ConfigInvalid, MessageInvalid
from noti.swim.core.messages import (
    INCARNATION_MAX,
    META_BYTES_MAX,
    VERSIONS_UNKNOWN,
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

NAME_CHARACTERS_MAX = 128
"""Serf's limit on node names."""

COMPOUND_PARTS_MAX = 255
"""The part count of a compound packet is one byte."""

COMPOUND_OVERHEAD_BYTES = 2
"""Type and part count of a compound packet; its parts cost as much again, for their length."""

_NESTING_MAX = 4
"""Compounds within compounds are legal and pointless; deeper than this it is an attack."""

_CONTAINER_ITEMS_MAX = 1024
"""msgpack allocates an array when it reads its length, and arrays nest; messages have few items."""

_TAGS_MAGIC = b"\xff"


class MessageType(IntEnum):
    """The first byte of every message."""

    PING = 0
    INDIRECT_PING = 1
    ACK = 2
    SUSPECT = 3
    ALIVE = 4
    DEAD = 5
    PUSH_PULL = 6
    COMPOUND = 7
    USER = 8
    COMPRESS = 9
    ENCRYPT = 10
    NACK = 11
    HAS_CRC = 12
    ERR = 13


@dataclass(frozen=True, slots=True)
class Packet:
    """A decoded packet."""

    messages: tuple[Message, ...]
    broken: int
    """Parts of a compound that were cut off or did not decode; the others count all the same."""


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

    A compound whose parts are partly broken still yields the sound ones.
    """
    if data[:1] == bytes([MessageType.HAS_CRC]):
        if len(data) < 5 or zlib.crc32(data[5:]) != int.from_bytes(data[1:5], "big"):
            raise MessageInvalid("packet with a wrong checksum")
        data = data[5:]
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
    broken = 0
    start = COMPOUND_OVERHEAD_BYTES + 2 * count
    for index in range(count):
        end = start + int.from_bytes(data[2 + 2 * index : 4 + 2 * index], "big")
        if end > len(data):
            broken += count - index
            break
        try:
            part = _decode_parts(data[start:end], nesting_left - 1)
        except MessageInvalid:
            broken += 1
        else:
            messages += part.messages
            broken += part.broken
        start = end
    return Packet(tuple(messages), broken)


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
        case MessageType.COMPRESS:
            raise MessageInvalid("compressed packet: start Serf agents with -disable-compression")
        case kind:
            raise MessageInvalid(f"packet of type {kind}, which we do not know or do not accept")


def ping_of(fields: "MessageFields") -> Ping:
    """Return the ping in a decoded map."""
    sequence = fields.number("SeqNo")
    return Ping(sequence, fields.text("Node"), fields.source(), fields.text("SourceNode"))


def ack_of(fields: "MessageFields") -> Ack:
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
        return {"role": _text(meta)}
    tags = unpack(meta[1:])
    return {_text(_bytes(key)): _text(_bytes(value)) for key, value in tags.items()}


def pack(kind: MessageType, fields: Mapping[str, object]) -> bytes:
    """Return a message: its type and its map. Go sends keys in alphabetical order, so do we."""
    body: bytes = msgpack.packb(fields, use_bin_type=False)
    return bytes([kind]) + body


def unpack(data: bytes, items_max: int = _CONTAINER_ITEMS_MAX) -> dict[object, object]:
    """Return the map at the start of `data`, as Go does; raises `MessageInvalid`."""
    # Not `unpackb`, which refuses what follows the map.
    unpacker = msgpack.Unpacker(
        raw=True,
        strict_map_key=False,
        max_buffer_size=len(data),
        max_array_len=items_max,
        max_map_len=items_max,
    )
    try:
        unpacker.feed(data)
        value = unpacker.unpack()
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise MessageInvalid("a body that is not msgpack") from error
    if not isinstance(value, dict):
        raise MessageInvalid("a body that is not a map")
    return value


def pack_ip(host: str) -> bytes:
    """Return an IP address as its 4 or 16 bytes."""
    return ipaddress.ip_address(host).packed


def unpack_ip(raw: bytes) -> str:
    """Return 4 or 16 bytes as text, the same for an IPv4 address in either form."""
    if len(raw) not in (4, 16):
        raise MessageInvalid(f"an IP address of {len(raw)} bytes")
    address = ipaddress.ip_address(raw)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


class MessageFields:
    """A decoded map, read field by field; each reader raises `MessageInvalid` on a wrong type."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[object, object]) -> None:
        self._fields = fields

    def number(self, key: str, maximum: int = INCARNATION_MAX) -> int:
        """Return a whole number from 0 to `maximum`; missing means 0."""
        value = self._fields.get(key.encode(), 0)
        if not isinstance(value, int) or not 0 <= value <= maximum:
            raise MessageInvalid(f"field {key} is not a number from 0 to {maximum}")
        return int(value)

    def flag(self, key: str) -> bool:
        """Return a truth value; missing means false."""
        value = self._fields.get(key.encode(), False)
        if not isinstance(value, bool):
            raise MessageInvalid(f"field {key} is neither true nor false")
        return value

    def raw(self, key: str) -> bytes | None:
        """Return bytes; None when missing or nil."""
        value = self._fields.get(key.encode())
        return None if value is None else _bytes(value)

    def text(self, key: str) -> str:
        """Return printable text of a name's length at most; missing means empty."""
        text = _text(self.raw(key) or b"")
        if len(text) > NAME_CHARACTERS_MAX or not text.isprintable():
            raise MessageInvalid(f"field {key} is not a name")
        return text

    def name(self, key: str) -> str:
        """Return a node's name, which is not empty."""
        text = self.text(key)
        if not text:
            raise MessageInvalid(f"field {key} is missing")
        return text

    def address(self, ip_key: str, port_key: str) -> Address:
        """Return an address that can be sent to."""
        port = self.number(port_key, 65535)
        if port == 0:
            raise MessageInvalid(f"field {port_key} is missing")
        return unpack_ip(self.raw(ip_key) or b""), port

    def source(self) -> Address | None:
        """Return where the sender of a ping wants its answer, if it says so."""
        if not self.raw("SourceAddr"):
            return None
        return self.address("SourceAddr", "SourcePort")

    def meta(self) -> bytes:
        """Return a node's metadata."""
        meta = self.raw("Meta") or b""
        if len(meta) > META_BYTES_MAX:
            raise MessageInvalid(f"metadata of {len(meta)} bytes, more than {META_BYTES_MAX}")
        return meta

    def versions(self) -> bytes:
        """Return the version vector, six bytes, from a byte string or an array of small numbers."""
        value = self._fields.get(b"Vsn")
        if isinstance(value, list):
            if not all(isinstance(item, int) and 0 <= item <= 255 for item in value):
                raise MessageInvalid("field Vsn is not a version vector")
            value = bytes(value)
        versions = _bytes(value) if value is not None else b""
        if not versions:
            return VERSIONS_UNKNOWN
        if len(versions) != len(VERSIONS_UNKNOWN):
            raise MessageInvalid("field Vsn is not a version vector")
        return versions


def _source_fields(source: Address | None, source_name: str) -> dict[str, object]:
    if source is None:
        return {}
    host, port = source
    return {"SourceAddr": pack_ip(host), "SourceNode": source_name, "SourcePort": port}


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise MessageInvalid("something other than text or bytes in their place")
    return value


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MessageInvalid("text that is not UTF-8") from error
