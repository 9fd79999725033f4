"""gRPC between nodes, and towards operators and publishers.

`grpc` is the network that a node serves and dials with. Below it, `sniffing` tells TLS from plain
text, `accepting` serves calls within limits, `dialing` opens connections, and `connections`,
`inbox` and `tls` are the HTTP/2 connection itself: grpclib's, on asyncio's loop, with what it
lacks. Above it, `raft_streams`, `publish_service` and `services` answer calls, and `roles` and
`publish_client` make some. `codec` turns Raft's messages into frames and back; `generated/` comes
from `proto/`.

Enters: calls of peers, operators, publishers and load balancers; bytes from their sockets.
Leaves: messages for Raft, events for publishing, answers; `NotiError`s for all that goes wrong.
Never: lets an exception of grpclib, h2 or asyncio reach the node.
"""

# First of all: it replaces functions of asyncio that grpclib takes hold of when it is imported.
import trio_asyncio as trio_asyncio
