"""memberlist's dialect of msgpack, in packets, streams and Serf's messages alike.

Enters: maps, or bytes from anywhere. Leaves: bytes, or fields that are checked one by one.
Never: I/O; any exception but `MessageInvalid` for bytes from outside.

The dialect: structs are maps keyed by Go field names; strings and bytes are both "raw" of the old
msgpack specification (never str8 or bin); addresses are 4 or 16 raw bytes. Unknown keys are
skipped, missing ones are zero.
"""

import ipaddress
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any

import msgpack

from noti.errors import MessageInvalid
from noti.swim.core.messages import INCARNATION_MAX, META_BYTES_MAX, VERSIONS_UNKNOWN, Address

NAME_CHARACTERS_MAX = 128
"""Serf's limit on node names."""

_CONTAINER_ITEMS_MAX = 1024
"""msgpack allocates an array when it reads its length, and arrays nest; messages have few items."""

_ADDRESSES_CACHED_MAX = 1024
"""Nearly every message has an address, and a cluster has few."""

UNPACK_ERRORS = (ValueError, TypeError, OverflowError, msgpack.UnpackException)
"""What msgpack raises for bytes that are not what they should be."""


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


def pack(kind: MessageType, fields: Mapping[str, object]) -> bytes:
    """Return a message: its type and its map. Go sends keys in alphabetical order, so do we."""
    body: bytes = msgpack.packb(fields, use_bin_type=False)
    return bytes([kind]) + body


def new_unpacker(bytes_max: int, items_max: int = _CONTAINER_ITEMS_MAX) -> msgpack.Unpacker:
    """Return what unpacks up to `bytes_max` bytes, with so many items in each container at most."""
    return msgpack.Unpacker(max_buffer_size=bytes_max, **_options(items_max))


def _options(items_max: int) -> dict[str, Any]:
    """Return how all messages are unpacked."""
    return {
        "raw": True,
        "strict_map_key": False,
        "max_array_len": items_max,
        "max_map_len": items_max,
    }


def unpack(data: bytes, items_max: int = _CONTAINER_ITEMS_MAX) -> dict[object, object]:
    """Return the map at the start of `data`, as Go does; raises `MessageInvalid`."""
    return unpack_prefix(data, items_max)[0]


def unpack_prefix(
    data: bytes, items_max: int = _CONTAINER_ITEMS_MAX
) -> tuple[dict[object, object], bytes]:
    """Return the map at the start of `data`, and what follows it; raises `MessageInvalid`."""
    rest = b""
    try:
        value = msgpack.unpackb(data, **_options(items_max))
    except msgpack.ExtraData as found:
        value, rest = found.args
    except UNPACK_ERRORS as error:
        raise MessageInvalid("a body that is not msgpack") from error
    if not isinstance(value, dict):
        raise MessageInvalid("a body that is not a map")
    return value, rest


@lru_cache(_ADDRESSES_CACHED_MAX)
def pack_ip(host: str) -> bytes:
    """Return an IP address as its 4 or 16 bytes."""
    return ipaddress.ip_address(host).packed


@lru_cache(_ADDRESSES_CACHED_MAX)
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
        return None if value is None else raw_of(value)

    def text(self, key: str) -> str:
        """Return printable text of a name's length at most; missing means empty."""
        text = text_of(self.raw(key) or b"")
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
        versions = raw_of(value) if value is not None else b""
        if not versions:
            return VERSIONS_UNKNOWN
        if len(versions) != len(VERSIONS_UNKNOWN):
            raise MessageInvalid("field Vsn is not a version vector")
        return versions


def raw_of(value: object) -> bytes:
    """Return a decoded value that must be text or bytes; raises `MessageInvalid`."""
    if not isinstance(value, bytes):
        raise MessageInvalid("something other than text or bytes in their place")
    return value


def text_of(value: bytes) -> str:
    """Return text that must be UTF-8; raises `MessageInvalid`."""
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MessageInvalid("text that is not UTF-8") from error
