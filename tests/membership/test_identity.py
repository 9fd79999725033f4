"""Who a node is stays the same."""

import json

import pytest

from noti.errors import StorageCorrupt, StorageForeign
from noti.membership.identity import (
    Identity,
    load_identity,
    load_promise,
    make_identity,
    save_promise,
)
from noti.raft.ports import Hello
from tests.simulation.memory_disk import MemoryDisk


async def test_first_start_makes_an_id_and_later_ones_keep_it() -> None:
    disk = MemoryDisk()
    assert await load_identity(disk, "node1") is None
    first = await make_identity(disk, "node1", lambda: "1f")
    assert await load_identity(disk.crash(), "node1") == first
    assert first == Identity("node1", "1f")


async def test_directory_of_another_node_is_refused_and_left_alone() -> None:
    disk = MemoryDisk()
    await make_identity(disk, "node1", lambda: "1f")
    before = dict(disk.files)
    with pytest.raises(StorageForeign, match=r"node1.*node2"):
        await load_identity(disk, "node2")
    assert disk.files == before


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff",
        b"[]",
        b"{}",
        b'{"name": "node1"}',
        b'{"name": 1, "node_id": "a"}',
        json.dumps({"name": "node1", "node_id": ""}).encode(),
    ],
)
async def test_file_without_its_owner_stops_the_node(content: bytes) -> None:
    """A new id in its place would be a node that forgot its votes."""
    disk = MemoryDisk(files={"identity": content})
    with pytest.raises(StorageCorrupt, match="backup"):
        await load_identity(disk, "node1")
    assert disk.files["identity"] == content


def test_identity_introduces_itself_with_its_cluster() -> None:
    assert Identity("node1", "ab").hello("c", 1, 2) == Hello("c", "ab", "node1", 1, 2)


async def test_promise_outlives_the_process_and_the_last_one_counts() -> None:
    disk = MemoryDisk()
    assert await load_promise(disk) == ()
    await save_promise(disk, ("a", "b"))
    await save_promise(disk, ("a", "c"))
    assert await load_promise(disk.crash()) == ("a", "c")


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"{}", b'["a", 1]'])
async def test_promise_without_its_receiver_stops_the_node(content: bytes) -> None:
    disk = MemoryDisk(files={"promise": content})
    with pytest.raises(StorageCorrupt, match=r"promise.*backup"):
        await load_promise(disk)
