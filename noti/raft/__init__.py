"""Consensus: a pure core, its log on disk, and the shell that drives them.

The core decides who leads and what is committed; it takes events and answers with effects, and it
lets no message out before what the message says is on disk. The storage keeps log, hard state and
snapshot in files that survive a crash at any moment. The shell (`replica`) carries effects to disk,
network and state machine, `peers` keeps a stream to every other node, and `forwarder` lets every
node do what only the leader can.

Enters: commands to commit, messages from peers, what the disk has made durable.
Leaves: committed commands in one order on every node, messages to peers, records for the disk.
Never: acknowledges what a majority does not have on disk.
"""
