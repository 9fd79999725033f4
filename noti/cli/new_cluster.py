"""Reads the state out of a stopped node's data directory, and writes it as that of a new cluster.

The new cluster has one node. It has an id of its own, so nodes of the old one are never let in, and
its log begins with a snapshot, so that nodes which join get all of it.
"""

import secrets
import sys
import time
from pathlib import Path

import trio

from noti.cli.wal_files import Directory, read_directory, reject_damage, verify
from noti.errors import LocalError, StorageFailed, StorageLocked, leaves_of
from noti.history.backup import state_of_new_cluster
from noti.history.snapshot import StoreParts, pieces_of
from noti.history.store import Store, decode_store
from noti.membership.identity import NODE_ID_BYTES, make_identity
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import EntryKind, HardState, Snapshot
from noti.raft.storage.disk import open_disk
from noti.raft.storage.recovery import SNAPSHOT_NAME, Replay
from noti.raft.storage.segments import segment_name
from noti.raft.storage.wal import Wal

UNLOCKED_WITHIN_S = 3.0
"""The writer of a node that was killed may still have something to write."""
CLUSTER_ID_BYTES = 8
"""As long as the ids that founders make."""


def read_store(directory: Path) -> tuple[Store, int]:
    """Return all that a stopped node has, and the index of its last entry.

    Entries that were never committed count, too: nobody can tell any more. Raises `LocalError`,
    `StorageLocked` while a node runs there, `StorageFailed`, and `StorageCorrupt` for damage.
    """
    held = _read(directory)
    reject_damage(directory, verify(held))
    replay = Replay(memory_bytes=sys.maxsize)
    if SNAPSHOT_NAME in held.files:
        replay.feed_snapshot(held.files[SNAPSHOT_NAME])
    for sequence in held.sequences:
        name = segment_name(sequence)
        replay.feed_segment(sequence, held.files[name], last=sequence == held.sequences[-1])
    recovered = replay.recovered()
    snapshot = recovered.snapshot
    store = Store() if snapshot is None else decode_store(snapshot.pieces)
    index = 0 if snapshot is None else snapshot.index
    for entry in recovered.entries:
        if entry.index > index:
            assert entry.index == index + 1, "replay leaves no gap"
            index = entry.index
            if entry.kind is EntryKind.COMMAND:
                store.apply(entry.data)
    return store, index


def _read(directory: Path) -> Directory:
    until = time.monotonic() + UNLOCKED_WITHIN_S
    while True:
        try:
            return read_directory(directory)
        except StorageLocked:
            if time.monotonic() >= until:
                raise StorageLocked(f"a node runs in {directory}; stop it first") from None
        time.sleep(0.05)


def write_new_cluster(directory: Path, name: str, parts: StoreParts) -> str:
    """Make a data directory of a node of this name, alone in a new cluster; return the cluster.

    Raises `LocalError` when there is something already, `StorageFailed`.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise LocalError(f"{directory} is there already; name a directory that is empty or new")
    unfinished = directory.with_name(f"{directory.name}.unfinished-{secrets.token_hex(4)}")
    cluster_id = secrets.token_hex(CLUSTER_ID_BYTES)
    try:
        trio.run(_write, unfinished, name, cluster_id, parts)
        if directory.exists():
            directory.rmdir()
        unfinished.rename(directory)
    except OSError as error:
        raise StorageFailed(f"cannot write {directory}: {error.strerror}") from None
    except BaseExceptionGroup as group:
        raise leaves_of(group)[0] from None
    return cluster_id


async def _write(directory: Path, name: str, cluster_id: str, parts: StoreParts) -> None:
    node_id = secrets.token_hex(NODE_ID_BYTES)
    configuration = Configuration(cluster_id, voters=(node_id,))
    pieces = tuple(pieces_of(state_of_new_cluster(parts)))
    async with open_disk(directory) as disk:
        wal, _ = await Wal.open(disk)
        await wal.append((), HardState(term=1))
        await wal.install_snapshot(Snapshot(1, 1, encode_configuration(configuration), pieces))
        await make_identity(disk, name, lambda: node_id)
