"""`just soak minutes=10 seed=N nodes=3 clients=300`: a real cluster under random trouble.

Three to five `noti run`, a nats-server, four publishers of numbered events (two streams of
JetStream, gRPC and HTTP), browsers that count. One stream is a work queue with payloads of
bb-dist-noti; the other, whose retention the seed chooses (limits or interest), has text with its
topics in headers, JSON and CloudEvents. With every twentieth message of each comes one that can
never be an event. What is published over HTTP has ids that come twice, with other content,
and is private now and then; some is published again although it was acknowledged. One browser in
four has no token.
Nodes have TLS or none, and as many web workers as the seed says; browsers read Server-Sent Events
over HTTP/1.1 or HTTP/2 (four streams a connection), or a WebSocket with one of both subprotocols.
Episodes of trouble are drawn from the seed (`schedule.py`); after each the cluster has to be whole
again, and there is calm. At most a minority of the nodes is in trouble at one time. Every node has
a network of its own, if the machine permits that; otherwise it says so, and goes without partitions
and full disks.

History is so long that no browser ever misses an event. With `history=1000`, say, bursts are longer
than it, so that browsers which were away at that time are told of a gap; those whose node was well
must see everything all the same.

How to read the table, line by line:

- *events acknowledged*: those whose publisher was told so, by JetStream or by a node.
- *acknowledged and never shown*: of those, what no browser ever got.
- *lost*, *twice*, *out of order*: deliveries, each browser's counted, over all its connections.
  All browsers must see one sequence, whichever node they read.
- *deliveries by* a transport: each that there is must have had some.
- *WebSockets closed with code*: 1006 stands for none, as when a node or a web worker died.
- *dead letters*: messages that can never be events, acknowledged to their publisher. Each must have
  a copy in the stream of dead letters, and only one, whoever made it and however often NATS or the
  leader died meanwhile.
- *left in streams unacknowledged*: in streams that drop what is acknowledged, at the end.
- *private events shown without the right*: to browsers without a token, which must see all others,
  in the same order as those that have one.
- *unexpected exits*: nodes that ended although nobody killed them. One whose disk is full may end.
- *gaps told*: no browser was away for longer than history lasts, unless `history=` made it short.
- *closed as slow*: streams that nodes closed as `behind`, `stalled` or the like, less one for each
  stream of the few browsers that never read.
- *streams ended without trouble*: at nodes that nothing was done to then, or right before, and
  whose process had not ended since the browser connected: it may read that end long after.
- *longest time without an event*: at all browsers together, whatever went wrong meanwhile.
- *longest turn of the browsers*: how long their one process looked at no socket. When it is long,
  the machine is too slow for so many browsers, and the line above says little.
- *events in all histories*: where the history of each node begins, asked for at the end. One node
  has another `--history-size`; what is shown must not depend on it.
- *subscriptions that nodes list*: at the end, when all browsers stay where they are; as many as
  there are open streams.
- *memory* and *open files*: medians of the first and the last quarter. The sum of all nodes is
  judged from half an hour on, second quarter against last.
- *other promises*: a web worker that died or hangs and is not replaced by its node, a cluster that
  is not whole again a minute after its trouble, a node that does not stop when told, a burst that
  is not taken; told in the timeline.

The directory that is named at the end holds the timeline, the table, the nodes' data and logs.
"""
