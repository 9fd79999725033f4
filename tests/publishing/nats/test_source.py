"""What only the real source promises, against a real nats-server."""

import asyncio
import json
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog.testing
import trio
from nats.aio.client import Client
from nats.js import JetStreamContext

from noti.asyncio_loop import AsyncioLoop
from noti.errors import SourceUnavailable
from noti.publishing.nats.bridge import Bridge
from noti.publishing.nats.mapping import StreamMapping
from noti.publishing.nats.ports import DeadLetter, SourceSession
from noti.publishing.nats.pull import PULL_LINGER_S, SILENCE_S
from noti.publishing.nats.settings import NatsSettings
from noti.publishing.nats.source import NatsSource
from noti.rpc.generated.category.v1 import CategoryMessage
from noti.stream_settings import SubjectSettings
from noti.trio_clock import TrioClock
from tests import promises
from tests.ports import free_port
from tests.publishing.nats.nats_server import NatsServer, nats_server
from tests.publishing.replicated_log import ReplicatedLog

pytestmark = pytest.mark.interop


@asynccontextmanager
async def running_asyncio_loop() -> AsyncIterator[AsyncioLoop]:
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            asyncio_loop = AsyncioLoop()
            await nursery.start(asyncio_loop.run)
            yield asyncio_loop
            nursery.cancel_scope.cancel()


async def on_jetstream(
    asyncio_loop: AsyncioLoop, server: NatsServer, function: Callable[[Any], Awaitable[object]]
) -> Any:
    async def connected() -> object:
        client = Client()
        await client.connect(server.url)
        try:
            return await function(client.jetstream())
        finally:
            await client.close()

    return await asyncio_loop.call(connected)


async def publish(asyncio_loop: AsyncioLoop, server: NatsServer, first: int, last: int) -> None:
    async def all_of_them(jetstream: Any) -> None:
        for number in range(first, last + 1):
            payload = bytes(CategoryMessage(user_id=number))
            headers = {"Nats-Msg-Id": str(number)}
            await jetstream.publish("jobs.noti.x", payload, headers=headers)

    await on_jetstream(asyncio_loop, server, all_of_them)


async def open_once(source: NatsSource) -> None:
    async with source.open() as session:
        await session.begin(0)


async def read_on(session: SourceSession) -> None:
    while True:
        await session.fetch(10, 1.0)


async def test_unreachable_server_is_reported_quickly_and_quietly(
    capfd: pytest.CaptureFixture[str],
) -> None:
    url = f"nats://user:secret@127.0.0.1:{free_port()}"
    async with running_asyncio_loop() as asyncio_loop:
        source = NatsSource(asyncio_loop, NatsSettings(urls=(url,)))
        with pytest.raises(SourceUnavailable) as caught, trio.fail_after(30):
            await open_once(source)
    assert url.partition("@")[2] in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err


async def test_server_that_never_greets_is_reported_within_the_limit() -> None:
    async def mute(stream: trio.SocketStream) -> None:
        async with stream:
            await trio.sleep_forever()

    async with running_asyncio_loop() as asyncio_loop, trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, mute, 0)
        port = listeners[0].socket.getsockname()[1]
        source = NatsSource(asyncio_loop, NatsSettings(urls=(f"nats://127.0.0.1:{port}",)))
        with pytest.raises(SourceUnavailable), trio.fail_after(30):
            await open_once(source)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@pytest.mark.parametrize("retention", ["workqueue", "limits"])
async def test_consumer_that_an_operator_paused_is_told_and_read_when_it_goes_on(
    tmp_path: Path, retention: Literal["workqueue", "limits"]
) -> None:
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        settings = NatsSettings(urls=(server.url,), retention=retention)
        async with NatsSource(asyncio_loop, settings).open() as session:
            await session.begin(0)

            async def pause(until: str) -> None:
                async def ask(jetstream: Any) -> None:
                    [consumer] = await jetstream.consumers_info("jobs")
                    place = f"$JS.API.CONSUMER.PAUSE.jobs.{consumer.name}"
                    body = json.dumps({"pause_until": until}).encode()
                    await jetstream._nc.request(place, body)

                await on_jetstream(asyncio_loop, server, ask)

            await pause("2099-01-01T00:00:00Z")
            await publish(asyncio_loop, server, 1, 1)
            with trio.fail_after(30):
                while session.lag().trouble is None:
                    assert await session.fetch(10, 0.1) == []
                assert "is paused" in str(session.lag().trouble)
                await pause("2000-01-01T00:00:00Z")
                while not await session.fetch(10, 0.1):
                    pass
            assert session.lag().trouble is None


@pytest.mark.slow
async def test_frozen_server_is_noticed(tmp_path: Path) -> None:
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        source = NatsSource(asyncio_loop, NatsSettings(urls=(server.url,)))
        async with source.open() as session:
            await session.begin(0)
            await session.fetch(10, 0.01)
            server.process.send_signal(signal.SIGSTOP)
            with pytest.raises(SourceUnavailable), trio.fail_after(30):
                await read_on(session)


@pytest.mark.slow
async def test_slow_reader_keeps_its_place(tmp_path: Path) -> None:
    """A commit may take long; what the server said before it is no reason to leave."""
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        source = NatsSource(asyncio_loop, NatsSettings(urls=(server.url,)))
        async with source.open() as session:
            await session.begin(0)
            await session.fetch(10, 0.01)
            # Longer than the pull request lingers and the server may be silent, together.
            await trio.sleep(PULL_LINGER_S + SILENCE_S + 0.2)
            assert await session.fetch(10, 0.01) == []
            await publish(asyncio_loop, server, 1, 1)
            assert [message.seq for message in await session.fetch(10, 5.0)] == [1]


