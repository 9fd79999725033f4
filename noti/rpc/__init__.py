"""Streams between nodes, and gRPC towards operators and publishers, on one port.

`grpc` is the network that a node serves and dials with. Below it, `sniffing` tells TLS, HTTP/2 and
streams between nodes apart, `admission` decides who is let in, `accepting` serves within limits,
and `dialing` opens connections. `connections` is the HTTP/2 connection itself: grpclib's, on
asyncio's loop, with what it lacks; `frame_connections` is the one without HTTP/2, for streams
between nodes; `inbox` and `tls` serve both. Above it, `raft_streams`, `publish_service` and
`services` answer, and `roles` and `publish_client` call. `codec` turns Raft's messages into frames
and back; `generated/` comes from `proto/`.

Enters: calls of peers, operators, publishers and load balancers; bytes from their sockets.
Leaves: messages for Raft, events for publishing, answers; `NotiError`s for all that goes wrong.
Never: lets an exception of grpclib, h2 or asyncio reach the node.
"""

# First of all: it replaces functions of asyncio that grpclib takes hold of when it is imported.
import trio_asyncio as trio_asyncio
