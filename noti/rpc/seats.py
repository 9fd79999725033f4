"""Which of the nodes that dialed this one may stay: all of its cluster, and a few others.

Without TLS anybody may call himself a node. So a seat is an id's, whoever comes with it, and there
are seats for the ids of the configuration, and a few for those who are about to join: strangers in
any number keep no node of the cluster out, and take nothing that publishers may have.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol
from weakref import WeakValueDictionary

from noti.descriptors import STRANGERS_MAX
from noti.raft.core.messages import NodeId
from noti.raft.ports import Standing


class Seated(Protocol):
    """A connection of a node, whatever it speaks."""

    @property
    def transport(self) -> asyncio.Transport:
        """What carries it."""

    def is_closing(self) -> bool:
        """Whether it is gone, or about to be."""

    def abort(self) -> None:
        """Close it at once."""


class Seats:
    """The connections of nodes that dialed; each keeps its seat until it closes."""

    def __init__(self, standing: Callable[[NodeId], Standing]) -> None:
        """`standing` says who an id is now: a node that joins was a stranger when it came."""
        self._standing = standing
        self._taken: WeakValueDictionary[NodeId, Seated] = WeakValueDictionary()
        """In the order in which they came."""

    def take(self, node_id: NodeId, connection: Seated) -> NodeId | None:
        """Give a connection the seat of a node id; return who has to go for it, if anybody.

        Its older connection is closed: a node has one. Of too many strangers, the one goes that
        came first, but before it those that gossip does not know either. It is closed, unless it is
        the new one, which may be told why.
        """
        older = self._taken.pop(node_id, connection)
        if older is not connection:
            older.abort()
        self._taken[node_id] = connection
        strangers = [
            taken
            for taken, other in self._taken.items()
            if not other.is_closing() and self._standing(taken) is not Standing.MEMBER
        ]
        if len(strangers) <= STRANGERS_MAX:
            return None
        leaving = min(strangers, key=self._standing)
        left = self._taken.pop(leaving)
        if left is not connection:
            left.abort()
        return leaving
