"""One real `noti run`: how it ends, and what it refuses to start with."""

import signal
import socket
import time
from pathlib import Path

import pytest
import trio

from tests.interop.processes import (
    NodeProcess,
    children_of,
    is_running,
    run_to_end,
    running_node,
    why_it_ended,
    written,
)

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STOP_S_MAX = 10.0
"""A promise: so soon after a signal a node is gone."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_node_in_order_and_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with running_node(tmp_path) as node:
        assert set(node.listens()) == {node.http, node.gossip, node.rpc, node.ops}
        children = children_of(node.pid)
        assert children, "a node has a child that writes its log"
        asked_at = node.signal(number)
        with trio.fail_after(STOP_S_MAX):
            assert await node.wait() == 0
        print(f"stopped in {time.monotonic() - asked_at:.2f} s")
        assert node.listens() == []
        assert not any(map(is_running, children))


async def test_a_second_node_on_the_same_data_directory_is_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        second = NodeProcess("second", tmp_path)
        second.data_dir = node.data_dir
        assert str(node.data_dir) in refusal(second.command())
        assert await node.status() is not None


@pytest.mark.parametrize("kind", ["http", "gossip", "rpc"])
async def test_a_port_in_use_is_reported_and_harms_nobody(tmp_path: Path, kind: str) -> None:
    async with running_node(tmp_path) as node:
        second = NodeProcess("second", tmp_path)
        taken = getattr(node, kind)
        setattr(second, kind, taken)
        line = refusal(second.command())
        assert f"--{kind}-addr" in line
        assert written(taken) in line
        assert await node.status() is not None


async def test_a_gossip_port_that_only_udp_holds_is_reported_too(tmp_path: Path) -> None:
    node = NodeProcess("single", tmp_path)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(node.gossip)
        assert written(node.gossip) in refusal(node.command())


def test_an_unknown_flag_is_reported(tmp_path: Path) -> None:
    line = refusal(NodeProcess("single", tmp_path).command("--colour", "blue"))
    assert "--colour" in line


def test_a_wrong_value_is_reported(tmp_path: Path) -> None:
    line = refusal(NodeProcess("single", tmp_path).command("--history-size", "many"))
    assert "--history-size" in line


def refusal(command: list[str]) -> str:
    """Run a command that must fail, and return the one line in which it says why."""
    done = run_to_end(command)
    assert done.returncode not in (0, None)
    assert done.returncode > 0, "it was not killed by a signal"
    return why_it_ended(done.stderr)
