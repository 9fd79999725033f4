"""JSON, text, CloudEvents and protobuf, from clients of others to streams of three retentions.

Publishers: nats-py with the packages `cloudevents` and `protobuf`, the `nats` command with
`protoc`, nats.go with Go's packages for both. Readers: `httpx-sse`, and the client of this project.
"""

import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from ssl import create_default_context
from urllib.parse import urlencode

import httpx
import pytest
import trio
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from httpx_sse import aconnect_sse
from nats.js import api

from noti.asyncio_loop import AsyncioLoop
from noti.client.event_source import read_stream
from noti.client.event_stream import StreamEvent
from noti.client.reconnection import Reconnect, Reconnection
from tests import promises
from tests.interop.nats.go_programs import program
from tests.interop.nats_client import connect_aio
from tests.interop.processes import NodeProcess, running_node, written
from tests.publishing.nats.nats_server import nats_server

pytestmark = [pytest.mark.interop, pytest.mark.slow]

RETENTIONS = {"workqueue": "work", "interest": "interest", "limits": "limits"}
"""Streams have the names of their retentions; the `nats` command has other words for these."""
PROTO = Path(__file__).parent / "order.proto"
LIMIT_S = 60.0
"""No step takes longer, even on a busy machine; nothing is measured with it."""

JSON = '{"user":{"id":7},"text":"né"}'
TEXT = "né\nand more"
ORDER = {"id": "17", "item": "né", "quantity": 2}

Seen = tuple[str, str, str]
"""Id, type and data of an event; JSON as its values."""


class Site:
    """A node that reads the streams of one NATS server, and what publishers need."""

    def __init__(self, directory: Path, url: str) -> None:
        self.url = url
        self.directory = directory
        self.descriptors = directory / "order.binpb"
        self.settings = directory / "noti.toml"
        protoc("--include_imports", f"--descriptor_set_out={self.descriptors}", str(PROTO))
        self.settings.write_text(
            f'nats_url = "{url}"\n' + "".join(map(self._stream_table, RETENTIONS))
        )

    def _stream_table(self, stream: str) -> str:
        return f"""
[[nats_streams]]
name = "{stream}"

[[nats_streams.subjects]]
subject = "{stream}.json"
decoder = "json"
topic = "https://example.com/users/{{user.id}}"

[[nats_streams.subjects]]
subject = "{stream}.text"
decoder = "text"

[[nats_streams.subjects]]
subject = "{stream}.cloudevents"
decoder = "cloudevents"

[[nats_streams.subjects]]
subject = "{stream}.protobuf.*"
decoder = "protobuf"
descriptor_set = "{self.descriptors}"
message = "shop.Order"
topic = "https://example.com/orders/{{3}}"
"""


TOPICS = {
    "json": "https://example.com/users/7",
    "text": "/greetings",
    "cloudevents": "/orders/created",
    "protobuf": "https://example.com/orders/{id}",
}


def expected(kind: str, stream: str) -> Seen:
    """Return what browsers should see of a message."""
    match kind:
        case "json":
            return f"{stream}-json", "message", normal(JSON)
        case "text":
            return f"{stream}-text", "greeting", TEXT
        case "cloudevents":
            return f"{stream}-cloudevents", "com.example.order.created", normal('{"order":17}')
        case _:
            return f"{stream}-protobuf", "message", normal(json.dumps(ORDER))


def normal(data: str) -> str:
    """Return JSON as each encoder would write it; other text as it is."""
    try:
        return json.dumps(json.loads(data), sort_keys=True)
    except ValueError:
        return data


def protoc(*arguments: str, stdin: bytes = b"") -> bytes:
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO.parent}", *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=True).stdout


Publish = Callable[[Site, str], Awaitable[None]]
"""Does `streams`, making them, or `publish`, to each of them."""


async def with_nats_py(site: Site, what: str) -> None:
    async def session_aio() -> None:
        client = await connect_aio([site.url])
        jetstream = client.jetstream()
        for stream in RETENTIONS:
            if what == "streams":
                retention = api.RetentionPolicy(stream)
                await jetstream.add_stream(
                    name=stream, subjects=[f"{stream}.>"], retention=retention
                )
                continue
            event = CloudEvent(
                {
                    "id": f"{stream}-cloudevents",
                    "source": "https://example.com/shop",
                    "type": "com.example.order.created",
                    "subject": "/orders/created",
                    "datacontenttype": "application/json",
                },
                {"order": 17},
            )
            for subject, payload, headers in (
                ("json", JSON.encode(), {"Nats-Msg-Id": f"{stream}-json"}),
                (
                    "text",
                    TEXT.encode(),
                    {
                        "Nats-Msg-Id": f"{stream}-text",
                        "Noti-Topic": "/greetings",
                        "Noti-Type": "greeting",
                    },
                ),
                ("cloudevents", JSONFormat().write(event), {}),
                ("protobuf.17", order(site), {"Nats-Msg-Id": f"{stream}-protobuf"}),
            ):
                await jetstream.publish(f"{stream}.{subject}", payload, headers=headers)
        await client.close()

    async with trio.open_nursery() as nursery:
        asyncio_loop = AsyncioLoop()
        await nursery.start(asyncio_loop.run)
        await asyncio_loop.call(session_aio)
        nursery.cancel_scope.cancel()


