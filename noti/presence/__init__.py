"""Presence: who is subscribed, known to all nodes.

`open_subscribers` is what this node's streams are and what of them the cluster does not know yet,
`announcing` carries that into the log in batches (by `commits`) at a `pace` that leaves room for
events, `presence` is what requests need, and `dead_nodes`, on the leader, ends what nodes had
announced that are gone. The table itself is `noti.history.subscriptions`.

Enters: streams that open and close; the members that gossip sees; the replicated table.
Leaves: commands about subscriptions, each repeated until it is known what became of it.
Never: an end of the node or of a stream, whatever goes wrong here; a wait of a stream for the log.
"""
