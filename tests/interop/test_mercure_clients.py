"""Clients that others wrote for Mercure, at a cluster of three: each request goes to another node.

A node dies between publishing and reading. Publishers: `mercure-publisher` of PyPI. Readers:
`httpx-sse` of PyPI, `eventsource` and `@microsoft/fetch-event-source` of npm.
"""

import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest
import trio
from httpx_sse import aconnect_sse
from mercure_publisher import MercureConfig, MercurePublisher

from tests import promises
from tests.authorization.tokens import SECRET, token_v0
from tests.interop.node_clients import node_program
from tests.interop.processes import NodeProcess, destroyed_in_the_end, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]

LIMIT_S = 30.0
"""No step takes longer, even on a busy machine; nothing is measured with it."""

Seen = tuple[str, str, str]
"""Id, type and data of an event."""
Reader = Callable[[str, str, trio.MemorySendChannel[Seen]], Awaitable[None]]
"""Reads a URL with a token until cancelled."""


class Site:
    """Three nodes, and a publisher for each."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [NodeProcess(f"node{number}", directory) for number in (1, 2, 3)]
        self._key_file = directory / "key"

    async def start(self) -> None:
        self._key_file.write_text(SECRET)
        seeds = [part for node in self.nodes for part in ("--join", written(node.gossip))]
        settings = ["--bootstrap-expect", "3", "--publisher-jwt-key-file", str(self._key_file)]
        for node in self.nodes:
            node.start(*seeds, *settings)
        for node in self.nodes:
            await node.until_up()

    def hub(self, number: int) -> str:
        return f"http://{written(self.nodes[number - 1].http)}/.well-known/mercure"

    async def publish(self, number: int, topic: str, data: str, *, private: bool = False) -> str:
        """Publish at a node, with the client's own token, and return the id."""
        config = MercureConfig(self.hub(number), SECRET, ["*"])
        with MercurePublisher(config) as publisher:
            publish = partial(publisher.publish, topic, data, private=private, type="news")
            return await trio.to_thread.run_sync(publish)


@asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    there = Site(directory)
    async with destroyed_in_the_end(there.nodes):
        await there.start()
        yield there


async def read_with_httpx(url: str, token: str, seen: trio.MemorySendChannel[Seen]) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(timeout=None) as client,
        aconnect_sse(client, "GET", url, headers=headers) as source,
    ):
        async for event in source.aiter_sse():
            await seen.send((event.id, event.event, event.data))


async def read_in_node(
    package: str, url: str, token: str, seen: trio.MemorySendChannel[Seen]
) -> None:
    script = await trio.to_thread.run_sync(node_program, "mercure.mjs")
    command = ["node", str(script), package, url, token]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        pending = b""
        async for data in process.stdout:
            *lines, pending = (pending + data).split(b"\n")
            for line in map(json.loads, lines):
                await seen.send((line["id"], line["type"], line["data"]))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


READERS = [
    pytest.param(read_with_httpx, id="httpx-sse"),
    pytest.param(partial(read_in_node, "eventsource"), id="eventsource", marks=pytest.mark.node),
    pytest.param(
        partial(read_in_node, "fetch-event-source"), id="fetch-event-source", marks=pytest.mark.node
    ),
]


@promises.MERCURE_CLIENTS_WORK
@promises.PRIVATE_ONLY_FOR_ALLOWED
@pytest.mark.parametrize("read", READERS)
async def test_foreign_clients_publish_and_read_each_at_another_node(
    tmp_path: Path, read: Reader
) -> None:
    topics = [("topic", "https://example.com/books/{id}"), ("topic", "/users/7")]
    reader = token_v0(subscribe=["/users/7"])
    async with site(tmp_path) as there, trio.open_nursery() as nursery:

        def follow(number: int, cursor: str) -> trio.MemoryReceiveChannel[Seen]:
            query = urlencode([*topics, ("lastEventID", cursor), ("Last-Event-ID", cursor)])
            send, receive = trio.open_memory_channel[Seen](100)
            nursery.start_soon(read, f"{there.hub(number)}?{query}", reader, send)
            return receive

        with trio.fail_after(LIMIT_S):
            book = await there.publish(1, "https://example.com/books/1", "a\nb")
            second = follow(2, "earliest")
            assert await second.receive() == (book, "news", "a\nb")
            await there.publish(1, "/users/8", "not yours", private=True)
            note = await there.publish(1, "/users/7", "yours", private=True)
            await there.nodes[0].kill()
            assert await second.receive() == (note, "news", "yours")
        with trio.fail_after(LIMIT_S):
            last = await there.publish(3, "https://example.com/books/2", "c")
            assert await second.receive() == (last, "news", "c")
            third = follow(3, book)
            assert await third.receive() == (note, "news", "yours")
            assert await third.receive() == (last, "news", "c")
        nursery.cancel_scope.cancel()
