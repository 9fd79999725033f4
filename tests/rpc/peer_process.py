"""A process that serves one Raft stream, to be killed by a test. Prints its port."""

import sys

import trio

from noti.asyncio_loop import AsyncioLoop
from noti.rpc.grpc import GrpcNetwork
from tests.contract.test_rpc_network import ANY_PORT, Handler, Publications


async def main() -> None:
    asyncio_loop = AsyncioLoop()
    async with trio.open_nursery() as nursery:
        await nursery.start(asyncio_loop.run)
        host, port = await nursery.start(
            GrpcNetwork(asyncio_loop).serve_rpc, ANY_PORT, Handler(), Handler(), Publications()
        )
        sys.stdout.write(f"{host} {port}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    trio.run(main)
