"""A message that is no event until a setting is right: from a node to the command and back."""

import asyncio
import json
import sys
from pathlib import Path

import nats
import pytest
import trio

from tests.http.stage import client, events
from tests.interop.processes import NodeProcess, running_node
from tests.publishing.nats.nats_server import nats_server

pytestmark = [pytest.mark.interop, pytest.mark.slow]

TOPIC = "https://example.com/a"


async def publish(url: str, payload: bytes) -> None:
    async def connected() -> None:
        connection = await nats.connect(url)
        headers = {"Noti-Topic": TOPIC}
        await connection.jetstream().publish("orders.new", payload, headers=headers)
        await connection.close()

    await trio.to_thread.run_sync(asyncio.run, connected())


async def noti(*arguments: str) -> str:
    command = [sys.executable, "-m", "noti", "dead-letter", *arguments]
    done = await trio.run_process(command, capture_stdout=True)
    return done.stdout.decode()


async def shown(node: NodeProcess, count: int) -> list[str]:
    async with client(node.http) as http:
        await http.request(f"/.well-known/mercure?topic={TOPIC}&lastEventID=earliest")
        with trio.fail_after(30):
            while len(seen := events(http.text)) < count:
                await http.read_more()
    return [event["data"] for event in seen]


async def test_message_becomes_an_event_once_the_setting_is_right(tmp_path: Path) -> None:
    async with nats_server(tmp_path / "nats") as server:
        at = f"--nats-url={server.url}"
        stream = (at, "--nats-stream=orders", "--nats-subject=orders.>")
        async with running_node(tmp_path, *stream, "--nats-decoder=json") as node:
            with trio.fail_after(30):
                while (await node.status() or {})["source"]["state"] != "reading":  # noqa: ASYNC110
                    await trio.sleep(0.05)
            await publish(server.url, b"no json")
            await publish(server.url, b'{"is": "json"}')
            assert await shown(node, 1) == ['{"is": "json"}']
            row = json.loads(await noti("list", at))
            assert (row["stream"], row["sequence"], row["subject"]) == ("orders", 1, "orders.new")
            assert "JSON" in row["reason"]
        async with running_node(tmp_path, *stream, "--nats-decoder=text") as node:
            said = await noti("replay", "--all", at)
            assert said == "replayed 1 to orders.new: the stream has it as number 3\n"
            assert await shown(node, 2) == ['{"is": "json"}', "no json"]
        assert await noti("list", at) == ""
