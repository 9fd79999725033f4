"""Real Serf agents on loopback, from Debian's package, without installing it.

Enters: names, ports, tags. Leaves: running agents, and what they think of the cluster.
Never: root, a system service, a port that is not asked for.
"""

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

CACHE = Path(__file__).parents[2] / ".cache" / "serf"

STOP_S = 5.0
"""An agent that was killed is gone after this."""


def serf_binary() -> Path:
    """Return the path of `serf`, downloading the package with apt when it is nowhere."""
    installed = shutil.which("serf")
    if installed:
        return Path(installed)
    binary = CACHE / "usr" / "bin" / "serf"
    if not binary.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Unpacked, not installed: the package would start an agent on all interfaces.
        subprocess.run(["apt-get", "download", "serf"], cwd=CACHE, check=True, capture_output=True)
        package = next(CACHE.glob("serf_*.deb"))
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=CACHE, check=True)
    return binary


def free_port() -> int:
    """Return a port that is free on loopback for UDP and TCP at this moment."""
    while True:
        with (
            socket.socket(type=socket.SOCK_DGRAM) as udp,
            socket.socket(type=socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            port: int = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@dataclass
class SerfAgent:
    """A running agent."""

    binary: Path
    name: str
    port: int
    rpc_port: int
    process: trio.Process

    async def call(self, *arguments: str) -> str:
        """Run a `serf` command against this agent and return what it prints."""
        command = [str(self.binary), arguments[0], f"-rpc-addr=127.0.0.1:{self.rpc_port}"]
        done = await trio.run_process([*command, *arguments[1:]], capture_stdout=True)
        text: str = done.stdout.decode()
        return text

    async def members(self) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Return status and tags of every member, as this agent sees them."""
        listed = json.loads(await self.call("members", "-format=json"))
        return {each["name"]: (each["status"], each["tags"]) for each in listed["members"]}

    async def statuses(self) -> dict[str, str]:
        return {name: status for name, (status, _) in (await self.members()).items()}

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def serf_agent(
    name: str, *, join: int | None = None, tags: Mapping[str, str] | None = None
) -> AsyncIterator[SerfAgent]:
    """Run an agent for the time of the context; its RPC answers when the context is entered."""
    binary = await trio.to_thread.run_sync(serf_binary)
    port, rpc_port = free_port(), free_port()
    command = [str(binary), "agent", f"-node={name}", f"-bind=127.0.0.1:{port}"]
    command += [f"-rpc-addr=127.0.0.1:{rpc_port}", "-profile=local", "-disable-compression"]
    command += [f"-tag={key}={value}" for key, value in (tags or {}).items()]
    if join is not None:
        command.append(f"-join=127.0.0.1:{join}")
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    agent = SerfAgent(binary, name, port, rpc_port, process)
    try:
        with trio.fail_after(30):
            while process.poll() is None:
                try:
                    await agent.members()
                    break
                except subprocess.CalledProcessError:
                    await trio.sleep(0.05)
        assert process.poll() is None, f"serf agent {name} ended at once"
        yield agent
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + STOP_S):
            if process.poll() is None:
                await agent.kill()
