"""A real node with 300 file descriptors, and far more clients than that.

Whatever browsers and their keep-alive connections do, probes, metrics, publishers and the log go
on, and the log file does not grow with the number of those who are refused.
"""

import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import h11
import pytest
import trio

from noti.address import Address
from tests import promises
from tests.http.stage import LIMIT_S, Client, until
from tests.interop.processes import NodeProcess, destroyed_in_the_end, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]

FILES = 300
STREAMS = 400
BUSY = 400
STREAMS_MIN = 60
"""Streams that there is room for, at least."""
PROBES = {"http": ("/liveness", "/readiness"), "ops": ("/liveness", "/readiness", "/metrics")}
PROBE_ATTEMPTS = 3
"""As a kubelet, which gives up after so many. A connection that arrives while there are too many
may be closed before its request is sent, if this process, which is the whole crowd, is slow."""
LAST_CHUNK = b"0\r\n\r\n"
AGAIN_S = 0.2
"""Who was sent away comes back after this; browsers wait for longer."""
LOG_LINES_MAX = 8
"""An episode of each kind, begun and ended, and room for what else a node says."""


class FewFiles(NodeProcess):
    """A node that may open few files."""

    def command(self, *arguments: str) -> list[str]:
        command = super().command(*arguments)
        return ["/bin/sh", "-c", 'ulimit -n "$0"; exec "$@"', str(FILES), *command]


class Crowd:
    """Clients that come back whenever they are sent away."""

    def __init__(self, node: NodeProcess) -> None:
        self._node = node
        self.streams = 0
        self.seen = 0
        """Streams that were shown the event."""
        self.turned_away = 0
        self.answered = 0

    async def stream(self) -> None:
        """Be a browser."""
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream(*self._node.http)
                async with stream:
                    await stream.send_all(request("/category"))
                    await self._follow(stream)
            self.turned_away += 1
            await trio.sleep(AGAIN_S)

    async def _follow(self, stream: trio.SocketStream) -> None:
        received, counted = b"", False
        try:
            while (more := await stream.receive_some()) and not received.endswith(LAST_CHUNK):
                received += more
                if not counted and b"retry" in received and not received.endswith(LAST_CHUNK):
                    counted = True
                    self.streams += 1
                self.seen += more.count(b"UserID: 7")
        finally:
            self.streams -= counted

    async def ask_again_and_again(self, path: str) -> None:
        """Be a client that uses one connection for all requests, without a pause."""
        while True:
            with suppress(OSError, trio.BrokenResourceError):
                stream = await trio.open_tcp_stream(*self._node.http)
                async with stream:
                    while await self._ask(stream, path):
                        self.answered += 1
            await trio.sleep(AGAIN_S)

    async def _ask(self, stream: trio.SocketStream, path: str) -> bool:
        await stream.send_all(request(path))
        received = b""
        while True:
            head, end, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if end and length and len(body) >= int(length[1]):
                return head.startswith(b"HTTP/1.1 200 ")
            more = await stream.receive_some()
            if not more:
                return False
            received += more


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


@asynccontextmanager
async def running(node: FewFiles) -> AsyncIterator[Crowd]:
    """Run a node with its crowd, and look at what it wrote meanwhile."""
    async with destroyed_in_the_end([node]):
        node.start()
        await eventually(partial(probe, node.ops, "/readiness"))
        lines_before = len(node.log_text().splitlines())
        async with trio.open_nursery() as nursery:
            crowd = Crowd(node)
            for _ in range(STREAMS):
                nursery.start_soon(crowd.stream)
            for _ in range(BUSY):
                nursery.start_soon(crowd.ask_again_and_again, "/page.js")
            await until(lambda: crowd.streams >= STREAMS_MIN and crowd.turned_away >= STREAMS)
            yield crowd
            nursery.cancel_scope.cancel()
        lines = node.log_text().splitlines()[lines_before:]
        assert len(lines) <= LOG_LINES_MAX, "\n".join(lines)
        assert not any('"used_up": "descriptors"' in line for line in lines), "they never ran out"


async def eventually(asking: Callable[[], Awaitable[int]]) -> None:
    with trio.fail_after(LIMIT_S):
        while await asking() != 200:  # noqa: ASYNC110 - nobody announces it
            await trio.sleep(0.05)


async def probe(address: Address, path: str) -> int:
    """Return the status; 0 for no answer."""
    try:
        one = await Client.open(address)
        async with one.stream:
            response = await one.request(path)
            await one.read_all()
            return response.status_code
    except (OSError, trio.BrokenResourceError, h11.RemoteProtocolError):
        return 0


async def publish(node: NodeProcess) -> str:
    command = [sys.executable, "-m", "noti", "publish", "--rpc", written(node.rpc)]
    event = ["--user-id", "7", "--from", "books", "--to", "films"]
    done = await trio.run_process([*command, *event], capture_stdout=True, check=False)
    return done.stdout.decode()


@promises.CONNECTIONS_BOUNDED
@pytest.mark.parametrize("where", ["http", "ops"])
async def test_probes_and_publishers_are_answered_however_many_browsers_come(
    tmp_path: Path, where: str
) -> None:
    node = FewFiles("few", tmp_path)
    async with running(node) as crowd:
        for path in PROBES[where] * 5:
            statuses: list[int] = []
            with trio.fail_after(30):
                while 200 not in statuses and len(statuses) < PROBE_ATTEMPTS:
                    statuses.append(await probe(getattr(node, where), path))
            assert statuses[-1] == 200, (path, statuses)
        assert "committed as" in await publish(node)
        await until(lambda: crowd.seen >= STREAMS_MIN)
        assert crowd.answered > 0, "connections without streams are served too"
