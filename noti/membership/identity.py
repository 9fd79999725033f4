"""Who this node is, and the founders of a cluster that it promised to found with.

An identity is a name and the random id of the data directory.

Both are read at the start and stay the same after restarts. Addresses are no part of an identity,
as they may change, nor is the cluster, which the log holds.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from noti.errors import StorageCorrupt, StorageForeign
from noti.raft.core.messages import NodeId
from noti.raft.ports import Hello
from noti.raft.storage.ports import Disk

NODE_ID_BYTES = 8
"""64 random bits: two nodes of one cluster never get the same."""
_FILE = "identity"
PROMISE_NAME = "promise"


@dataclass(frozen=True, slots=True)
class Identity:
    """A node's name, for people, and its id, for Raft."""

    name: str
    node_id: NodeId

    def hello(self, cluster_id: str, level: int, supports: int) -> Hello:
        """Return how this node introduces itself to others."""
        return Hello(cluster_id, self.node_id, self.name, level, supports)


async def make_identity(disk: Disk, name: str, make_id: Callable[[], str]) -> Identity:
    """Make an identity and save it in the data directory, which holds a log already.

    The log first: a directory with an identity and no log is then one whose log was lost.
    """
    node_id = make_id()
    text = json.dumps({"name": name, "node_id": node_id}) + "\n"
    await disk.replace(_FILE, text.encode())
    return Identity(name, node_id)


async def load_identity(disk: Disk, name: str) -> Identity | None:
    """Return the identity saved in the data directory; None at the first start.

    Raises `StorageForeign` when the directory belongs to a node of another name, `StorageCorrupt`
    when the file does not decode.
    """
    if _FILE not in await disk.names():
        return None
    try:
        match json.loads(await disk.read(_FILE)):
            case {"name": str(owner), "node_id": str(node_id)} if node_id:
                pass
            case _:
                raise ValueError("name or node_id is missing")
    except ValueError as error:
        raise StorageCorrupt(
            f"the file {_FILE!r} in the data directory does not decode ({error}); restore the "
            "directory from this node's backup, or start with an empty one as a new node"
        ) from None
    if owner != name:
        raise StorageForeign(
            f"the data directory belongs to node {owner!r}, but this node is named {name!r}; "
            "use another --data-dir or the old --name"
        )
    return Identity(owner, node_id)


async def save_promise(disk: Disk, founders: Sequence[NodeId]) -> None:
    """Save with whom this node will found a cluster; raises `StorageFailed`."""
    await disk.replace(PROMISE_NAME, (json.dumps(list(founders)) + "\n").encode())


async def load_promise(disk: Disk) -> tuple[NodeId, ...]:
    """Return with whom this node promised to found a cluster; empty when it has not.

    Raises `StorageCorrupt` when the file does not decode.
    """
    if PROMISE_NAME not in await disk.names():
        return ()
    try:
        founders = json.loads(await disk.read(PROMISE_NAME))
        if not isinstance(founders, list) or not all(isinstance(n, str) for n in founders):
            raise ValueError("it is no list of node ids")
    except ValueError as error:
        raise StorageCorrupt(
            f"the file {PROMISE_NAME!r} in the data directory does not decode ({error}); restore "
            "the directory from this node's backup, or start with an empty one as a new node"
        ) from None
    return tuple(founders)
