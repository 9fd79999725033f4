"""Whatever happens to NATS, a session ends with one clear line, and the next one reads on."""

import json
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import trio
from nats.aio.client import Client

import noti
from noti.errors import SourceUnavailable
from noti.publishing.nats.pull import REQUEST_BYTES_MAX
from noti.publishing.nats.settings import NatsSettings
from noti.publishing.nats.source import NatsSource
from tests import promises
from tests.interop.nats.nats_cluster import NatsCluster, nats_cluster
from tests.ports import free_port
from tests.publishing.nats.nats_server import NatsServer, nats_server
from tests.publishing.nats.test_consumers import Stage, read, stage
from tests.publishing.nats.test_dead_letter_copies import as_user, bury, letters
from tests.publishing.nats.test_source import live_once, running_asyncio_loop

pytestmark = [pytest.mark.interop, pytest.mark.slow]

Retention: TypeAlias = Literal["workqueue", "interest", "limits"]


class Reader:
    """What the bridge does with a source: session after session, each from its stream's floor."""

    def __init__(self, source: NatsSource) -> None:
        self._source = source
        self.floors: dict[str, int] = {}
        self.read: list[int] = []
        """The numbers in the payloads, in the order in which they came."""
        self.troubles: list[str] = []
        self.sessions = 0

    async def run(self) -> None:
        while True:
            try:
                async with self._source.open() as session:
                    await session.begin(self.floors.get(session.stream, 0))
                    self.sessions += 1
                    while True:
                        messages = await session.fetch(50, 0.5)
                        for message in messages:
                            self.read.append(int(message.headers["nats-msg-id"][0]))
                            self.floors[session.stream] = message.seq
                        await session.ack(messages)
            except SourceUnavailable as trouble:
                self.troubles.append(str(trouble))
                await trio.sleep(0.05)

    async def has_read(self, number: int) -> None:
        """Return when this number, and so all before it, came."""
        with trio.fail_after(40):
            while not self.read or self.read[-1] < number:  # noqa: ASYNC110 (no event to wait for)
                await trio.sleep(0.01)
        assert self.read == list(range(1, number + 1))

    async def reads(self) -> None:
        """Return when a first session has begun."""
        with trio.fail_after(40):
            while not self.sessions:  # noqa: ASYNC110 (no event to wait for)
                await trio.sleep(0.01)


@asynccontextmanager
async def reading(source: NatsSource) -> AsyncIterator[Reader]:
    reader = Reader(source)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(reader.run)
        await reader.reads()
        yield reader
        nursery.cancel_scope.cancel()


def assert_clear(troubles: list[str]) -> None:
    """One line each, for a person."""
    assert troubles
    for trouble in troubles:
        assert "\n" not in trouble
        assert "Traceback" not in trouble
        assert "the NATS client failed" not in trouble, trouble


async def crash(server: NatsServer, reader: Reader) -> None:
    await server.kill()
    await server.start()


async def restart(server: NatsServer, reader: Reader) -> None:
    server.process.terminate()
    await server.process.wait()
    await server.kill()
    await server.start()


async def lame_duck(server: NatsServer, reader: Reader) -> None:
    """It sends its clients away, one by one, and closes JetStream first."""
    server.process.send_signal(signal.SIGUSR2)
    with trio.fail_after(10):
        while not reader.troubles:  # noqa: ASYNC110 (no event to wait for)
            await trio.sleep(0.01)
    await server.kill()
    await server.start()


async def freeze(server: NatsServer, reader: Reader) -> None:
    server.process.send_signal(signal.SIGSTOP)
    await trio.sleep(3)  # longer than a reader waits for a word
    server.process.send_signal(signal.SIGCONT)


