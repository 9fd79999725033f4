"""gRPC between nodes and towards operators and publishers, and the asyncio loop it needs.

grpclib and nats-py know asyncio only. One loop (`aio`) runs as a child of the node's Trio tree,
and whatever crosses its shore is a value or an error of ours. `codec` turns what nodes say to
each other into frames and back; `generated/` comes from `proto/`.

Enters: calls of peers, operators, publishers and load balancers; bytes from their sockets.
Leaves: messages for Raft, events for publishing, answers; `NotiError`s for all that goes wrong.
Never: lets an exception of grpclib, h2 or asyncio reach the node.
"""

# First of all: it replaces functions of asyncio that grpclib takes hold of when it is imported.
import trio_asyncio as trio_asyncio
