"""Streams: every notification to every client that wants it, in order, once.

A client is a cursor into the replicated order, not a queue: `feed` turns notifications into bytes,
each piece of work once whatever the number of clients; `sending` decides who gets which of them
next, and `sockets` writes them. `hub` does so for all streams from one task, a slice of time after
the other. `audience` says who sees what, `frames` and `former_history` are what `feed` and
`retained` keep; `backlog` and `retained` say how long events are kept for clients that lag,
`bearers` which streams end with a token, `open_streams` how many streams there may be, `schedule`
when each gets a heartbeat and its end; `client_messages` and
`websocket_reader` hear what clients of WebSockets say.

Enters: notifications in commit order, sockets with the cursor of their client.
Leaves: Server-Sent Events on those sockets, and why each stream ended.
Never: makes the replicated log wait for a client; starts a task for a client.
"""
