"""The pure core of gossip: `machine` decides what to tell whom.

`member_states` judges the other members by what is said about them, `suspicion` how long a
suspect may answer, `probing` who is probed next, `rejoining` when lost members are dialled again,
`broadcasts` and `outbox` what travels with which packet. `packets`, `streams` and `serf` are the
wire format.

Enters: `events` (packets, streams, the time). Leaves: effects, in `events` too.
Never: I/O, a clock, a task; a packet believed that is not valid from end to end.
"""