@promises.NATS_MAY_BE_DOWN
@pytest.mark.parametrize("retention", ["workqueue", "interest", "limits"])
@pytest.mark.parametrize("trouble", [crash, restart, lame_duck, freeze])
async def test_reading_resumes_after_trouble_of_the_server(
    tmp_path: Path, retention: Retention, trouble: Callable[[NatsServer, Reader], Awaitable[None]]
) -> None:
    async with stage(tmp_path) as here, reading(here.source(retention=retention)) as reader:
        await here.publish(1, 20)
        await reader.has_read(20)
        await trouble(here.server, reader)
        await here.publish(21, 40)
        await reader.has_read(40)
    assert_clear(reader.troubles)


async def delete_consumers(here: Stage) -> None:
    for info in await here.consumers():
        await here.do("delete_consumer", "jobs", info.name)


@pytest.mark.parametrize("retention", ["workqueue", "limits"])
async def test_reading_resumes_after_its_consumer_was_deleted(
    tmp_path: Path, retention: Retention
) -> None:
    async with stage(tmp_path) as here, reading(here.source(retention=retention)) as reader:
        await here.publish(1, 5)
        await reader.has_read(5)
        await delete_consumers(here)
        await here.publish(6, 9)
        await reader.has_read(9)
    assert_clear(reader.troubles)
    assert reader.troubles == ["NATS ended reading of stream jobs: Consumer Deleted"]


@pytest.mark.parametrize("retention", ["workqueue", "interest", "limits"])
async def test_stream_that_is_deleted_is_made_anew_and_read_from_its_beginning(
    tmp_path: Path, retention: Retention
) -> None:
    async with stage(tmp_path) as here, reading(here.source(retention=retention)) as reader:
        await here.publish(1, 5)
        await reader.has_read(5)
        await here.do("delete_stream", "jobs")
        with trio.fail_after(20):
            while reader.sessions < 2:  # noqa: ASYNC110 (no event to wait for)
                await trio.sleep(0.01)
        await here.publish(6, 9)
        await reader.has_read(9)
    assert_clear(reader.troubles)
    assert list(reader.floors.values()) == [5, 4]


async def test_server_without_jetstream_is_told(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, jetstream=False)
    await server.start()
    try:
        async with running_asyncio_loop() as loop:
            with pytest.raises(SourceUnavailable, match="nats-server -js turns it on"):
                await read(Stage(server, loop).source(), 0, 0)
    finally:
        await server.kill()


PERMISSIONS = """
authorization {{ users: [
  {{user: all, password: all}}
  {{user: noti, password: noti, permissions: {{publish: {{deny: ["{denied}"]}}}}}}
] }}
"""


@pytest.mark.parametrize(
    "denied",
    [
        "$JS.API.STREAM.INFO.>",
        "$JS.API.CONSUMER.CREATE.>",
        "$JS.API.CONSUMER.DELETE.>",
        "$JS.API.CONSUMER.MSG.NEXT.>",
        "$JS.ACK.>",
    ],
)
async def test_missing_permission_is_told(tmp_path: Path, denied: str) -> None:
    (tmp_path / "nats.conf").write_text(PERMISSIONS.format(denied=denied))
    arguments = ("--config", str(tmp_path / "nats.conf"))
    async with (
        running_asyncio_loop() as loop,
        nats_server(tmp_path / "store", *arguments) as server,
    ):
        url = server.url.replace("nats://", "nats://noti:noti@")
        source = NatsSource(loop, NatsSettings(urls=(url,)))
        here = Stage(as_user(server, "all"), loop)
        await here.do("add_stream", name="jobs", subjects=["jobs.noti.>"], retention="workqueue")
        await here.publish(1, 1)
        with pytest.raises(SourceUnavailable) as caught:
            await live_once(source)
    subject = denied.removesuffix(">").lower()
    assert str(caught.value).startswith(
        f'NATS does not permit this user: for publish to "{subject}'
    )


NATS_PAGE = Path(noti.__file__).parent / "publishing/nats/README.md"


