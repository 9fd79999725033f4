"""Real Serf agents on loopback, from Debian's package, without installing it.

Enters: names, ports, tags. Leaves: running agents, and what they think of the cluster.
Never: root, a system service, a port that is not asked for.
"""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgpack
import trio

from noti.die_with_parent import dying_with_us
from tests.ports import free_port

CACHE = Path(__file__).parents[3] / ".cache" / "serf"

HOST = "127.0.0.1"
START_S_MAX = 30.0
ANSWER_S_MAX = 10.0
LOG_LINES_SHOWN = 40


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


@dataclass(frozen=True, slots=True)
class Said:
    """What a `serf` command answered."""

    status: int
    text: str
    """Everything that it printed, errors included."""


@dataclass
class SerfAgent:
    """A running agent."""

    binary: Path
    name: str
    port: int
    rpc_port: int
    process: subprocess.Popen[bytes]
    log: Path

    async def call(self, *arguments: str) -> str:
        """Run a `serf` command against this agent and return what it prints; it must succeed."""
        said = await self.ask(*arguments)
        assert said.status == 0, f"serf {' '.join(arguments)}: {said.text}"
        return said.text

    async def ask(self, *arguments: str) -> Said:
        """Run a `serf` command against this agent, whatever becomes of it."""
        command = [str(self.binary), arguments[0], f"-rpc-addr={HOST}:{self.rpc_port}"]
        done = await trio.run_process(
            [*command, *arguments[1:]], check=False, capture_stdout=True, stderr=subprocess.STDOUT
        )
        return Said(done.returncode, done.stdout.decode())

    async def members(self) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Return status and tags of every member, as this agent sees them; none when it is gone."""
        try:
            listed = await _listed_members(self.rpc_port)
        except (OSError, trio.BrokenResourceError):
            return {}
        return {each["Name"]: (each["Status"], each["Tags"]) for each in listed}

    async def statuses(self) -> dict[str, str]:
        """Return the status of every member."""
        return {name: status for name, (status, _) in (await self.members()).items()}

    def log_text(self) -> str:
        """Return what the agent has logged so far, but for who asked it."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(line for line in lines if "agent.ipc" not in line)

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """Let it do nothing, not even answer, until `resume`."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def serf_agent(
    name: str,
    *arguments: str,
    join: Sequence[int] = (),
    tags: Mapping[str, str] | None = None,
) -> AsyncIterator[SerfAgent]:
    """Run an agent for the time of the context; when it is entered, it has joined these ports.

    It runs with Serf's own defaults, but for the `local` profile and `arguments`. Fails when it
    ends at once, as it does when it cannot join.
    """
    binary = await trio.to_thread.run_sync(serf_binary)
    port, rpc_port = free_port(), free_port()
    command = [str(binary), "agent", f"-node={name}", f"-bind={HOST}:{port}"]
    command += [f"-rpc-addr={HOST}:{rpc_port}", "-profile=local", *arguments]
    command += [f"-tag={tag}={value}" for tag, value in (tags or {}).items()]
    command += [f"-join={HOST}:{other}" for other in join]
    with tempfile.NamedTemporaryFile(prefix=f"serf-{name}-") as log:
        agent = SerfAgent(binary, name, port, rpc_port, _start(command, log), Path(log.name))
        try:
            await _until_it_answers(agent, joins=bool(join))
            yield agent
        except BaseException:
            print("\n".join([f"--- {name}", *agent.log_text().splitlines()[-LOG_LINES_SHOWN:]]))
            raise
        finally:
            agent.kill()


def _start(command: Sequence[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    # Not by Trio, which forks in a thread: the child would die with that.
    return subprocess.Popen(
        dying_with_us(*command), stdin=subprocess.DEVNULL, stdout=log, stderr=log
    )


async def _until_it_answers(agent: SerfAgent, *, joins: bool) -> None:
    with trio.fail_after(START_S_MAX):
        while agent.process.poll() is None:
            joined = "Join completed" in agent.log_text() or not joins
            if joined and await agent.members():
                return
            await trio.sleep(0.05)
    raise AssertionError(f"serf agent {agent.name} ended at once: {agent.log_text()}")


async def _listed_members(rpc_port: int) -> list[dict[str, Any]]:
    """Ask an agent over its RPC (maps in MessagePack), which costs less than to run `serf`."""
    asked = msgpack.packb({"Command": "handshake", "Seq": 0}) + msgpack.packb({"Version": 1})
    asked += msgpack.packb({"Command": "members", "Seq": 1})
    unpacker = msgpack.Unpacker(unicode_errors="replace")
    with trio.fail_after(ANSWER_S_MAX):
        async with await trio.open_tcp_stream(HOST, rpc_port) as stream:
            await stream.send_all(asked)
            async for data in stream:
                unpacker.feed(data)
                for answer in unpacker:
                    if "Members" in answer:
                        listed: list[dict[str, Any]] = answer["Members"]
                        return listed
    raise OSError("the agent closed the connection")
