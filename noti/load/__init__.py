"""The load generator of `noti bench sse`: thousands of clients for any server of event streams."""
