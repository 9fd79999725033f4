"""Reads the data directory of a node, without changing it, and checks its files.

The checks are those of a node's own start (`noti.raft.storage.recovery`), and one more: the meaning
of the entries and the snapshot must decode as well, because a node that cannot apply what is
committed must stop. A node that starts meanwhile waits no longer than the reading takes.
"""

import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias

from noti.errors import (
    CommandUnknown,
    LocalError,
    MessageInvalid,
    StorageCorrupt,
    StorageFailed,
    StorageLocked,
)
from noti.history import commands
from noti.history.store import Store, decode_store
from noti.membership.identity import PROMISE_NAME
from noti.membership.node_names import NAMES_FILE
from noti.raft.core.membership import Configuration, decode_configuration
from noti.raft.core.messages import Entry, EntryKind, Snapshot
from noti.raft.core.records import Record, scan_records
from noti.raft.storage.disk import LOCK_NAME
from noti.raft.storage.disk_writer import TEMPORARY_SUFFIX
from noti.raft.storage.recovery import SNAPSHOT_NAME, Replay, TornTail
from noti.raft.storage.segments import (
    END_MARK,
    FRAME_OVERHEAD_BYTES,
    Content,
    read_segment,
    segment_name,
    segment_sequence,
)

IDENTITY_NAME = "identity"
_NOT_OF_THE_LOG = {
    LOCK_NAME: "the node's lock",
    PROMISE_NAME: "with whom the node promised to found a cluster",
    NAMES_FILE: "names of the cluster's nodes that certificates proved",
}

_RECORDS_FROM_BYTES = FRAME_OVERHEAD_BYTES - len(END_MARK)
"""Where the first record of a frame begins."""

_PLACE = re.compile(r"(\S+) at byte (\d+): (.*)", re.DOTALL)
"""How `StorageCorrupt` names a place."""

Meaning: TypeAlias = commands.Command | Configuration | None
"""What the data of an entry means; None for a no-op."""

Status: TypeAlias = Literal["ok", "torn", "damaged", "not checked", "not ours"]


@dataclass(frozen=True, slots=True)
class Directory:
    """What a data directory held at one moment."""

    path: Path
    live: bool
    """A node uses it: files may stem from different moments, and change."""
    files: dict[str, bytes]
    """Identity, snapshot and segments, by name."""
    others: tuple[str, ...]
    """Names of all other files."""

    @property
    def sequences(self) -> list[int]:
        """The numbers of the segments, in order."""
        return sorted(s for name in self.files if (s := segment_sequence(name)) is not None)


@dataclass(frozen=True, slots=True)
class WalFinding:
    """What is known of one file."""

    file: str
    status: Status
    offset: int | None
    """Byte at which damage or a torn write begins."""
    text: str


def read_directory(path: Path, *, live: bool = False) -> Directory:
    """Return what the directory holds; with `live` also while a node uses it.

    Raises `StorageLocked` when a node uses it, `StorageFailed` when it cannot be read, `LocalError`
    when it is no data directory.
    """
    try:
        with _node_kept_out(path, live) as in_use:
            names = sorted(child.name for child in path.iterdir() if child.is_file())
            ours = [name for name in names if _is_ours(name)]
            if not ours:
                raise LocalError(f"{path} is not the data directory of a node: it holds no log")
            files: dict[str, bytes] = {}
            for name in ours:
                with suppress(FileNotFoundError):  # a live node drops old segments
                    files[name] = (path / name).read_bytes()
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror}") from None
    return Directory(path, in_use, files, tuple(name for name in names if name not in ours))


def decode_identity(content: bytes) -> tuple[str, str]:
    """Return name and node id; raises `MessageInvalid`."""
    try:
        match json.loads(content):
            case {"name": str(name), "node_id": str(node_id)}:
                return name, node_id
            case _:
                raise MessageInvalid("the identity lacks name or node_id")
    except ValueError as error:
        raise MessageInvalid(f"the identity does not decode: {error}") from None


def decode_meaning(entry: Entry) -> Meaning:
    """Return what an entry means; raises `MessageInvalid` or `CommandUnknown`."""
    match entry.kind:
        case EntryKind.NOOP:
            return None
        case EntryKind.COMMAND:
            return commands.decode(entry.data)
        case EntryKind.CONFIGURATION:
            return decode_configuration(entry.data)


def decode_state(snapshot: Snapshot) -> tuple[Configuration, Store]:
    """Return what a snapshot holds; raises `MessageInvalid`."""
    return decode_configuration(snapshot.configuration), decode_store(snapshot.pieces)


def scan_segment(content: Content) -> Iterator[tuple[int, Record]]:
    """Yield the records of a segment with their place in the file.

    Raises `StorageCorrupt` without naming the file, at the frame whose records are not whole.
    """
    for frame in content.frames:
        try:
            for offset, record in scan_records(frame.records):
                yield frame.offset + _RECORDS_FROM_BYTES + offset, record
        except MessageInvalid as error:
            raise StorageCorrupt(f"at byte {frame.offset}: {error}") from None


