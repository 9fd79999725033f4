"""Real nodes of this machine, for the commands that ask them."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from noti.cli import exit_status
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

    def __init__(self, node: NodeProcess, capsys: pytest.CaptureFixture[str]) -> None:
        self.node = node
        self._capsys = capsys

    def run(self, *arguments: str) -> tuple[int, list[str]]:
        """Return a command's exit status, and the lines that it printed or else its error."""
        status = exit_status([*arguments, "--data-dir", str(self.node.data_dir)])
        captured = self._capsys.readouterr()
        return status, (captured.out or captured.err).splitlines()

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
