"""Tells Raft what gossip sees, and gossip what Raft is.

Enters: changes of the member list and of the replica. Leaves: peers' addresses, this node's tags,
the founding of a new cluster. Never: decides (`discovery.py` does).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog
import trio

from noti.address import Address
from noti.membership.discovery import (
    TAG_CLUSTER,
    TAG_LEAVING,
    TAG_PROMISE,
    TAG_WISH,
    Founding,
    peer_addresses,
)
from noti.ports import Clock
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import Member

log = structlog.get_logger("noti.node")

RECHECK_S = 1.0
"""The replica does not announce that it learned its cluster; looking once a second is enough."""


class Membership(Protocol):
    """The part of gossip that this room needs."""

    def members(self) -> tuple[Member, ...]:
        """Return everybody known, this node included."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Show these tags to the others."""

    async def wait_changed(self) -> None:
        """Return at the next change of `members()`."""


class Consensus(Protocol):
    """The part of the replica that this room needs."""

    def cluster_id(self) -> str:
        """Return the cluster that this node belongs to; empty for none."""

    def bootstrap(self, configuration: Configuration) -> None:
        """Found a cluster."""


class Registrar:
    """Keeps the two views of one node in step."""

    def __init__(
        self,
        membership: Membership,
        consensus: Consensus,
        update_peers: Callable[[Mapping[NodeId, Address]], None],
        *,
        node_id: NodeId,
        tags: Mapping[str, str],
        founding: Founding | None,
        keep_promise: Callable[[tuple[NodeId, ...]], Awaitable[None]],
        clock: Clock,
    ) -> None:
        """Watch on behalf of a node; `founding` is None for one that only joins."""
        self._membership = membership
        self._consensus = consensus
        self._update_peers = update_peers
        self._node_id = node_id
        self._tags = dict(tags)
        self._founding = founding
        self._keep_promise = keep_promise
        self._kept = founding.promised if founding is not None else ()
        """The promise that is on disk."""
        self._clock = clock
        self._leaving = False
        self._shown: Mapping[str, str] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; raises `StorageFailed` when a promise cannot be kept."""
        self._look()
        task_status.started()
        while True:
            if self._founding is not None and self._founding.promised != self._kept:
                promised = self._founding.promised
                await self._keep_promise(promised)
                self._kept = promised
                self._look()
                continue
            with self._clock.scope_until(self._clock.now() + RECHECK_S):
                await self._membership.wait_changed()
            self._look()

    def show_leaving(self, leaving: bool) -> None:
        """Show, from now on, whether this node wants no seat."""
        self._leaving = leaving
        self._look()

    def _look(self) -> None:
        members = self._membership.members()
        self._update_peers(peer_addresses(members, self._node_id))
        tags = dict(self._tags)
        if self._leaving:
            tags[TAG_LEAVING] = "1"
        cluster_id = self._consensus.cluster_id()
        if cluster_id:
            tags[TAG_CLUSTER] = cluster_id
        elif self._founding is not None:
            advice = self._founding.consider(members, self._clock.now())
            kept = self._founding.promised == self._kept
            if advice.wish:
                tags[TAG_WISH] = advice.wish
            if advice.promise and kept:
                tags[TAG_PROMISE] = advice.promise
            if advice.founding is not None and kept:
                voters = list(advice.founding.voters)
                log.info("founding a cluster", cluster=advice.promise, voters=voters)
                self._consensus.bootstrap(advice.founding)
        if tags != self._shown:
            self._shown = tags
            self._membership.set_tags(tags)
