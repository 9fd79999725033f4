"""Lays a snapshot out in its file, piece by piece.

Enters: a snapshot; the content of a file. Leaves: what to write, in order; the snapshot, or what is
invalid in the file. Never: I/O; trust in a length or a number that was read.

The file: `"nSNP" | crc u32 | version u16 | index u64 | term u64 | size of configuration u32 |
configuration`, where the CRC covers what comes after it; then each piece as `size u32 | crc u32 |
piece`, and the end, `0 u32 | crc u32 | bytes in all pieces u64`. Each of these CRCs goes on from
the one before, so that no piece can be missing, or be another snapshot's. Version 1 had no pieces:
`size of state u64` followed the size of the configuration, and one CRC covered all.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final

from noti.errors import MessageInvalid
from noti.raft.core.messages import INDEX_MAX, Snapshot
from noti.raft.core.snapshot import split

SNAPSHOT_VERSION: Final = 2
"""Version of the layout; a reader takes this one and the one before."""

_MAGIC: Final = b"nSNP"
_START: Final = struct.Struct("<4sIHQQI")
_CHECKED_FROM: Final = 8
"""The first CRC covers everything after the magic and itself."""
_WHOLE_SIZE: Final = struct.Struct("<Q")
"""What version 1 has after the start: size of the state."""
_PIECE: Final = struct.Struct("<II")


def encode_snapshot(snapshot: Snapshot) -> Iterator[bytes]:
    """Yield the content of a snapshot's file, a part for each piece that is not empty."""
    head = snapshot.index, snapshot.term, len(snapshot.configuration)
    start = _START.pack(_MAGIC, 0, SNAPSHOT_VERSION, *head)[_CHECKED_FROM:]
    checksum = zlib.crc32(snapshot.configuration, zlib.crc32(start))
    yield b"".join((_MAGIC, checksum.to_bytes(4, "little"), start, snapshot.configuration))
    for piece in snapshot.pieces:
        if piece:
            checksum = zlib.crc32(piece, checksum)
            yield b"".join((_PIECE.pack(len(piece), checksum), piece))
    total = _WHOLE_SIZE.pack(snapshot.size_bytes)
    yield _PIECE.pack(0, zlib.crc32(total, checksum)) + total


def decode_snapshot(content: bytes) -> Snapshot:
    """Return the snapshot in a file's content.

    Raises `MessageInvalid` when anything about it is wrong.
    """
    if len(content) < _START.size:
        raise MessageInvalid("the snapshot is cut off")
    magic, checksum, version, index, term, configuration_size = _START.unpack_from(content)
    if magic != _MAGIC:
        raise MessageInvalid("this is not a snapshot")
    if version not in (1, SNAPSHOT_VERSION):
        raise MessageInvalid(
            f"snapshot format {version}; this program reads 1 and {SNAPSHOT_VERSION}"
        )
    if index > INDEX_MAX or term > INDEX_MAX:
        raise MessageInvalid(f"index {index}, term {term} is beyond anything a log reaches")
    if version == 1:
        configuration, pieces = _decode_whole(content, checksum, configuration_size)
        return Snapshot(index, term, configuration, pieces)
    end = _START.size + configuration_size
    _check(zlib.crc32(memoryview(content)[_CHECKED_FROM:end]), checksum)
    pieces = tuple(_decode_pieces(content, end, checksum)) or (b"",)
    return Snapshot(index, term, content[_START.size : end], pieces)


def _decode_pieces(content: bytes, offset: int, checksum: int) -> Iterator[bytes]:
    total = 0
    while True:
        if offset + _PIECE.size > len(content):
            raise MessageInvalid("the snapshot is cut off")
        size, stated = _PIECE.unpack_from(content, offset)
        begin = offset + _PIECE.size
        if size == 0:
            if begin + _WHOLE_SIZE.size != len(content):
                raise MessageInvalid("the snapshot does not have the size that it says")
            _check(zlib.crc32(memoryview(content)[begin:], checksum), stated)
            if _WHOLE_SIZE.unpack_from(content, begin) != (total,):
                raise MessageInvalid("the snapshot does not have the size that it says")
            return
        offset = begin + size
        if offset > len(content):
            raise MessageInvalid("the snapshot is cut off")
        piece = content[begin:offset]
        checksum = zlib.crc32(piece, checksum)
        _check(checksum, stated)
        total += size
        yield piece


def _decode_whole(
    content: bytes, checksum: int, configuration_size: int
) -> tuple[bytes, tuple[bytes, ...]]:
    """Return configuration and state of a file of version 1."""
    begin = _START.size + _WHOLE_SIZE.size
    if len(content) < begin:
        raise MessageInvalid("the snapshot is cut off")
    _check(zlib.crc32(memoryview(content)[_CHECKED_FROM:]), checksum)
    (size,) = _WHOLE_SIZE.unpack_from(content, _START.size)
    state_from = begin + configuration_size
    if len(content) != state_from + size:
        raise MessageInvalid("the snapshot does not have the size that it says")
    return content[begin:state_from], split(content[state_from:])


def _check(found: int, stated: int) -> None:
    if found != stated:
        raise MessageInvalid("the snapshot fails its checksum")
