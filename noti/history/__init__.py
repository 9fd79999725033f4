"""History: what is replicated, the same on every node.

The last notifications, numbered by the order in which they were committed, each once: across
redelivery by the source, retries of publishers, failover and restart. `commands` are what goes
through the Raft log, `store` what they make: of it `retention` says what is kept within the
`limits`, `duplicates` what comes again, `snapshot` has its bytes. `state_machine` joins the store
to Raft on one side and to the streams of this node on the other; `topics` and `reserved_topics` say
what can be a topic, `selectors` which of them a reader means. `subscriptions` is the table of who
is subscribed on all nodes, a part of the store; `levels` says from when on new commands may be
written, while nodes are upgraded.

Enters: committed commands and snapshots, in Raft's order.
Leaves: notifications that became visible, the number with which history begins, snapshots.
Never: I/O, a clock, chance: two nodes with the same log hold the same history, byte for byte.
"""