@pytest.mark.parametrize("retention", ["workqueue", "interest", "limits"])
async def test_permissions_of_the_page_are_enough(tmp_path: Path, retention: Retention) -> None:
    [permissions] = re.findall(r"```\n(publish: .*?)```", NATS_PAGE.read_text(), re.DOTALL)
    (tmp_path / "nats.conf").write_text(
        "authorization { users: [ {user: all, password: all}, {user: noti, password: noti,"
        f" permissions: {{ {permissions} }} }} ] }}"
    )
    arguments = ("--config", str(tmp_path / "nats.conf"))
    async with (
        running_asyncio_loop() as loop,
        nats_server(tmp_path / "store", *arguments) as server,
    ):
        here, noti_user = Stage(as_user(server, "all"), loop), as_user(server, "noti")
        for name, subject in (("jobs", "jobs.noti.>"), ("dead", "noti.dead-letter.>")):
            kept = retention if name == "jobs" else "limits"
            await here.do("add_stream", name=name, subjects=[subject], retention=kept)
        source = Stage(noti_user, loop).source()
        await read(source, 0, 0)
        await here.publish(1, 2)
        await bury(source, 2)
        assert len(await letters(here, "dead")) == 2


class Wire:
    """A TCP proxy that can stop to carry anything, without a word."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._mended = trio.Event()
        self._mended.set()
        self.url = ""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._carry, 0)
            self.url = f"nats://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            task_status.started()

    def cut(self) -> None:
        self._mended = trio.Event()

    def mend(self) -> None:
        self._mended.set()

    async def _carry(self, client: trio.SocketStream) -> None:
        try:
            async with (
                client,
                await trio.open_tcp_stream("127.0.0.1", self._port) as server,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(self._copy, client, server, nursery.cancel_scope)
                nursery.start_soon(self._copy, server, client, nursery.cancel_scope)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _copy(
        self, source: trio.SocketStream, sink: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        async for data in source:
            await self._mended.wait()
            await sink.send_all(data)
        scope.cancel()


@pytest.mark.parametrize("retention", ["workqueue", "limits"])
async def test_reading_resumes_after_a_cut_of_the_network(
    tmp_path: Path, retention: Retention
) -> None:
    async with stage(tmp_path) as here, trio.open_nursery() as nursery:
        wire = Wire(here.server.port)
        await nursery.start(wire.run)
        source = NatsSource(here.loop, NatsSettings(urls=(wire.url,), retention=retention))
        async with reading(source) as reader:
            await here.publish(1, 5)
            await reader.has_read(5)
            wire.cut()
            await here.publish(6, 9)
            with trio.fail_after(20):
                while len(reader.troubles) < 2:  # noqa: ASYNC110 (no event to wait for)
                    await trio.sleep(0.01)
            wire.mend()
            await reader.has_read(9)
        nursery.cancel_scope.cancel()
    assert_clear(reader.troubles)


@pytest.mark.parametrize("retention", ["workqueue", "limits"])
async def test_reading_resumes_after_the_server_gave_a_slow_reader_up(
    tmp_path: Path, retention: Retention
) -> None:
    port = free_port()
    (tmp_path / "nats.conf").write_text(f'write_deadline: "100ms"\nhttp: 127.0.0.1:{port}')
    arguments = ("--config", str(tmp_path / "nats.conf"))
    async with (
        running_asyncio_loop() as loop,
        nats_server(tmp_path / "store", *arguments) as server,
        trio.open_nursery() as nursery,
    ):
        here = Stage(server, loop)
        wire = Wire(server.port)
        await nursery.start(wire.run)
        source = NatsSource(loop, NatsSettings(urls=(wire.url,), retention=retention))
        async with reading(source) as reader:
            await here.publish(1, 3)
            await reader.has_read(3)
            wire.cut()
            for number in range(4, 40):
                headers = {"Nats-Msg-Id": str(number)}
                await here.do("publish", "jobs.noti.x", b"x" * 1_000_000, headers=headers)
            wire.mend()
            assert await slow_consumers(port) > 0
            await reader.has_read(39)
        nursery.cancel_scope.cancel()
    assert_clear(reader.troubles)


async def slow_consumers(port: int) -> int:
    """How many connections the server has given up, by what it tells on its port for monitoring."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /varz HTTP/1.0\r\n\r\n")
        answer = b"".join([data async for data in stream])
    count: int = json.loads(answer.partition(b"\r\n\r\n")[2])["slow_consumers"]
    return count


