"""Membership by gossip: SWIM in Serf's wire format, a pure core and the sockets that carry it."""
