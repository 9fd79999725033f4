"""The bridge from NATS JetStream: the leader reads the stream, and acknowledges what is committed.

`source` holds a place in the stream by a durable pull consumer (`pull` keeps the order), `bridge`
carries what it reads into the replicated log, `category` decodes the payload.

Enters: messages of one stream, in its order, again after a redelivery.
Leaves: events for the log; acknowledgements, after the commit; what can never be an event, ended.
Never: acknowledges before a commit; lets an exception of nats-py reach the node.
"""
