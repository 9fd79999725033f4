"""Finds the other nodes in gossip for Raft, and shows in gossip what this node is.

Whenever the member list changes, the network learns the addresses of peers, and this node's tags
are brought up to date. On a node without a cluster, `bootstrap.py` decides from the same list when
to found one.
"""

from collections.abc import Awaitable, Callable, Mapping

import structlog
import trio

from noti.address import Address
from noti.membership.bootstrap import Bootstrap
from noti.membership.node_names import NodeNames
from noti.membership.ports import ClusterFounder, TaggedMemberList
from noti.membership.tags import (
    TAG_CLUSTER,
    TAG_LEAVING,
    TAG_PROMISE,
    TAG_PROPOSAL,
    peer_addresses,
)
from noti.ports import Clock
from noti.raft.core.messages import NodeId

log = structlog.get_logger("noti.node")

CHECK_EVERY_S = 1.0
"""The replica does not report that it has received its cluster id, so it is asked for it."""


class Discovery:
    """Keeps Raft and gossip of one node informed about each other."""

    def __init__(
        self,
        gossip: TaggedMemberList,
        founder: ClusterFounder,
        update_peers: Callable[[Mapping[NodeId, Address]], None],
        *,
        node_id: NodeId,
        bootstrap: Bootstrap | None,
        save_promise: Callable[[tuple[NodeId, ...]], Awaitable[None]],
        names: NodeNames,
        clock: Clock,
    ) -> None:
        """Prepare; `bootstrap` is None for a node that only joins a cluster."""
        self._gossip = gossip
        self._founder = founder
        self._update_peers = update_peers
        self._node_id = node_id
        self._tags: Mapping[str, str] = {}
        self._bootstrap = bootstrap
        self._save_promise = save_promise
        self._saved = bootstrap.promised if bootstrap is not None else ()
        """The promise that is on disk."""
        self._names = names
        self._protected: Mapping[NodeId, str] = {}
        self._clock = clock
        self._leaving = False
        self._shown: Mapping[str, str] = {}

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; raises `StorageFailed` when something cannot be saved."""
        self._update()
        task_status.started()
        while True:
            if self._bootstrap is not None and self._bootstrap.promised != self._saved:
                promised = self._bootstrap.promised
                await self._save_promise(promised)
                self._saved = promised
                self._update()
                continue
            await self._names.save()
            with self._clock.scope_until(self._clock.now() + CHECK_EVERY_S):
                await self._gossip.wait_changed()
            self._update()

    def show(self, tags: Mapping[str, str]) -> None:
        """Show these tags from now on, beside those that this adds; to be called before `run`."""
        self._tags = tags
        self._gossip.set_tags(tags)

    def show_leaving(self, leaving: bool) -> None:
        """Show, from now on, whether this node is being decommissioned."""
        self._leaving = leaving
        self._update()

    def _update(self) -> None:
        members = self._gossip.members()
        self._update_peers(peer_addresses(members, self._node_id))
        configuration = self._founder.status().configuration
        protected = self._names.of(configuration.members)
        if protected != self._protected:
            self._protected = protected
            self._gossip.protect(protected)
        tags = dict(self._tags)
        if self._leaving:
            tags[TAG_LEAVING] = "1"
        if configuration.cluster_id:
            tags[TAG_CLUSTER] = configuration.cluster_id
        elif self._bootstrap is not None:
            advice = self._bootstrap.consider(members, self._clock.now())
            saved = self._bootstrap.promised == self._saved
            if advice.proposal:
                tags[TAG_PROPOSAL] = advice.proposal
            if advice.promise and saved:
                tags[TAG_PROMISE] = advice.promise
            if advice.configuration is not None and saved:
                voters = list(advice.configuration.voters)
                log.info("founding a cluster", cluster=advice.promise, voters=voters)
                self._founder.bootstrap(advice.configuration)
        if tags != self._shown:
            self._shown = tags
            self._gossip.set_tags(tags)
