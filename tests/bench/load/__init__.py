"""The load generator of `just bench sse`: thousands of clients for any server of event streams."""