def reject_damage(directory: Path, findings: Iterable[WalFinding]) -> None:
    """Raise `StorageCorrupt`, which names file and byte, if one of the findings is damage."""
    for finding in findings:
        if finding.status == "damaged":
            place = f"{directory / finding.file} at byte {finding.offset}"
            raise StorageCorrupt(f"{place}: {finding.text}")


def verify(directory: Directory) -> list[WalFinding]:
    """Return a finding for every file, in the order of the names.

    Files after the first damage are not checked, because what they should hold depends on it.
    """
    found: dict[str, WalFinding] = {
        name: WalFinding(name, "not checked", None, "comes after the damage")
        for name in directory.files
    }
    try:
        for finding in _check(directory):
            found[finding.file] = finding
    except StorageCorrupt as error:
        damage = _damage(error)
        found[damage.file] = damage
    for name in directory.others:
        text = "left by an interrupted write; removed at the next start"
        if not name.endswith(TEMPORARY_SUFFIX):
            text = _NOT_OF_THE_LOG.get(name, "unknown to this program")
        found[name] = WalFinding(name, "not ours", None, text)
    return [found[name] for name in sorted(found)]


def _check(directory: Directory) -> Iterator[WalFinding]:
    """Yield findings as a node would come to them; raises `StorageCorrupt` at the first damage."""
    yield _check_identity(directory.files.get(IDENTITY_NAME))
    replay = Replay()
    if (snapshot := directory.files.get(SNAPSHOT_NAME)) is not None:
        replay.feed_snapshot(snapshot)
        yield _check_snapshot(replay.snapshot)
    sequences = directory.sequences
    for sequence in sequences:
        data = directory.files[segment_name(sequence)]
        torn = replay.feed_segment(sequence, data, last=sequence == sequences[-1])
        yield _check_segment(sequence, data, torn)
    replay.recovered()
    for segment in replay.obsolete:
        yield WalFinding(segment.name, "ok", None, "superseded; removed at the next start")


def _check_identity(content: bytes | None) -> WalFinding:
    if content is None:
        _raise_damage(
            IDENTITY_NAME, 0, "the file is missing, and with it whose votes the log holds"
        )
    try:
        name, node_id = decode_identity(content)
    except MessageInvalid as error:
        _raise_damage(IDENTITY_NAME, 0, str(error))
    return WalFinding(IDENTITY_NAME, "ok", None, f"node {name}, id {node_id}")


def _check_snapshot(snapshot: Snapshot | None) -> WalFinding:
    assert snapshot is not None
    try:
        decode_state(snapshot)
    except MessageInvalid as error:
        _raise_damage(SNAPSHOT_NAME, 0, str(error))
    text = f"up to entry {snapshot.index} of term {snapshot.term}"
    return WalFinding(SNAPSHOT_NAME, "ok", None, text)


def _check_segment(sequence: int, data: bytes, torn: TornTail | None) -> WalFinding:
    name = segment_name(sequence)
    content = read_segment(sequence, data)
    entries: list[Entry] = []
    for offset, record in scan_segment(content):
        if not isinstance(record, Entry):
            continue
        try:
            decode_meaning(record)
        except (MessageInvalid, CommandUnknown) as error:
            _raise_damage(name, offset, f"entry {record.index}: {error}")
        entries.append(record)
    text = f"{len(entries)} entries"
    if entries:
        text += f", {entries[0].index} to {entries[-1].index}"
    text += f", in {len(content.frames)} writes; {content.end:,} of {len(data):,} bytes used"
    if torn is None:
        return WalFinding(name, "ok", None, text)
    what = f"a crash cut off the write at byte {torn.offset}; repaired at the next start"
    return WalFinding(name, "torn", torn.offset, f"{text}; {what}")


def _raise_damage(name: str, offset: int, reason: str) -> NoReturn:
    raise StorageCorrupt(f"{name} at byte {offset}: {reason}")


def _damage(error: StorageCorrupt) -> WalFinding:
    place = _PLACE.fullmatch(str(error))
    assert place is not None, "errors about damage hold file and offset"
    return WalFinding(place[1], "damaged", int(place[2]), place[3].partition("; restore")[0])


def _is_ours(name: str) -> bool:
    return name in (IDENTITY_NAME, SNAPSHOT_NAME) or segment_sequence(name) is not None


@contextmanager
def _node_kept_out(path: Path, live: bool) -> Iterator[bool]:
    """Let no node start while files are read; yield whether one runs already."""
    try:
        descriptor = os.open(path / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        path.stat()
        yield False  # a copy, or a node that never ran
        return
    try:
        in_use = not _lock_shared(descriptor)
        if in_use and not live:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            process = f"process {holder}" if holder else "a process"
            raise StorageLocked(
                f"{path} is live: {process} uses it, so what is read may change meanwhile; stop "
                "the node, or read all the same with --live"
            )
        yield in_use
    finally:
        os.close(descriptor)


def _lock_shared(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
