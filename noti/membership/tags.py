"""What nodes show of themselves as tags in gossip, and how the others read it.

Enters: the members that gossip sees. Leaves: names and addresses of nodes, by node id.
Never: I/O; takes a tag for a proof (gossip may be forged).
"""

from collections.abc import Iterable

from noti.address import Address, parse_address
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import Member, MemberState

TAG_NODE_ID = "id"
TAG_CLUSTER = "cluster"
TAG_PROPOSAL = "proposal"
"""Id of the cluster that a node proposes to bootstrap; it may change its mind."""
TAG_PROMISE = "promise"
"""Id of the cluster that a node will bootstrap with those who promised the same."""
TAG_EXPECT = "expect"
TAG_RPC = "rpc"
TAG_HTTP = "http"
TAG_OPS = "ops"
"""Where operators find a node; not shown where only its own machine reaches it."""
TAG_SOURCE = "source"
"""Shown by a node that reads events from somewhere when it leads; all nodes should."""
TAG_VERSION = "version"
"""Release of the node, for people."""
TAG_SUPPORTS = "level"
"""The highest level that the node supports, for people: a hello tells other nodes."""
TAG_LEAVING = "leaving"
"""Shown by a node that is being decommissioned: it must not become a voter. No more than that:
gossip alone demotes nobody."""

ALIVE_STATES = (MemberState.ALIVE, MemberState.SUSPECT)
"""States of a member that counts as alive: a suspect mostly refutes that."""


def peer_addresses(members: Iterable[Member], own_id: NodeId) -> dict[NodeId, Address]:
    """Return where the other nodes take RPCs, by node id; also of dead ones, which may return.

    The host is the one where a node has proved to gossip; only the port comes from its tags, or
    everybody who gossips could have any host dialed. Not of a dead one whose address another node
    has by now: dialing it would disturb that one.
    """
    addresses: dict[NodeId, Address] = {}
    for member in sorted(members, key=lambda member: member.state not in ALIVE_STATES):
        node_id = member.tags.get(TAG_NODE_ID, "")
        try:
            _, port = parse_address(member.tags.get(TAG_RPC, ""))
        except ValueError:
            continue
        address = member.address[0], port
        taken = member.state not in ALIVE_STATES and address in addresses.values()
        if node_id and node_id not in addresses and not taken:
            addresses[node_id] = address
    addresses.pop(own_id, None)
    return addresses


def alive_and_dead(
    members: Iterable[Member],
) -> tuple[frozenset[NodeId], frozenset[NodeId]]:
    """Return the ids of nodes that are alive, and of those that are dead or have left.

    A node of which two members tell is alive if one of them is.
    """
    members = tuple(members)
    alive = frozenset(
        member.tags.get(TAG_NODE_ID, "") for member in members if member.state in ALIVE_STATES
    )
    return alive, frozenset(member.tags.get(TAG_NODE_ID, "") for member in members) - alive


def name_of(members: Iterable[Member], node_id: NodeId) -> str | None:
    """Return the name of the node that has an id; None when no member shows it, or several do."""
    names = {member.name for member in members if member.tags.get(TAG_NODE_ID) == node_id}
    return names.pop() if len(names) == 1 else None
