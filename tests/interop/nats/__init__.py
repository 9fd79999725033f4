"""NATS JetStream in front of real nodes: crashes at full speed, clients of others, examples.

Enters: numbered events into streams of the three retentions, from nats-py, the `nats` command and
nats.go. Leaves: what browsers saw, compared with what was stored. Never: a port that is fixed.
"""
