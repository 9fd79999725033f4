"""Consensus: a pure core, its log on disk, and the shell that drives them.

The core decides who leads and what is committed; it takes events and answers with effects, and it
lets no message out before what the message says is on disk. The storage keeps log, hard state and
snapshot in files that survive a crash at any moment. `replica` is the shell around both: it
carries effects to disk, network and state machine. `requests` keeps what this node asked of the
core until it is answered, `applier` carries out what is committed, `health` reports what ails
consensus, `peers` keeps a stream to every other node, `forwarder` lets every node do what only the
leader can, and `intake` holds events back while browsers cannot follow.

Enters: commands to commit, messages from peers, what the disk has made durable.
Leaves: committed commands in one order on every node, messages to peers, records for the disk.
Never: acknowledges what a majority does not have on disk.
"""
