"""Where events come from: JetStream, read by the leader only."""
