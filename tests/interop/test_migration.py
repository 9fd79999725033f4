"""From bb-dist-noti to noti and back, with stream and consumer as that program makes them."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import trio
from nats.aio.client import Client

from noti.rpc.generated.category.v1 import CategoryMessage
from tests.http.stage import client, events
from tests.interop.processes import NodeProcess, running_node, written
from tests.interop.witness import number_of
from tests.publishing.nats.nats_server import nats_server

pytestmark = [pytest.mark.interop, pytest.mark.slow]

STREAM = {
    "name": "jobs",
    "description": "Stream for handling job notifications with work queue semantics and a 7-day"
    " retention policy.",
    "subjects": ["jobs.noti.>"],
    "retention": "workqueue",
    "max_consumers": 0,
    "max_msgs": 20_000,
    "max_bytes": 0,
    "discard": "new",
    "max_age": 7 * 24 * 3600 * 10**9,
    "max_msgs_per_subject": 0,
    "storage": "file",
    "num_replicas": 0,
}
"""As its publisher makes the stream, over the wire."""

CONSUMER = {
    "name": "worker_noti",
    "durable_name": "worker_noti",
    "description": "Consumer for processing category messages with retry and backoff strategy.",
    "deliver_policy": "all",
    "ack_policy": "explicit",
    "max_deliver": 4,
    "backoff": [5 * 10**9, 10 * 10**9, 15 * 10**9],
    "filter_subjects": ["jobs.noti.>"],
    "replay_policy": "instant",
}
"""As it makes its consumer, or changes one that is there, whenever a node becomes the leader."""


async def asked(connection: Client, subject: str, question: object) -> dict[str, Any]:
    answer = await connection.request(f"$JS.API.{subject}", json.dumps(question).encode())
    document: dict[str, Any] = json.loads(answer.data)
    assert "error" not in document, document
    return document


async def make_consumer(connection: Client) -> None:
    question = {"stream_name": "jobs", "config": CONSUMER, "action": ""}
    await asked(connection, "CONSUMER.CREATE.jobs.worker_noti", question)


async def publish(connection: Client, first: int, last: int) -> None:
    for number in range(first, last + 1):
        message = CategoryMessage(user_id=number, category_from="books", category_to="films")
        await connection.jetstream().publish(f"jobs.noti.{number}", bytes(message))


async def taken(connection: Client, count: int) -> list[int]:
    """Return what the consumer of bb-dist-noti gives it; nothing is acknowledged."""
    subscription = await connection.jetstream().pull_subscribe_bind("worker_noti", "jobs")
    messages = await subscription.fetch(count, timeout=10)
    return [CategoryMessage.parse(message.data).user_id for message in messages]


async def work_of_bb_dist_noti(connection: Client) -> None:
    await asked(connection, "STREAM.CREATE.jobs", STREAM)
    await make_consumer(connection)
    await publish(connection, 1, 10)
    assert await taken(connection, 3) == [1, 2, 3]


async def at(url: str, work: Callable[[Client], Awaitable[object]]) -> Any:
    async def connected() -> object:
        connection = await nats.connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return await trio.to_thread.run_sync(asyncio.run, connected())


async def shown(node: NodeProcess, count: int) -> list[int]:
    """Return what `/category` shows from the beginning."""
    async with client(node.http) as http:
        await http.request("/category?lastEventID=earliest")
        with trio.fail_after(30):
            while len(seen := events(http.text)) < count:
                await http.read_more()
    return [number_of(event["data"]) for event in seen]


async def test_noti_takes_over_from_bb_dist_noti_and_gives_back(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as server:
        await at(server.url, work_of_bb_dist_noti)

        async with running_node(tmp_path, "--nats-url", server.url) as node:
            with trio.fail_after(30):
                while (source := await source_of(node))["error"] is None:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            assert "consumer worker_noti" in source["error"]
            assert "--nats-durable worker_noti" in source["error"]
            assert "nats consumer rm jobs worker_noti" in source["error"]
            readiness = await readiness_of(node)
            assert readiness.status_code == 200, "it serves browsers, and should be sent some"
            assert readiness.json()[0]["IsLeader"]
            assert readiness.headers["noti-trouble"].startswith("source; since=20")
            assert "consumer worker_noti" in readiness.headers["noti-trouble"]
            assert await in_stream(server.url) == 10

        former = ("--nats-addr", server.url, "--history-size=1000")
        async with running_node(tmp_path, *former, "--nats-durable=worker_noti") as node:
            await at(server.url, lambda connection: publish(connection, 11, 20))
            assert await shown(node, 20) == list(range(1, 21))
            with trio.fail_after(30):
                while await in_stream(server.url) > 0:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            node.signal(signal.SIGTERM)
            assert await node.wait() == 0

        async def back(connection: Client) -> list[int]:
            await publish(connection, 21, 25)
            await make_consumer(connection)
            return await taken(connection, 25)

        assert await at(server.url, back) == [21, 22, 23, 24, 25]


async def source_of(node: NodeProcess) -> dict[str, Any]:
    status = await node.status()
    assert status is not None
    source: dict[str, Any] = status["source"]
    return source


async def readiness_of(node: NodeProcess) -> httpx.Response:
    async with httpx.AsyncClient() as http:
        return await http.get(f"http://{written(node.ops)}/readiness")


async def in_stream(url: str) -> int:
    """Return how many messages nobody has acknowledged."""

    async def ask(connection: Client) -> int:
        info = await connection.jetstream().stream_info("jobs")
        return info.state.messages

    count: int = await at(url, ask)
    return count
