"""Names that certificates proved settle whose an id is, over restarts."""

import pytest

from noti.errors import StorageCorrupt
from noti.membership.node_names import NodeNames, load_names
from tests.simulation.memory_disk import MemoryDisk


async def test_names_are_kept_over_restarts_for_nodes_of_the_cluster_only() -> None:
    disk = MemoryDisk()
    names = NodeNames(disk, lambda: {"1": "one", "2": "two", "9": "stranger"}, {})
    assert names.of(["1", "2", "3"]) == {"1": "one", "2": "two", "3": ""}
    await names.save()
    again = NodeNames(disk, dict[str, str], await load_names(disk))
    assert again.of(["1", "3"]) == {"1": "one", "3": ""}
    await again.save()
    assert await load_names(disk) == {"1": "one"}


async def test_what_is_proven_now_counts_more_than_what_was_saved() -> None:
    names = NodeNames(MemoryDisk(), lambda: {"1": "new"}, {"1": "old"})
    assert names.of(["1"]) == {"1": "new"}


async def test_new_directory_has_no_names() -> None:
    assert await load_names(MemoryDisk()) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b'{"1": 2}', b"{"])
async def test_file_that_does_not_decode_is_named_with_what_to_do(content: bytes) -> None:
    with pytest.raises(StorageCorrupt, match=r"'node-names'.*delete it"):
        await load_names(MemoryDisk(files={"node-names": content}))
