"""Publishing: events on their way from publishers to the leader's log.

Any node takes events; `publisher` has the leader commit them, in the order in which they came, and
answers when a majority has them on disk. `events` says what can be an event, `limits` makes the
leader's limits of history those of the cluster and lets old events expire, and `nats/` is the
bridge from JetStream.

Enters: events as publishers send them, over HTTP or gRPC, or from JetStream.
Leaves: commands for the replicated log; ids of committed events, or the error that says why not.
Never: acknowledges what is not committed; leaves a publisher without an answer.
"""
