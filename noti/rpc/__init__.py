"""gRPC between nodes and towards operators, and the one asyncio loop it needs."""
