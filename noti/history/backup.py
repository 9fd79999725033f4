"""Backups: the whole replicated state in one file, and what a new cluster takes out of it.

Enters: a state and who holds it; the content of a file. Leaves: what to write, in order; the state,
or what is invalid in the file; the state of a new cluster.
Never: I/O; trust in a length or a number that was read.

The file: a line of JSON that says what it holds, for people; then pieces, each as `size u32 | crc
u32 | piece`, and the end, `0 u32 | crc u32 | bytes in all pieces u64`. Each CRC goes on from the
one before, and the first one from that of the line: no piece can be missing or of another file.

Events after a backup are lost with the old cluster, and the new one gives their numbers to others.
A reader who has seen the lost ones would take the new ones for read. So all numbers of a new
cluster are beyond what the old one can have reached: such a reader is told of a gap. Who resumes by
the id of an event that is in the backup, as browsers do, goes on where it was.
"""

import json
import struct
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Any, Final

from noti.errors import MessageInvalid
from noti.history.retention import Kept, Retention, TrackedTopic
from noti.history.snapshot import SnapshotReader, StoreParts

VERSION: Final = 1
"""Version of the layout."""

NUMBERS_SKIPPED: Final = 2**32
"""A year of 136 events a second: more than anybody publishes between a backup and its use."""

PIECE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Longer pieces than any state has."""

_HEAD_BYTES_MAX: Final = 4096
_PIECE: Final = struct.Struct("<II")
_TOTAL: Final = struct.Struct("<Q")


def encode_backup(about: dict[str, object], pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield a backup; `about` says for people what is in it, and must be short."""
    head = json.dumps({"noti_backup": VERSION, **about}).encode() + b"\n"
    assert len(head) <= _HEAD_BYTES_MAX
    yield head
    checksum, total = zlib.crc32(head), 0
    for piece in pieces:
        checksum = zlib.crc32(piece, checksum)
        total += len(piece)
        yield _PIECE.pack(len(piece), checksum)
        yield piece
    end = _TOTAL.pack(total)
    yield _PIECE.pack(0, zlib.crc32(end, checksum)) + end


class BackupReader:
    """Reads a backup that comes in pieces of any size."""

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}
        """What the file says of itself, once its first line is read."""
        self._state = SnapshotReader()
        self._data = bytearray()
        self._checksum = self._total = 0
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Take what follows; raises `MessageInvalid`."""
        self._data += data
        if not self.about and not self._read_head():
            return
        while self._read_piece():
            pass

    def finish(self) -> StoreParts:
        """Return the state; raises `MessageInvalid` when anything is missing."""
        if not self._ended or self._data:
            raise MessageInvalid("the backup is cut off, or goes on behind its end")
        return self._state.finish()

    def _read_head(self) -> bool:
        end = self._data.find(b"\n", 0, _HEAD_BYTES_MAX)
        if end < 0 and len(self._data) < _HEAD_BYTES_MAX:
            return False
        head = bytes(self._data[: end + 1])
        try:
            match json.loads(head):
                case {"noti_backup": int(version)} as about:
                    pass
                case _:
                    raise ValueError
        except (ValueError, RecursionError):
            raise MessageInvalid("this is not a backup of noti") from None
        if version != VERSION:
            raise MessageInvalid(f"backup format {version}; this program reads {VERSION}")
        self.about = about
        self._checksum = zlib.crc32(head)
        del self._data[: end + 1]
        return True

    def _read_piece(self) -> bool:
        """Take one piece, or the end, if it is there."""
        if self._ended or len(self._data) < _PIECE.size:
            return False
        size, stated = _PIECE.unpack_from(self._data)
        if size > PIECE_BYTES_MAX:
            raise MessageInvalid("a piece of the backup is longer than any is")
        whole = _PIECE.size + (size or _TOTAL.size)
        if len(self._data) < whole:
            return False
        piece = bytes(self._data[_PIECE.size : whole])
        del self._data[:whole]
        self._checksum = zlib.crc32(piece, self._checksum)
        if self._checksum != stated:
            raise MessageInvalid("the backup fails its checksum")
        self._ended = size == 0
        if self._ended:
            if _TOTAL.unpack(piece) != (self._total,):
                raise MessageInvalid("the backup does not have the size that it says")
            return False
        self._total += size
        self._state.feed(piece)
        return True


def state_of_new_cluster(parts: StoreParts) -> StoreParts:
    """Return what a new cluster begins with: all but who was subscribed, and with new numbers."""
    old = parts.retention
    return StoreParts(
        floors=parts.floors,
        retention=Retention(
            limits=old.limits,
            last_seq=old.last_seq + NUMBERS_SKIPPED,
            window=deque(map(_renumbered, old.window)),
            sparse=OrderedDict(
                (seq + NUMBERS_SKIPPED, _renumbered(kept)) for seq, kept in old.sparse.items()
            ),
            topics=OrderedDict(
                (
                    name,
                    TrackedTopic(
                        one.lost_through + NUMBERS_SKIPPED,
                        deque(seq + NUMBERS_SKIPPED for seq in one.seqs),
                    ),
                )
                for name, one in old.topics.items()
            ),
            size_bytes=old.size_bytes,
            sparse_bytes=old.sparse_bytes,
            lost_through=old.lost_through + NUMBERS_SKIPPED,
            untracked_lost_through=old.untracked_lost_through + NUMBERS_SKIPPED,
            told=old.told,
            protecting={seq + NUMBERS_SKIPPED: count for seq, count in old.protecting.items()},
        ),
        keys=parts.keys,
        revocations=parts.revocations,
        level=parts.level,
    )


def _renumbered(kept: Kept) -> Kept:
    notification = kept.notification
    return Kept(notification._replace(seq=notification.seq + NUMBERS_SKIPPED), kept.taken_ms)
