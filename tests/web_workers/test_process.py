"""Promises of a web worker's process, with a whole node as its parent."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import h11
import pytest
import trio

from noti.streams import sse
from tests.http.stage import LIMIT_S, client, until
from tests.interop.processes import NodeProcess, children_of, is_running, running_node

STREAM = "/.well-known/mercure?topic=t"
FOREIGN = ("noti.raft.core.machine", "noti.raft.storage", "noti.rpc.grpc", "noti.swim")
LIBRARIES = ("grpclib", "nats", "betterproto2")


def test_it_starts_without_what_only_a_node_needs() -> None:
    listing = "import sys, noti.web_workers.process; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True, timeout=60
    ).stdout.split()
    assert "noti.streams.hub" in loaded
    assert not [name for name in loaded if name.startswith(FOREIGN + LIBRARIES)]


def workers_of(node: NodeProcess) -> set[int]:
    def is_worker(pid: int) -> bool:
        return b"noti.web_workers" in Path(f"/proc/{pid}/cmdline").read_bytes()

    return set(filter(is_worker, children_of(node.pid)))


@pytest.mark.interop
async def test_a_node_that_is_killed_takes_its_workers_and_their_streams_with_it(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path, "--web-workers", "2") as node:
        workers = workers_of(node)
        assert len(workers) == 2
        stopped = min(workers)
        async with client(node.http) as reader:
            await reader.request(STREAM, [("accept", sse.MEDIA_TYPE)])
            os.kill(stopped, signal.SIGSTOP)
            await node.kill()
            ended = False
            with (
                trio.fail_after(LIMIT_S),
                suppress(h11.RemoteProtocolError, trio.BrokenResourceError),
            ):
                await reader.read_all()
                ended = True
            assert not ended, "its last words would be those of a node that stops in order"
        await until(lambda: not any(map(is_running, workers)))


@pytest.mark.interop
async def test_a_node_that_stops_in_order_does_not_wait_for_a_worker_that_hangs(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path, "--web-workers", "2") as node:
        workers = workers_of(node)
        os.kill(min(workers), signal.SIGSTOP)
        node.signal(signal.SIGTERM)
        with trio.fail_after(10.0):
            assert await node.wait() == 0
        assert not any(map(is_running, workers))
        assert node.listens() == []
