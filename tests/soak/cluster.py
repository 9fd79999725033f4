"""The nodes of a soak: real processes, each in its own network if possible, kept running.

No node stays dead because nobody started it, unless it is to be held back.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from noti.address import Address
from noti.cli.children import Child, ending
from noti.swim.core.keyring import KEY_BYTES, format_key
from tests.interop.processes import (
    children_of,
    children_running,
    get_json,
    web_workers_of,
    written,
)
from tests.ports import free_port
from tests.soak.network import Machine
from tests.soak.setups import Setup

RESTART_S = 0.5
STATUS_EVERY_S = 0.2
STOP_S_MAX = 15.0
LAGS_MAX = 200
"""Entries that a node may be behind and still counts as one that has caught up."""
FULL_DISK_WORDS = "No space left on device"


@dataclass(frozen=True)
class Exit:
    """One end of a node's process."""

    node: str
    status: str
    expected: str
    """Why it was to be; empty when nobody wanted it."""
    last_line: str
    at: float = 0.0
    """In `time.monotonic()` seconds."""


@dataclass
class SoakNode:
    """One `noti run`, and the same again after it ended."""

    name: str
    directory: Path
    machine: Machine | None
    setup: Setup
    child: Child | None = None
    expected: str = ""
    """Why the process that runs now is about to end."""
    held: bool = False
    """Not to be started again for the time being."""
    disk_full: bool = False
    ports: tuple[int, int, int, int] = (8402, 8401, 8400, 8403)
    exits: list[Exit] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.machine is None:
            self.ports = (free_port(), free_port(), free_port(), free_port())

    @property
    def host(self) -> str:
        return self.machine.address if self.machine else "127.0.0.1"

    @property
    def http(self) -> Address:
        return self.host, self.ports[0]

    @property
    def gossip(self) -> Address:
        return self.host, self.ports[1]

    @property
    def rpc(self) -> Address:
        return self.host, self.ports[2]

    @property
    def ops(self) -> Address:
        return self.host, self.ports[3]

    @property
    def data_dir(self) -> Path:
        return self.directory / self.name / "data"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    @property
    def process(self) -> Child:
        assert self.child is not None, "not started yet"
        return self.child

    def prepare(self, arguments: list[str]) -> None:
        """Say how it is run."""
        command = [
            *(self.machine.enter() if self.machine else []),
            *(sys.executable, "-m", "noti", "run", "--name", self.name),
            *("--data-dir", str(self.data_dir)),
            *("--http-addr", written(self.http)),
            *("--gossip-addr", written(self.gossip)),
            *("--rpc-addr", written(self.rpc)),
            *("--ops-addr", written(self.ops)),
            *arguments,
        ]
        self.child = Child(self.name, command, self.log)

    def signal(self, number: signal.Signals, why: str = "") -> None:
        """Send a signal; `why` is given when the process is to end by it."""
        self.expected = why or self.expected
        os.kill(self.process.pid, number)

    def writer(self) -> int | None:
        """Return the process that writes its log; None when there is none now."""
        return next(iter(children_running(self.process.pid, b"disk_writer")), None)

    def workers(self) -> list[int]:
        """Return the processes that serve its browsers; none when it does that by itself."""
        return web_workers_of(self.process.pid)

    def family(self) -> list[int]:
        """Return its process and the children of that, which may be gone a moment later."""
        try:
            return [self.process.pid, *children_of(self.process.pid)]
        except FileNotFoundError:
            return []

    async def status(self) -> dict[str, Any] | None:
        report: dict[str, Any] | None = await get_json(self.ops, "/status")
        return report

    async def keep_running(self, say: Callable[[str], None]) -> None:
        """Start it after each of its deaths, until cancelled; the process runs on then."""
        while True:
            status = await self.process.wait()
            last = self.process.last_line()
            expected, self.expected = self.expected, ""
            if not expected and status == 1 and self.disk_full and FULL_DISK_WORDS in last:
                expected = "full disk"
            self.exits.append(Exit(self.name, ending(status), expected, last, time.monotonic()))
            if not expected:
                say(f"UNEXPECTED: {self.name} ended by itself, {ending(status)}: {last[:500]}")
            await trio.sleep(RESTART_S)
            while self.held:  # noqa: ASYNC110
                await trio.sleep(0.05)
            self.process.start()


