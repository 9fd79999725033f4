"""Promises of a web worker's process, with a whole node as its parent."""

import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from urllib.parse import urlencode

import h11
import pytest
import trio

from noti.streams import sse
from tests.http.stage import LIMIT_S, client, ids, until
from tests.interop.processes import NodeProcess, children_of, is_running, running_node
from tests.web_workers.stage import SECRET, publisher_token
from tests.web_workers.test_workers import READERS

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


async def publish(node: NodeProcess, number: int, token: str) -> None:
    """Have an event committed, at a worker that answers."""
    body = urlencode({"topic": "t", "data": str(number), "id": str(number)}).encode()
    headers = [
        ("authorization", f"Bearer {token}"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-length", str(len(body))),
    ]
    while True:
        with trio.move_on_after(0.5):
            async with client(node.http) as publisher:
                answer = await publisher.request("/.well-known/mercure", headers, "POST", body)
                if number == 1 and answer.status_code == 503:
                    await trio.sleep(0.05)  # a worker learns within 0.1 s that its node is ready
                    continue
                assert answer.status_code == 200
                return


@pytest.mark.interop
async def test_a_stopped_worker_holds_up_neither_commits_nor_others_and_its_readers_resume(
    tmp_path: Path,
) -> None:
    key, last = tmp_path / "key", 20
    key.write_text(SECRET)
    arguments = ("--web-workers", "2", "--publisher-jwt-key-file", str(key))
    async with running_node(tmp_path, *arguments) as node, AsyncExitStack() as stack:
        found = [await stack.enter_async_context(client(node.http)) for _ in range(READERS)]
        for reader in found:
            await reader.request(STREAM, [("accept", sse.MEDIA_TYPE)])
        token = publisher_token()
        await publish(node, 1, token)
        for reader in found:
            await reader.read_until("data: 1\n")
        stopped = min(workers_of(node))
        os.kill(stopped, signal.SIGSTOP)
        for number in range(2, last + 1):
            await publish(node, number, token)
        resumed = 0
        for reader in found:
            with suppress(h11.RemoteProtocolError, trio.BrokenResourceError):
                await reader.read_until(f"data: {last}\n")
                assert ids(reader.text) == [str(number) for number in range(1, last + 1)]
                continue
            await until(lambda: len(workers_of(node) - {stopped}) == 2)
            async with client(node.http) as again:
                await again.request(STREAM, [("last-event-id", ids(reader.text)[-1])])
                text = reader.text + await again.read_until(f"data: {last}\n")
            assert ids(text) == [str(number) for number in range(1, last + 1)]
            resumed += 1
        assert 0 < resumed < len(found)
