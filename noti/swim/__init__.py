"""Gossip: SWIM in Serf's wire format, a pure core and the sockets that carry it.

Every node learns of every other: members probe each other, suspect those that do not answer, and
spread what they learn with the packets that they send anyway. Serf agents and nodes of noti can be
members of one cluster. `gossip` drives the core over UDP (`sockets`) and TCP (`stream_exchanges`),
`reporting` logs and counts what it sees, and `key_file` keeps the keys that encrypt it.

Enters: datagrams and streams from members, seeds to join, keys.
Leaves: the members, with addresses, tags and states: alive, suspect, dead, left.
Never: decides who votes; accepts a message that is not valid from end to end.
"""
