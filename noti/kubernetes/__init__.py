"""The operator: keeps the labels of a cluster's pods in step with their roles in Raft.

It asks the pods of a cluster for their roles over gRPC and labels them, so that services can route
by role. Several may run: the holder of a Lease works (`election`). A process of its own, apart from
the nodes; what it decides is pure (`labels`, `election`, `status`). `operator` is its nursery tree,
`reconciling` the work for one cluster, `informer` a cache of the objects that are watched, `client`
the way to the API.

Enters: LeaderStatusCheckers and pods as the Kubernetes API shows them, roles as nodes report them.
Leaves: labels of pods, conditions and events of LeaderStatusCheckers.
Never: touches the cluster of nodes itself; writes without holding the Lease.
"""