def order(site: Site) -> bytes:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(site.descriptors.read_bytes()).file:
        pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("shop.Order"))()
    return bytes(json_format.ParseDict(ORDER, message).SerializeToString())


async def with_nats_command(site: Site, what: str) -> None:
    async def nats(*arguments: str, stdin: bytes = b"") -> None:
        command = [str(program("nats")), "--server", site.url, *arguments]
        environment = {**os.environ, "HOME": str(site.directory), "XDG_CONFIG_HOME": ""}
        await run(command, stdin=stdin, env=environment)

    for stream, retention in RETENTIONS.items():
        if what == "streams":
            subjects = f"--subjects={stream}.>"
            await nats("stream", "add", stream, subjects, f"--retention={retention}", "--defaults")
            continue
        event_id = partial("-HNats-Msg-Id:{}-{}".format, stream)
        await nats("pub", "-J", f"{stream}.json", JSON, event_id("json"))
        headers = ["-HNoti-Topic:/greetings", "-HNoti-Topic:/news", "-HNoti-Type:greeting"]
        await nats("pub", "-J", f"{stream}.text", TEXT, event_id("text"), *headers)
        event = {
            "specversion": "1.0",
            "id": f"{stream}-cloudevents",
            "source": "https://example.com/shop",
            "type": "com.example.order.created",
            "subject": "/orders/created",
            "data": {"order": 17},
        }
        await nats("pub", "-J", f"{stream}.cloudevents", json.dumps(event))
        stdin = protoc(
            "--encode=shop.Order", str(PROTO), stdin=b'id: 17 item: "n\\303\\251" quantity: 2'
        )
        headers = ["--force-stdin", event_id("protobuf")]
        await nats("pub", "-J", f"{stream}.protobuf.17", *headers, stdin=stdin)


async def with_nats_go(site: Site, what: str) -> None:
    await run([str(program("publisher")), what, site.url, str(site.descriptors)])


async def run(
    command: Sequence[str], stdin: bytes = b"", env: dict[str, str] | None = None
) -> None:
    ran = await trio.run_process(
        command, stdin=stdin, env=env, capture_stdout=True, capture_stderr=True, check=False
    )
    assert ran.returncode == 0, (ran.stdout + ran.stderr).decode()


async def read_with_httpx(
    node: NodeProcess, topic: str, seen: trio.MemorySendChannel[Seen]
) -> None:
    async with (
        httpx.AsyncClient(timeout=None) as client,
        aconnect_sse(client, "GET", url_of(node, topic)) as source,
    ):
        async for event in source.aiter_sse():
            await seen.send((event.id, event.event, normal(event.data)))


class Teller:
    """Our own client's watcher: tells what it is shown."""

    def __init__(self, seen: trio.MemorySendChannel[Seen]) -> None:
        self._seen = seen

    def opened(self, url: str, resumed_from: str | None) -> None:
        """Nothing is to be done."""

    def event(self, event: StreamEvent) -> bool:
        self._seen.send_nowait((event.last_event_id, event.type, normal(event.data)))
        return True

    def waiting(self, pause: Reconnect) -> None:
        """Nothing is to be done."""


async def read_with_noti(node: NodeProcess, topic: str, seen: trio.MemorySendChannel[Seen]) -> None:
    reconnection = Reconnection(url_of(node, topic), Random(1))
    await read_stream(reconnection, Teller(seen), tls=create_default_context())


def url_of(node: NodeProcess, topic: str) -> str:
    query = urlencode({"topic": topic, "lastEventID": "earliest"})
    return f"http://{written(node.http)}/.well-known/mercure?{query}"


@promises.NATS_CLIENTS_WORK
@pytest.mark.parametrize(
    "publish",
    [
        pytest.param(with_nats_py, id="nats-py"),
        pytest.param(with_nats_command, id="nats", marks=pytest.mark.go),
        pytest.param(with_nats_go, id="nats.go", marks=pytest.mark.go),
    ],
)
async def test_what_foreign_clients_publish_in_four_formats_reaches_browsers_from_all_retentions(
    tmp_path: Path, publish: Publish
) -> None:
    async with nats_server(tmp_path / "nats") as server:
        site = Site(tmp_path, server.url)
        await publish(site, "streams")
        async with (
            running_node(tmp_path, "--config", str(site.settings)) as node,
            trio.open_nursery() as nursery,
        ):
            with trio.fail_after(LIMIT_S):
                # An interest stream keeps nothing that nobody waits for.
                await node.until_reading()
                await publish(site, "publish")
                for read in (read_with_httpx, read_with_noti):
                    for kind, topic in TOPICS.items():
                        send, receive = trio.open_memory_channel[Seen](100)
                        nursery.start_soon(read, node, topic, send)
                        seen = sorted([await receive.receive() for _ in RETENTIONS])
                        assert seen == sorted(expected(kind, stream) for stream in RETENTIONS)
            nursery.cancel_scope.cancel()
