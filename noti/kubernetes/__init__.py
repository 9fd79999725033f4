"""The operator: keeps what Kubernetes knows of a cluster in step with who leads it.

It asks the pods of a cluster for their roles over gRPC and labels them, so that services can route
by role. Several may run: the holder of a Lease works (`election`). A process of its own, apart from
the nodes; what it decides is pure (`labels`, `election`, `status`).

Enters: LeaderStatusCheckers and pods as the Kubernetes API shows them, roles as nodes tell them.
Leaves: labels of pods, conditions and events of LeaderStatusCheckers.
Never: touches the cluster of nodes itself; writes without holding the Lease.
"""
