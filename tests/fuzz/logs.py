"""Logs and snapshots as files hold them, and what takes wrong ones.

Enters: bytes. Leaves: nothing, or what a decoder let out. Never: sockets, files.
"""

import struct
import zlib
from collections.abc import Sequence

import trio

from noti.errors import (
    StorageCorrupt,
)
from noti.history.backup import BackupReader, encode_backup, state_of_new_cluster
from noti.history.snapshot import pieces_of
from noti.history.store import Store
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import (
    EntryKind,
    HardState,
    Snapshot,
)
from noti.raft.core.records import (
    SegmentStart,
    encode_hard_state,
    encode_segment_start,
    new_entry,
    scan_records,
)
from noti.raft.storage.recovery import SNAPSHOT_NAME, Recovered
from noti.raft.storage.segments import encode_frame, segment_name
from noti.raft.storage.snapshot_file import decode_snapshot, encode_snapshot
from noti.raft.storage.wal import Wal
from tests.history.test_backup import store
from tests.simulation.memory_disk import MemoryDisk

CONFIGURATION = encode_configuration(Configuration("c", ("n1", "n2", "n3"), (), ("n4",)))
ENTRIES = (
    new_entry(11, 3, EntryKind.NOOP, b""),
    new_entry(12, 3, EntryKind.COMMAND, b"\x00payload\xff"),
    new_entry(13, 4, EntryKind.CONFIGURATION, CONFIGURATION),
)
SNAPSHOT = Snapshot(10, 2, CONFIGURATION, (b"sta", b"te"))
BACKUP = b"".join(encode_backup({"node": "n1"}, store().snapshot_pieces()))
SNAPSHOT_FILE = b"".join(encode_snapshot(SNAPSHOT))


def scan(data: bytes) -> None:
    for offset, _ in scan_records(data):
        assert 0 <= offset < len(data)


def read_backup(data: bytes) -> None:
    """In two pieces; what is read can begin a new cluster."""
    reader = BackupReader()
    reader.feed(data[: len(data) // 2])
    reader.feed(data[len(data) // 2 :])
    state = b"".join(pieces_of(state_of_new_cluster(reader.finish())))
    assert Store.decode(state).snapshot() == state


def decode_and_encode_snapshot(data: bytes) -> None:
    assert b"".join(encode_snapshot(decode_snapshot(data))) == data


def sealed_snapshot(data: bytes) -> None:
    """With the first checksum put right, so that what is behind it is reached."""
    end = 30 + int.from_bytes(data[26:30], "little")
    whole = data[8:] if data[8:10] == b"\1\0" else data[8:end]
    decode_snapshot(data[:4] + zlib.crc32(whole).to_bytes(4, "little") + data[8:])


def sealed_record(body: bytes) -> None:
    scan(struct.pack("<II", len(body), zlib.crc32(body)) + body)


START = encode_segment_start(SegmentStart(1, 10, True))
HARD_STATE = encode_hard_state(HardState(3, "n1"))
RECORDS = b"".join(entry.record for entry in ENTRIES)
LOG_RECORDS = [START + HARD_STATE, RECORDS, encode_hard_state(HardState(5, None))]
RECORD_BODIES = [record[8:] for record in (START, HARD_STATE, ENTRIES[1].record)]


def log_of(frames: Sequence[bytes]) -> bytes:
    """A segment with these records."""
    content = b""
    for records in frames:
        content += encode_frame(1, len(content), records)
    return content + bytes(64)


def recover(files: dict[str, bytes]) -> None:
    """Open a log: it is refused, with every byte left as it is, or the result can be used."""

    async def open_log() -> Recovered:
        disk = MemoryDisk(files=files)
        try:
            _, recovered = await Wal.open(disk, segment_bytes=4096)
        except StorageCorrupt:
            assert {name: bytes(data) for name, data in disk.files.items()} == files
            raise
        return recovered

    recovered = trio.run(open_log)
    indexes = [entry.index for entry in recovered.entries]
    assert indexes == list(range(indexes[0], indexes[0] + len(indexes))) if indexes else True


def recover_segment(data: bytes) -> None:
    recover({SNAPSHOT_NAME: SNAPSHOT_FILE, segment_name(1): data})


def recover_sealed_records(data: bytes) -> None:
    """A log whose checksums are right and whose records are not."""
    recover({SNAPSHOT_NAME: SNAPSHOT_FILE, segment_name(1): log_of([data])})


def recover_snapshot(data: bytes) -> None:
    recover({SNAPSHOT_NAME: data, segment_name(1): log_of(LOG_RECORDS)})
