"""A stopped node's state is read whole, and written as a new cluster's that a node can start."""

from pathlib import Path

import pytest
import trio

from noti.cli.new_cluster import read_store, write_new_cluster
from noti.errors import LocalError, StorageCorrupt, StorageLocked
from noti.history.backup import NUMBERS_SKIPPED
from noti.history.commands import PublishBatch, encode
from noti.history.notification import Event
from noti.history.snapshot import StoreParts
from noti.history.store import decode_store
from noti.membership.identity import load_identity
from noti.raft.core.membership import Configuration, decode_configuration, encode_configuration
from noti.raft.core.messages import Entry, EntryKind, HardState, Snapshot
from noti.raft.core.records import new_entry
from noti.raft.storage.disk import open_disk
from noti.raft.storage.wal import Wal
from tests.history.test_backup import store

CONFIGURATION = encode_configuration(Configuration("old", ("aa", "bb", "cc")))


def entry(index: int) -> Entry:
    event = Event(index, f"id-{index}", ("t",), "data", 1_700_000_000_000)
    data = encode(PublishBatch("jobs/1", (event,), 1_700_000_000_000))
    return new_entry(index, 7, EntryKind.COMMAND, data)


def write_log(directory: Path) -> None:
    """Write a snapshot up to 10, and entries up to 29 in small segments."""

    async def write() -> None:
        async with open_disk(directory) as disk:
            await disk.replace("identity", b'{"name": "n1", "node_id": "aa"}\n')
            wal, _ = await Wal.open(disk, segment_bytes=1024)
            await wal.append((), HardState(7, "aa"))
            pieces = tuple(store().snapshot_pieces())
            await wal.install_snapshot(Snapshot(10, 6, CONFIGURATION, pieces))
            for index in range(11, 30):
                await wal.append([entry(index)], None)

    trio.run(write)


def test_snapshot_and_all_entries_behind_it_are_read(tmp_path: Path) -> None:
    write_log(tmp_path)
    held, index = read_store(tmp_path)
    assert index == 29
    assert held.last_seq == store().last_seq + 19
    assert held.history()[-1].id == "id-29"


def test_reading_changes_no_file(tmp_path: Path) -> None:
    write_log(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    read_store(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_damage_is_told_and_nothing_is_read(tmp_path: Path) -> None:
    write_log(tmp_path)
    snapshot = tmp_path / "snapshot"
    content = bytearray(snapshot.read_bytes())
    content[100] ^= 1
    snapshot.write_bytes(content)
    with pytest.raises(StorageCorrupt, match="snapshot"):
        read_store(tmp_path)


async def test_directory_of_a_running_node_is_left_alone(tmp_path: Path) -> None:
    async with open_disk(tmp_path) as disk:
        await Wal.open(disk)
        with pytest.raises(StorageLocked):
            read_store(tmp_path)


def test_new_cluster_has_one_voter_a_name_and_the_state(tmp_path: Path) -> None:
    directory = tmp_path / "new"
    cluster_id = write_new_cluster(directory, "n9", store().parts())

    async def check() -> None:
        async with open_disk(directory) as disk:
            identity = await load_identity(disk, "n9")
            _, recovered = await Wal.open(disk, must_exist=True)
        assert identity is not None
        assert recovered.snapshot is not None
        configuration = decode_configuration(recovered.snapshot.configuration)
        assert configuration == Configuration(cluster_id, (identity.node_id,))
        assert recovered.hard_state.term >= recovered.snapshot.term
        held = decode_store(recovered.snapshot.pieces)
        assert held.last_seq == store().last_seq + NUMBERS_SKIPPED

    trio.run(check)


def test_each_new_cluster_is_another_one(tmp_path: Path) -> None:
    ids = {write_new_cluster(tmp_path / str(n), "n", StoreParts()) for n in range(3)}
    assert len(ids) == 3


def test_nothing_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(LocalError, match="empty or new"):
            write_new_cluster(taken, "n", StoreParts())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    empty = tmp_path / "empty"
    empty.mkdir()
    write_new_cluster(empty, "n", StoreParts())
    assert (empty / "identity").exists()