class SoakCluster:
    """All nodes."""

    def __init__(self, nodes: list[SoakNode], say: Callable[[str], None]) -> None:
        self.nodes = nodes
        self._say = say

    def start(
        self,
        nursery: trio.Nursery,
        nats_url: str,
        history_size: int,
        settings: Sequence[str],
        tls: Sequence[str],
    ) -> None:
        """Start all nodes with these settings; some with TLS, whose settings are `tls`.

        One of them is set up a little differently.
        """
        join = [part for node in self.nodes for part in ("--join", written(node.gossip))]
        keys = self.nodes[0].directory / "gossip.keys"
        keys.write_text(format_key(bytes(KEY_BYTES[-1])))
        common = [*join, "--bootstrap-expect", str(min(5, len(self.nodes))), "--nats-url", nats_url]
        common += ["--gossip-key-file", str(keys)]
        for node in self.nodes:
            odd = node is self.nodes[1]
            size = history_size * 9 // 10 if odd else history_size
            its_own = ["--history-size", str(size), "--gossip-profile", "local"]
            its_own += tls if node.setup.has_tls else []
            its_own += ["--web-workers", str(node.setup.workers)]
            node.prepare([*common, *its_own, *settings])
            node.process.start()
            nursery.start_soon(node.keep_running, self._say)

    async def leader(self) -> SoakNode | None:
        """Return the node that leads in the highest term, among those that answer."""
        reports = [(node, await node.status()) for node in self.nodes]
        leading = [
            (report["term"], place)
            for place, (_, report) in enumerate(reports)
            if report is not None and report["role"] == "leader"
        ]
        return self.nodes[max(leading)[1]] if leading else None

    async def until_whole(self, limit_s: float) -> bool:
        """Wait until all nodes serve, follow one leader and have caught up; False when they do not
        in time."""
        with trio.move_on_after(limit_s):
            while not await self._is_whole():  # noqa: ASYNC110
                await trio.sleep(STATUS_EVERY_S)
            return True
        return False

    async def _is_whole(self) -> bool:
        reports = [await node.status() for node in self.nodes]
        known = [report for report in reports if report is not None and report["ready"]]
        if len(known) < len(self.nodes):
            return False
        applied = [report["applied"] for report in known]
        alive = all(member["state"] == "alive" for one in known for member in one["members"])
        return (
            alive
            and len({report["leader"] for report in known}) == 1
            and max(applied) - min(applied) < LAGS_MAX
            and all(
                [one["state"] for one in report["web_workers"]] == ["serving"] * node.setup.workers
                for node, report in zip(self.nodes, known, strict=True)
            )
            and all(report["voters"] == min(5, len(self.nodes)) for report in known)
        )

    async def stop(self) -> list[str]:
        """Stop all nodes as an operator would; return what was wrong with that."""
        problems: list[str] = []

        async def stop(node: SoakNode) -> None:
            node.held = True
            node.signal(signal.SIGTERM, "the end")
            with trio.move_on_after(STOP_S_MAX):
                status = await node.process.wait()
                if status != 0:
                    problems.append(f"{node.name} stopped with {ending(status)}")
                return
            problems.append(f"{node.name} did not stop within {STOP_S_MAX:g} s of SIGTERM")

        async with trio.open_nursery() as nursery:
            for node in self.nodes:
                nursery.start_soon(stop, node)
        return problems

    async def destroy(self) -> None:
        """Leave nothing, whatever state it is in."""
        for node in self.nodes:
            if node.child is not None:
                node.held = True
                await node.child.stop(0)
            if node.machine is not None:
                await node.machine.close()
