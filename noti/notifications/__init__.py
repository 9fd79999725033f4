"""What is replicated: the last notifications, numbered and deduplicated, the same on every node."""