async def test_deleted_consumer_is_noticed(tmp_path: Path) -> None:
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        source = NatsSource(asyncio_loop, NatsSettings(urls=(server.url,)))
        async with source.open() as session:
            await session.begin(0)
            await session.fetch(10, 0.01)
            await on_jetstream(
                asyncio_loop, server, lambda jetstream: jetstream.delete_consumer("jobs", "noti")
            )
            with pytest.raises(SourceUnavailable), trio.fail_after(30):
                await read_on(session)


async def test_new_stream_has_the_configured_limits(tmp_path: Path) -> None:
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        settings = NatsSettings(
            urls=(server.url,), retention="limits", max_age_s=60, max_bytes=10**6, storage="memory"
        )
        await open_once(NatsSource(asyncio_loop, settings))
        info = await on_jetstream(
            asyncio_loop, server, lambda jetstream: jetstream.stream_info("jobs")
        )
    config = info.config
    assert (config.retention, config.storage) == ("limits", "memory")
    assert (config.max_age, config.max_bytes) == (60, 10**6)
    assert config.subjects == ["jobs.noti.>"]


async def test_existing_stream_is_used_as_it_is(tmp_path: Path) -> None:
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        await on_jetstream(
            asyncio_loop,
            server,
            lambda jetstream: jetstream.add_stream(name="jobs", subjects=["jobs.>"], max_msgs=7),
        )
        await open_once(NatsSource(asyncio_loop, NatsSettings(urls=(server.url,))))
        info = await on_jetstream(
            asyncio_loop, server, lambda jetstream: jetstream.stream_info("jobs")
        )
    assert (info.config.retention, info.config.max_msgs) == ("limits", 7)


NATS_PY: list[tuple[type, str]] = [
    (Client, "connect"),
    (JetStreamContext, "stream_info"),
    (JetStreamContext, "delete_consumer"),
    (JetStreamContext, "add_consumer"),
    (Client, "subscribe"),
    (Client, "publish"),
    (Client, "flush"),
    (JetStreamContext, "publish"),
]
"""All of nats-py that a session uses."""


@promises.NATS_CLIENT_ENDS_NO_NODE
@pytest.mark.parametrize(("owner", "method"), NATS_PY, ids=lambda value: str(value))
async def test_whatever_the_library_raises_is_reported_as_an_unavailable_source(
    owner: type, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the one that nobody foresaw with its traceback, once."""
    foreign = (
        AssertionError("Client.connect must be called first"),
        AttributeError("'NoneType' object has no attribute 'write'"),
        asyncio.InvalidStateError("invalid state"),
        KeyError(7),
        asyncio.CancelledError(),
    )
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        source = NatsSource(asyncio_loop, NatsSettings(urls=(server.url,)))
        await open_once(source)
        await publish(asyncio_loop, server, 1, 1)
        for index, error in enumerate(foreign):
            await publish(asyncio_loop, server, 2 * index + 2, 2 * index + 3)
            with monkeypatch.context() as broken, structlog.testing.capture_logs() as logs:

                async def fail(*args: object, error: BaseException = error, **_: object) -> None:
                    raise error

                broken.setattr(owner, method, fail)
                for _ in range(2):
                    with pytest.raises(SourceUnavailable):
                        await live_once(source)
            told = [line for line in logs if line["event"] == "the NATS client failed"]
            foreseen = isinstance(error, asyncio.CancelledError)
            assert [line.get("exc_info") for line in told] == [True] * (not foreseen)
        await live_once(source)


async def live_once(source: NatsSource) -> None:
    async with source.open() as session:
        await session.begin(0)
        messages = await session.fetch(1, 5.0)
        await session.ack(messages)
        await session.dead_letter([DeadLetter(messages[0], "no event")])


async def test_call_that_hangs_in_the_library_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(0.05 if cancelled() else 3600)
            if cancelled() > 2:
                raise asyncio.CancelledError

    def cancelled() -> int:
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        monkeypatch.setattr("noti.publishing.nats.edge.CALL_S", 0.2)
        source = NatsSource(asyncio_loop, NatsSettings(urls=(server.url,)))
        async with source.open() as session:
            await session.begin(0)
            monkeypatch.setattr(Client, "flush", hang)
            with pytest.raises(SourceUnavailable, match="no answer within"):
                await session.ack([])


@promises.NATS_MAY_BE_DOWN
@pytest.mark.slow
async def test_crash_of_nats_costs_nothing(tmp_path: Path) -> None:
    """Killed while messages flow, and started on the same store: every number once, in order."""
    total = 300
    async with running_asyncio_loop() as asyncio_loop, nats_server(tmp_path) as server:
        rng = random.Random(1)
        log = ReplicatedLog(rng)
        source = NatsSource(asyncio_loop, NatsSettings(urls=(server.url,)))
        mapping = StreamMapping((SubjectSettings(subject=">", decoder="category"),))
        event_of, floor, clock = mapping.event_of, log.store.floor, TrioClock()
        bridge = Bridge("jobs", source, event_of, log, floor, clock, rng, messages_max=20)
        await open_once(source)
        async with trio.open_nursery() as nursery:
            await nursery.start(bridge.run)
            await publish(asyncio_loop, server, 1, 100)
            await server.kill()
            await server.start()
            await publish(asyncio_loop, server, 101, 200)
            log.set_leader(False)
            log.set_leader(True)
            await publish(asyncio_loop, server, 201, total)
            with trio.fail_after(30):
                while log.store.last_seq < total:  # noqa: ASYNC110 (no event to wait for)
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    shown = [json.loads(notification.data)["user_id"] for notification in log.shown]
    assert shown == list(range(1, total + 1))
