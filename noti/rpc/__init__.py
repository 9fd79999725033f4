"""gRPC between nodes and towards operators, and the one asyncio loop it needs."""

# First of all: it replaces functions of asyncio that grpclib takes hold of when it is imported.
import trio_asyncio as trio_asyncio
