"""Nodes as real processes on this machine, to be killed, paused, stopped and started again."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import h11
import trio

from noti.address import Address
from noti.cli.children import Child
from tests.http.stage import client
from tests.interop.preloaded import PreloadedChild
from tests.ports import free_port

HOST = "127.0.0.1"
PROGRAM = (sys.executable, "-m", "noti")
LOG_LINES_SHOWN = 40
ANSWER_S_MAX = 2.0
"""A paused node accepts connections and says nothing."""


class NodeProcess:
    """One `noti run`, and the same again after it ended."""

    def __init__(self, name: str, directory: Path) -> None:
        """Choose ports; the data is in `directory/name`, the log beside it."""
        self.name = name
        self.data_dir = directory / name
        self.program: Sequence[str] = PROGRAM
        self.move()
        self._log = directory / f"{name}.log"
        self._child: Child | None = None

    def move(self) -> None:
        """Choose other addresses, which the next start with arguments uses."""
        self.http: Address = (HOST, free_port())
        self.gossip: Address = (HOST, free_port())
        self.rpc: Address = (HOST, free_port())
        self.ops: Address = (HOST, free_port())

    def command(self, *arguments: str) -> list[str]:
        """Return the command that runs this node."""
        return [
            *(*self.program, "run", "--name", self.name),
            *("--data-dir", str(self.data_dir)),
            *("--http-addr", written(self.http)),
            *("--gossip-addr", written(self.gossip)),
            *("--rpc-addr", written(self.rpc)),
            *("--ops-addr", written(self.ops)),
            *("--gossip-profile", "local"),
            # However many cores there are; `arguments` may want some.
            *("--web-workers", "0"),
            *arguments,
        ]

    def start(self, *arguments: str) -> None:
        """Start it with these arguments; with none, as it was started before."""
        if self._child is None or arguments:
            self._child = self._child_of(self.command(*arguments))
        self._child.start()

    def _child_of(self, command: Sequence[str]) -> Child:
        program, rest = command[: len(PROGRAM)], command[len(PROGRAM) :]
        if tuple(program) == PROGRAM:
            return PreloadedChild(self.name, rest, self._log)
        return Child(self.name, command, self._log)

    @property
    def _process(self) -> Child:
        assert self._child is not None, "not started yet"
        return self._child

    @property
    def pid(self) -> int:
        """The process id of the present or last process."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> float:
        """Send a signal and return the moment, in `time.monotonic()` seconds."""
        now = time.monotonic()
        os.kill(self.pid, number)
        return now

    async def wait(self) -> int:
        """Wait for the end and return the exit status, or minus the signal."""
        return await self._process.wait()

    async def kill(self) -> float:
        """Kill it as a crash would; return the moment."""
        moment = self.signal(signal.SIGKILL)
        await self.wait()
        return moment

    async def destroy(self) -> None:
        """Make sure that nothing is left, whatever state it is in."""
        if self._child is not None:
            await self._child.stop(0)

    async def status(self) -> dict[str, Any] | None:
        """Return what it says about itself, or None when it does not answer."""
        report: dict[str, Any] | None = await get_json(self.ops, "/status")
        return report

    async def until_up(self) -> dict[str, Any]:
        """Wait until it is ready to serve browsers, and return its status."""
        with trio.fail_after(30):
            while True:
                status = await self.status()
                if status is not None and status["ready"]:
                    return status
                await trio.sleep(0.02)

    async def until_reading(self) -> None:
        """Wait until it, the leader, reads all its streams."""
        with trio.fail_after(30):
            while True:
                status = await self.until_up()
                if {one["state"] for one in status["source"]["streams"]} == {"reading"}:
                    return
                await trio.sleep(0.02)

    def log_text(self) -> str:
        """Everything it wrote."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def last_lines(self) -> str:
        """Return the end of the log, for a person."""
        return "\n".join(self.log_text().splitlines()[-LOG_LINES_SHOWN:])

    def listens(self) -> list[Address]:
        """Return those of its addresses that are in use."""
        addresses = (self.http, self.gossip, self.rpc, self.ops)
        in_use = [address for address in addresses if _answers(address)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                udp.bind(self.gossip)
            except OSError:
                in_use.append(self.gossip)
        return in_use


@asynccontextmanager
async def destroyed_in_the_end(nodes: Sequence[NodeProcess]) -> AsyncIterator[None]:
    """Leave none of these nodes behind; what they said last is shown if the body fails."""
    try:
        yield
    except BaseException:
        for node in nodes:
            print(f"--- {node.name}\n{node.last_lines()}")
        raise
    finally:
        with trio.CancelScope(shield=True):
            for node in nodes:
                await node.destroy()


@asynccontextmanager
async def running_node(directory: Path, *arguments: str) -> AsyncIterator[NodeProcess]:
    """Run one node that is a cluster of its own, without a source, unless told otherwise."""
    node = NodeProcess("single", directory)
    async with destroyed_in_the_end([node]):
        node.start(*arguments)
        await node.until_up()
        yield node


def _answers(address: Address) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) == 0


def written(address: Address) -> str:
    """Return an address as flags take it."""
    return f"{address[0]}:{address[1]}"


async def get_json(address: Address, path: str) -> Any:
    """Return the JSON at `path`, or None when nobody answers."""
    with trio.move_on_after(ANSWER_S_MAX):
        try:
            async with client(address) as http:
                await http.request(path)
                return json.loads(await http.read_all())
        except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError):
            return None
    return None


def children_of(pid: int) -> set[int]:
    """Return the processes that a process started and that still run."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for thread in threads for child in (thread / "children").read_text().split()}


def web_workers_of(pid: int) -> list[int]:
    """Return the processes that serve a node's browsers for it."""
    return children_running(pid, b"noti.web_workers")


def children_running(pid: int, part: bytes) -> list[int]:
    """Return those of a process's children whose command has this part."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for child in children_of(pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if part in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(child)
    return sorted(found)


def is_running(pid: int) -> bool:
    """Whether there is such a process, other than one that only waits to be noticed as dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def why_it_ended(written: str) -> str:
    """Return the one line, plain or JSON, in which a node says at its end why it cannot go on."""
    plain = [line for line in written.splitlines() if line.startswith("noti: error: ")]
    logged = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    fatal: list[str] = [line["event"] for line in logged if line["level"] == "critical"]
    [reason] = plain + fatal
    return reason.removeprefix("noti: error: ")


def run_to_end(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that should end by itself soon."""
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
