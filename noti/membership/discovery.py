"""From gossip's view to Raft's: where the peers are, and who founds a cluster.

Enters: the members that gossip sees. Leaves: addresses of peers, tags to show, the first
configuration of a new cluster. Never: I/O; takes a voter away (gossip alone may not).

Founding, with `--bootstrap-expect N`: nodes without a cluster wait until N of them see each other.
Each shows as a tag with whom it wishes to found, the first N by name that it sees, and may change
its mind. Once all N show the same wish, each promises to found with exactly those, shows the
promise as a tag, keeps it, and founds when all N show the same promise. All of them write the same
first configuration, so that it does not matter who does so first; a node that was away meanwhile
finds its promise kept by the others. A promise is on disk before anybody sees it, because whoever
founds counts on it: a node that was restarted, or gave up waiting for another founder, still founds
with them if it has promised nothing else since.

Where there are more than N, they see each other in different orders, and promises to different
groups would never be kept. So a node that sees more than N promises only what has been right for
`SETTLE_S`; and when somebody has promised what it wished before, it takes that for its own wish, of
several the least, as all others do.
"""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from noti.address import Address, parse_address
from noti.raft.core.membership import Configuration
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import Member, MemberState

TAG_NODE_ID = "id"
TAG_CLUSTER = "cluster"
TAG_WISH = "wish"
"""Id of the cluster that a node would found; it may change its mind."""
TAG_PROMISE = "founding"
"""Id of the cluster that a node will found with those who promised the same."""
TAG_EXPECT = "expect"
TAG_RPC = "rpc"
TAG_HTTP = "http"
TAG_LEAVING = "leaving"
"""Shown by a node that gave its seat up, or is about to: it must not get one. No more than that:
gossip alone takes nobody's seat away."""

SETTLE_S = 1.5
"""Longer than it takes until all of a few nodes have heard of a tag (about 0.5 s in a LAN)."""

_HERE = (MemberState.ALIVE, MemberState.SUSPECT)


def cluster_of(founders: Iterable[NodeId]) -> str:
    """Return the id of the cluster that these nodes found; the order does not matter."""
    return hashlib.sha256(" ".join(sorted(founders)).encode()).hexdigest()[:16]


def peer_addresses(members: Iterable[Member], own_id: NodeId) -> dict[NodeId, Address]:
    """Return where the other nodes take RPCs, by node id; also of those gone, who may return.

    Not of one gone whose address somebody else has by now: dialing it would disturb that one.
    """
    addresses: dict[NodeId, Address] = {}
    for member in sorted(members, key=lambda member: member.state not in _HERE):
        node_id = member.tags.get(TAG_NODE_ID, "")
        try:
            address = parse_address(member.tags.get(TAG_RPC, ""))
        except ValueError:
            continue
        taken = member.state not in _HERE and address in addresses.values()
        if node_id and address[0] and node_id not in addresses and not taken:
            addresses[node_id] = address
    addresses.pop(own_id, None)
    return addresses


def name_of(members: Iterable[Member], node_id: NodeId) -> str | None:
    """Return the name of the node that has an id; None when nobody, or more than one, shows it."""
    names = {member.name for member in members if member.tags.get(TAG_NODE_ID) == node_id}
    return names.pop() if len(names) == 1 else None


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do now about founding a cluster."""

    promise: str
    """To be shown as a tag, once it is on disk; empty for none."""
    founding: Configuration | None
    """To be written as the log's first entry; None for not yet."""
    wish: str = ""
    """To be shown as a tag; empty for none."""


class Founding:
    """One node's part in founding a cluster; of no use once the node has one."""

    def __init__(
        self, name: str, node_id: NodeId, expect: int, promised: tuple[NodeId, ...] = ()
    ) -> None:
        """Wait for `expect` founders, this node included; `promised` is what its last life was."""
        self._name = name
        self._node_id = node_id
        self._expect = expect
        self._founders: tuple[NodeId, ...] = ()
        self._wishes: set[tuple[NodeId, ...]] = set()
        """All that this node wished; others may have promised it since."""
        self._right: tuple[NodeId, ...] = ()
        """What it would promise now, …"""
        self._right_since = -math.inf
        """… and since when."""
        self.promised = promised
        """With whom this node last promised to found, also when it waits for others by now."""

    def consider(self, members: Iterable[Member], now: float) -> Advice:
        """Look at who is there, and return what to show and do; `now` is monotonic, in seconds."""
        here = {
            member.tags[TAG_NODE_ID]: member.tags
            for member in sorted(members, key=lambda member: member.name)
            if member.state in _HERE and member.tags.get(TAG_NODE_ID)
        }
        if not self._may_still_found(here):
            self._founders = ()
        clusters = {tags[TAG_CLUSTER] for tags in here.values() if tags.get(TAG_CLUSTER)}
        wish: tuple[NodeId, ...] = ()
        if not self._founders:
            if cluster_of(self.promised) in clusters:
                self._founders = self.promised
            elif not clusters:  # otherwise: wait to be let in
                wish = self._choose(here)
                self._founders = self._agreed(wish, here, now)
            self.promised = self._founders or self.promised
        wish = self._founders or wish
        promise = cluster_of(self._founders) if self._founders else ""
        kept = bool(promise) and all(
            promise in (here[node].get(TAG_PROMISE), here[node].get(TAG_CLUSTER))
            for node in self._founders
            if node != self._node_id and promise not in clusters
        )
        founding = Configuration(promise, voters=self._founders) if kept else None
        return Advice(promise, founding, cluster_of(wish) if wish else "")

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

    def _agreed(
        self, wish: tuple[NodeId, ...], here: Mapping[NodeId, Mapping[str, str]], now: float
    ) -> tuple[NodeId, ...]:
        """Return the founders to be promised now, if any."""
        others = {node: tags for node, tags in here.items() if node != self._node_id}
        promised = {tags.get(TAG_PROMISE) for tags in others.values()}
        shown = cluster_of(wish)
        right = [
            founders
            for founders in self._wishes
            if cluster_of(founders) in promised and all(node in here for node in founders)
        ]
        if wish:
            self._wishes.add(wish)
            if all(
                shown in (others[node].get(TAG_WISH), others[node].get(TAG_PROMISE))
                for node in wish
                if node != self._node_id
            ):
                right.append(wish)
        best = min(right, default=())
        if best != self._right:
            self._right, self._right_since = best, now
        no_choice = len(self._willing(here)) == self._expect
        return best if no_choice or now - self._right_since >= SETTLE_S else ()
