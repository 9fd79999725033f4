"""Membership: which nodes belong to the cluster, and which of them vote.

Gossip shows which nodes are there; Raft's configuration says which ones count. This room leads from
the one to the other: it finds peers in gossip and shows this node there (`discovery`, with the tags
in `tags`), chooses the founders of a new cluster (`bootstrap`), decides who should vote (`voters`)
and has the leader change that one step at a time (`controller`), does what the operator of the
machine asks for (`operator_requests`, over the Unix socket in `control`), as to take the node out
permanently (`decommission`), knows who this node itself is (`identity`), and says which peers may
talk to it (`admission`).

Enters: members as gossip sees them, Raft's status and configuration, an operator's orders.
Leaves: changes of membership for Raft's leader, addresses for the network, tags for gossip.
Never: shrinks the set of voters because of gossip alone; takes an address for an identity.
"""
