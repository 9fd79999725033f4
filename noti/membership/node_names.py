"""Remembers the names of the cluster's nodes, over restarts, where TLS has proved them.

A node has one name always, but a stranger may gossip with another node's id under a name of its
own, and be there first after a restart. What certificates have proved once settles whose id it is;
without TLS nothing is remembered, because it would be as good as gossip.
"""

import json
from collections.abc import Callable, Iterable, Mapping

from noti.errors import StorageCorrupt
from noti.raft.core.messages import NodeId
from noti.raft.storage.ports import Disk

NAMES_FILE = "node-names"


class NodeNames:
    """The names of the nodes of one cluster, by id."""

    def __init__(
        self, disk: Disk, proven: Callable[[], Mapping[NodeId, str]], saved: Mapping[NodeId, str]
    ) -> None:
        """`proven` returns the names that certificates have proved since the start."""
        self._disk = disk
        self._proven = proven
        self._saved = dict(saved)
        self._names = dict(saved)

    def of(self, nodes: Iterable[NodeId]) -> Mapping[NodeId, str]:
        """Return the names of the cluster's nodes, and keep no others; empty for the unknown."""
        known = self._names | dict(self._proven())
        names = {node: known.get(node, "") for node in nodes}
        self._names = {node: name for node, name in names.items() if name}
        return names

    async def save(self) -> None:
        """Save what has changed; raises `StorageFailed`."""
        if self._names != self._saved:
            names = dict(self._names)
            await self._disk.replace(NAMES_FILE, (json.dumps(names) + "\n").encode())
            self._saved = names


async def load_names(disk: Disk) -> Mapping[NodeId, str]:
    """Return the names in the data directory; raises `StorageCorrupt` if they do not decode."""
    if NAMES_FILE not in await disk.names():
        return {}
    try:
        names = json.loads(await disk.read(NAMES_FILE))
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise ValueError("it is no map of names")
    except ValueError as error:
        raise StorageCorrupt(
            f"the file {NAMES_FILE!r} in the data directory does not decode ({error}); delete it: "
            "the names of other nodes are learned again"
        ) from None
    return names
