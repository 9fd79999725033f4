"""Which nodes found a new cluster (`--bootstrap-expect N`).

Enters: the members that gossip sees, what this node promised before, the time.
Leaves: tags to show, a promise to save, the first configuration of a new cluster. Never: I/O.

Nodes without a cluster wait until N of them see each other. Each proposes, as a tag, to found a
cluster with the first N by name that it sees, and may change its mind. Once all N show the same
proposal, each promises to found with exactly those: it saves the promise, shows it as a tag, and
founds when all N show the same promise. All of them write the same first configuration, so it does
not matter who does so first; a node that was away meanwhile finds the cluster of its promise there.
A promise is on disk before another node sees it, because those who found count on it: a node that
was restarted, or gave up waiting for another founder, still founds with them if it has promised
nothing else since.

Where there are more than N, they see each other in different orders, and promises to different
groups would never be met. So a node that sees more than N promises only what all have agreed on for
`SETTLE_S`; and when another one has promised what it proposed before, it proposes that again, of
several the least, as all others do.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noti.membership.tags import (
    ALIVE_STATES,
    TAG_CLUSTER,
    TAG_EXPECT,
    TAG_NODE_ID,
    TAG_PROMISE,
    TAG_PROPOSAL,
)
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import Member

SETTLE_S = 1.5
"""Longer than a tag needs to reach all of a few nodes (about 0.5 s in a LAN)."""


def cluster_of(founders: Iterable[NodeId]) -> str:
    """Return the id of the cluster that these nodes found; the order does not matter."""
    return hashlib.sha256(" ".join(sorted(founders)).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do now about founding a cluster."""

    promise: str
    """To be shown as a tag, once it is on disk; empty for none."""
    configuration: Configuration | None
    """To be written as the log's first entry; None for not yet."""
    proposal: str = ""
    """To be shown as a tag; empty for none."""


class Bootstrap:
    """One node's part in founding a cluster; of no use once the node has one."""

    def __init__(
        self, name: str, node_id: NodeId, expect: int, promised: tuple[NodeId, ...] = ()
    ) -> None:
        """Wait for `expect` founders, this node included; `promised` is what it saved before."""
        self._name = name
        self._node_id = node_id
        self._expect = expect
        self._founders: tuple[NodeId, ...] = ()
        self._proposed: set[tuple[NodeId, ...]] = set()
        """All that this node has proposed; others may have promised it since."""
        self._agreed: tuple[NodeId, ...] = ()
        """The founders that it would promise now, …"""
        self._agreed_since = -math.inf
        """… and since when."""
        self.promised = promised
        """The founders of its last promise, also when it waits for others by now."""

    def consider(self, members: Iterable[Member], now: float) -> Advice:
        """Return what to show and do, given these members; `now` is monotonic, in seconds."""
        here = {
            member.tags[TAG_NODE_ID]: member.tags
            for member in sorted(members, key=lambda member: member.name)
            if member.state in ALIVE_STATES and member.tags.get(TAG_NODE_ID)
        }
        if not self._may_still_found(here):
            self._founders = ()
        clusters = {tags[TAG_CLUSTER] for tags in here.values() if tags.get(TAG_CLUSTER)}
        proposal: tuple[NodeId, ...] = ()
        if not self._founders:
            if cluster_of(self.promised) in clusters:
                self._founders = self.promised
            elif not clusters:  # otherwise: wait to be added
                proposal = self._choose(here)
                self._founders = self._agree(proposal, here, now)
            self.promised = self._founders or self.promised
        proposal = self._founders or proposal
        promise = cluster_of(self._founders) if self._founders else ""
        all_promised = bool(promise) and all(
            promise in (here[node].get(TAG_PROMISE), here[node].get(TAG_CLUSTER))
            for node in self._founders
            if node != self._node_id and promise not in clusters
        )
        configuration = Configuration(promise, voters=self._founders) if all_promised else None
        return Advice(promise, configuration, cluster_of(proposal) if proposal else "")

    def _may_still_found(self, here: Mapping[NodeId, Mapping[str, str]]) -> bool:
        """Whether all founders are here, and none of them belongs to another cluster by now."""
        acceptable = ("", cluster_of(self._founders))
        return all(
            node in here and here[node].get(TAG_CLUSTER, "") in acceptable
            for node in self._founders
        )

    def _choose(self, here: Mapping[NodeId, Mapping[str, str]]) -> tuple[NodeId, ...]:
        """Return the first founders by name, if there are enough and this node is among them."""
        chosen = self._willing(here)[: self._expect]
        if len(chosen) < self._expect or self._node_id not in chosen:
            return ()
        return tuple(sorted(chosen))

    def _willing(self, here: Mapping[NodeId, Mapping[str, str]]) -> list[NodeId]:
        return [
            node
            for node, tags in here.items()
            if tags.get(TAG_EXPECT) == str(self._expect) or node == self._node_id
        ]

    def _agree(
        self, proposal: tuple[NodeId, ...], here: Mapping[NodeId, Mapping[str, str]], now: float
    ) -> tuple[NodeId, ...]:
        """Return the founders to be promised now, if any."""
        others = {node: tags for node, tags in here.items() if node != self._node_id}
        promised = {tags.get(TAG_PROMISE) for tags in others.values()}
        shown = cluster_of(proposal)
        agreed = [
            founders
            for founders in self._proposed
            if cluster_of(founders) in promised and all(node in here for node in founders)
        ]
        if proposal:
            self._proposed.add(proposal)
            if all(
                shown in (others[node].get(TAG_PROPOSAL), others[node].get(TAG_PROMISE))
                for node in proposal
                if node != self._node_id
            ):
                agreed.append(proposal)
        best = min(agreed, default=())
        if best != self._agreed:
            self._agreed, self._agreed_since = best, now
        no_choice = len(self._willing(here)) == self._expect
        return best if no_choice or now - self._agreed_since >= SETTLE_S else ()
