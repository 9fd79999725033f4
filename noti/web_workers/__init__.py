"""Web workers: processes that serve the browsers of a node, so that a node uses every core.

A worker is a replica of the node's state machine, without consensus: it gets the state once, and
then every command that the node applies, in order, over a socket; what only the node can do, it
asks the node for on the same socket. So all that a worker shows is what the node would show, and
an answer that comes behind a command finds it applied. `messages` is what the two say, `link` the
socket between them; `workers` is the node's side, which starts, watches and replaces processes;
`node_link` and `process` are the worker's.

Enters: the commands that a node applies; connections at the node's address.
Leaves: streams and answers; commands of publishers, for the node.
Never: makes a node wait for a worker, or one worker for another.
"""
