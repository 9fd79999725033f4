"""Real NATS servers: one, or a cluster of three, to be killed, stopped and started again."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.ports import free_port
from tests.publishing.nats.nats_server import NatsServer


class NatsCluster:
    """The servers; a cluster of one is a server alone."""

    def __init__(self, directory: Path, size: int) -> None:
        """Choose ports; nothing runs before `start`."""
        routes = [free_port() for _ in range(size)]
        self.servers = [
            NatsServer(
                directory / f"nats{number}",
                free_port(),
                _cluster_arguments(number, routes) if size > 1 else (),
            )
            for number in range(1, size + 1)
        ]

    @property
    def urls(self) -> list[str]:
        """Where clients connect."""
        return [server.url for server in self.servers]

    @property
    def url(self) -> str:
        """All of them, as noti takes them."""
        return ",".join(self.urls)

    async def start(self) -> None:
        """Start all at the same time."""
        async with trio.open_nursery() as nursery:
            for server in self.servers:
                nursery.start_soon(server.start)

    async def stop(self, server: NatsServer) -> None:
        """End a server in its own way, as an operator's restart does."""
        server.process.terminate()
        with trio.move_on_after(10):
            await server.process.wait()
        await server.kill()  # nothing is left to kill, unless it hangs

    def begin_lame_duck(self, server: NatsServer) -> None:
        """Have a server send its clients away and hand over what it leads, as before an upgrade."""
        server.process.send_signal(signal.SIGUSR2)

    async def destroy(self) -> None:
        """Kill what runs."""
        for server in self.servers:
            await server.kill()


def _cluster_arguments(number: int, routes: list[int]) -> list[str]:
    return [
        *("--name", f"nats{number}"),
        *("--cluster_name", "numbers"),
        *("--cluster", f"nats://127.0.0.1:{routes[number - 1]}"),
        *("--routes", ",".join(f"nats://127.0.0.1:{port}" for port in routes)),
    ]


@asynccontextmanager
async def nats_cluster(directory: Path, size: int) -> AsyncIterator[NatsCluster]:
    """Run servers; nothing is left of them afterwards."""
    cluster = NatsCluster(directory, size)
    try:
        await cluster.start()
        yield cluster
    finally:
        with trio.CancelScope(shield=True):
            await cluster.destroy()
