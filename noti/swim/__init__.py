"""Gossip: SWIM in Serf's wire format, a pure core and the sockets that carry it.

Every node learns of every other without asking anyone in particular: members probe each other,
suspect who does not answer, and spread what they learn with the packets they send anyway. A node
that speaks like this is a member among Serf agents.

Enters: datagrams and streams from members, seeds to join.
Leaves: who is a member, where, with which tags; who failed, who left.
Never: decides who votes; believes a packet that is not valid from end to end.
"""
