"""Kubernetes without Kubernetes: the chart's pods as processes, each with a network of its own.

`just k8s-rehearsal` runs it, and so does `tests/interop/test_rehearsal.py`. What the chart renders
is taken as it is: commands, environment, mounts, probes, preStop, grace period, selectors, the
annotations of the Ingress and the rights of the Roles; the operator runs too. Played are: the parts
of Kubernetes that act on that (kubelet, controllers, DNS, API server), and ingress-nginx. Not there
are images, users and resource limits of containers, NetworkPolicies and drivers of volumes.
"""
