"""Real nodes of this machine for the commands that ask them, and one that answers as told."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.cli import exit_status
from noti.errors import LocalError
from noti.membership.control import ControlSocket
from noti.membership.ports import Tell
from tests.interop.processes import NodeProcess, written

APPEAR_S_MAX = 30.0
"""Two nodes find each other within a second, on a machine that has time."""


@contextmanager
def two_nodes(directory: Path, *arguments: str) -> Iterator[list[NodeProcess]]:
    """Run two nodes that gossip with each other; they answer when the context is entered."""
    nodes = [NodeProcess(name, directory) for name in ("node1", "node2")]
    try:
        nodes[0].start(*arguments)
        nodes[1].start("--join", written(nodes[0].gossip), *arguments)
        yield nodes
    finally:
        for node in nodes:
            trio.run(node.destroy)


class Shell:
    """Runs commands against one node, in this process."""

    def __init__(self, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._data_dir = data_dir
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, list[str]]:
        """Return a command's exit status and the lines that it printed, those of errors last."""
        status = exit_status([*arguments, "--data-dir", str(self._data_dir)])
        captured = self._capsys.readouterr()
        return status, (captured.out + captured.err).splitlines()

    def until_it_prints(self, wanted: Callable[[str], bool], *arguments: str) -> str:
        """Run a command again and again until its output is as wanted, and return that."""
        printed = ""
        ends_at = time.monotonic() + APPEAR_S_MAX
        while time.monotonic() < ends_at:
            status, lines = self.run(*arguments)
            printed = "\n".join(lines)
            if status == 0 and wanted(printed):
                return printed
            time.sleep(0.05)
        raise AssertionError(f"waited in vain; the last output: {printed}")

    def until_members_are(self, **statuses: str) -> None:
        """Wait until the node knows just these members, with these statuses."""

        def are_these(printed: str) -> bool:
            members = json.loads(printed)["members"]
            return {each["name"]: each["status"] for each in members} == statuses

        self.until_it_prints(are_these, "members", "--format", "json")


class ScriptedNode:
    """What stands at the control socket and answers as it is told."""

    def __init__(self, directory: Path) -> None:
        self.data_dir = directory
        self.answers: dict[str, list[Mapping[str, object]]] = {}
        """By the kind of request; what is not here is rejected."""
        self.asked: list[dict[str, Any]] = []

    async def carry_out(self, request: object, tell: Tell) -> None:
        assert isinstance(request, dict)
        self.asked.append(request)
        if request["request"] not in self.answers:
            raise LocalError(f"no {request['request']} here")
        for answer in self.answers[request["request"]]:
            await tell(answer)


@contextmanager
def scripted_node(directory: Path) -> Iterator[ScriptedNode]:
    """Serve the control socket in a thread, for commands that block the one of the test."""
    node = ScriptedNode(directory)
    started = threading.Event()
    tokens: list[trio.lowlevel.TrioToken] = []
    scope = trio.CancelScope()

    async def serve() -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(ControlSocket(directory).serve, node.carry_out)
                tokens.append(trio.lowlevel.current_trio_token())
                started.set()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert started.wait(10)
        yield node
    finally:
        tokens[0].run_sync_soon(scope.cancel)
        thread.join()
