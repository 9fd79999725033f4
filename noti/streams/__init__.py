"""Streams: every notification to every client that wants it, in order, once.

A client is a place in the replicated order, not a queue: `feed` turns notifications into bytes,
each piece of work once whatever the number of clients, and `hub` writes those bytes to all
sockets from one task, a `time_slice` at a time. `backlog` and `retained` say how long events are
kept for clients that lag, `limits` how many streams there may be, `schedule` when each gets a
heartbeat and its end.

Enters: notifications in commit order, sockets with the place where their client stands.
Leaves: Server-Sent Events on those sockets, and why each stream ended.
Never: makes the replicated log wait for a client; starts a task for a client.
"""