@asynccontextmanager
async def cluster_stage(store: Path) -> AsyncIterator[tuple[Stage, NatsCluster]]:
    async with running_asyncio_loop() as loop, nats_cluster(store, 3) as cluster:
        here = Stage(cluster.servers[0], loop)
        with trio.fail_after(30):
            while True:
                try:
                    await here.do("account_info")
                    break
                except Exception:  # noqa: BLE001 (the servers choose a leader)
                    await trio.sleep(0.1)
        yield here, cluster


async def step_down_stream(here: Stage, cluster: NatsCluster) -> None:
    await request(here, "$JS.API.STREAM.LEADER.STEPDOWN.jobs")


async def step_down_consumer(here: Stage, cluster: NatsCluster) -> None:
    for info in await here.consumers():
        await request(here, f"$JS.API.CONSUMER.LEADER.STEPDOWN.jobs.{info.name}")


async def kill_stream_leader(here: Stage, cluster: NatsCluster) -> None:
    leader = (await here.do("stream_info", "jobs")).cluster.leader
    server = cluster.servers[int(leader[-1]) - 1]
    await server.kill()
    if server is here.server:
        here.server = next(one for one in cluster.servers if one is not server)


async def request(here: Stage, subject: str) -> Any:
    async def ask() -> Any:
        client = Client()
        await client.connect(here.server.url)
        try:
            return await client.request(subject, b"", timeout=5)
        finally:
            await client.close()

    return await here.loop.call(ask)


@promises.NATS_MAY_BE_DOWN
@pytest.mark.parametrize("retention", ["workqueue", "interest", "limits"])
async def test_reading_resumes_when_a_cluster_changes_its_leaders(
    tmp_path: Path, retention: Retention
) -> None:
    async with cluster_stage(tmp_path) as (here, cluster):
        urls = tuple(server.url for server in cluster.servers)
        settings = NatsSettings(urls=urls, retention=retention, replicas=3)
        last = 0
        async with reading(NatsSource(here.loop, settings)) as reader:
            for trouble in (step_down_stream, step_down_consumer, kill_stream_leader):
                await publish_surely(here, last + 1, last + 10)
                await trouble(here, cluster)
                await publish_surely(here, last + 11, last + 20)
                last += 20
                await reader.has_read(last)
        # The consumer of a limits stream may be on a server that had no trouble.
        assert reader.troubles or retention == "limits"
        assert_clear(reader.troubles or ["none"])


async def publish_surely(here: Stage, first: int, last: int) -> None:
    """Publish each until the cluster has it; its id makes repetitions one."""
    with trio.fail_after(30):
        while True:
            try:
                return await here.publish(first, last)
            except Exception:  # noqa: BLE001 (whatever a cluster without a leader causes)
                await trio.sleep(0.2)


async def test_large_messages_come_a_few_at_a_time(tmp_path: Path) -> None:
    """However many are asked for: what a server cannot write soon makes it give its client up."""
    total, size = 30, 1_000_000
    async with stage(tmp_path) as here, here.source().open() as session:
        await session.begin(0)
        for _ in range(total):
            await here.do("publish", "jobs.noti.x", b"x" * size)
        read = 0
        with trio.fail_after(30):
            while read < total:
                messages = await session.fetch(500, 1.0)
                assert session.lag().unacknowledged <= REQUEST_BYTES_MAX // size + 1
                await session.ack(messages)
                read += len(messages)
