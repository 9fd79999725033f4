"""Membership: who belongs to the cluster, and who of them votes.

Gossip shows who is there; Raft's configuration says who counts. This room leads from the one to
the other: it finds the founders of a new cluster (`discovery`), decides who should vote
(`voters`) and has the leader change that one step at a time (`controller`), keeps the addresses
of peers in step with gossip (`addresses`), takes a node out permanently when its operator asks
for that (`decommission`, over the Unix socket in `control`), and knows who this node itself is
(`identity`).

Enters: members as gossip sees them, Raft's status and configuration, an operator's orders.
Leaves: changes of membership for Raft's leader, addresses for the network, tags for gossip.
Never: shrinks the set of voters because of gossip alone; takes an address for an identity.
"""
