"""A login stays here unless the connection is as it was asked to be; an end is a whole one."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import nats.errors
import pytest
import trio
from nats.aio.msg import Msg

from noti.asyncio_loop import AsyncioLoop
from noti.publishing.nats.client import NatsClient
from noti.publishing.nats.dead_letter import HeaderLines, parse_headers
from noti.publishing.nats.frames import MessageFrame
from tests.publishing.nats.nats_server import nats_server


@asynccontextmanager
async def open_server() -> AsyncIterator[tuple[str, list[asyncio.StreamReader]]]:
    """What a client needs to be connected; its URL, and the connections."""
    connections: list[asyncio.StreamReader] = []
    writers: list[asyncio.StreamWriter] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(reader)
        writer.write(b'INFO {"headers":true}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        writers.append(writer)

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections
    finally:
        server.close()
        for writer in writers:
            writer.close()


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_server_without_tls_gets_no_login_where_tls_was_asked_for(
    nursery: trio.Nursery, scheme: str
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)
    reasons: list[str] = []

    async def note(error: Exception) -> None:
        reasons.append(str(error))

    received: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"auth_required":true}\r\n')
        received.append(await reader.read())
        writer.close()

    async def connect() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        client = NatsClient()
        with pytest.raises(nats.errors.Error) as refused:
            await client.connect(
                f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}",
                tls=None if scheme == "tls" else ssl.create_default_context(),
                error_cb=note,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                user="a",
                password="b",
            )
        reasons.append(str(refused.value))
        await client.close()
        server.close()
        await asyncio.sleep(0)

    with trio.fail_after(30):
        await asyncio_loop.call(connect)
        while not received:  # noqa: ASYNC110 - nobody announces it
            await trio.sleep(0.01)
    assert b"".join(received) == b""
    assert "the server offers no TLS, and nothing was sent to it" in reasons
    nursery.cancel_scope.cancel()


async def test_client_that_never_connected_is_closed_quietly(nursery: trio.Nursery) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)
    client = NatsClient()
    await asyncio_loop.call(client.close)
    assert client.is_closed
    nursery.cancel_scope.cancel()


async def test_connection_whose_last_write_fails_is_given_up_all_the_same(
    nursery: trio.Nursery,
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)

    async def close_a_broken_one() -> tuple[bool, int]:
        async with open_server() as (url, connections):
            client = NatsClient()
            await client.connect(url, allow_reconnect=False)
            writer = client._tcp._writer
            assert writer is not None
            writer.drain = Mock(side_effect=ConnectionResetError)  # type: ignore[method-assign]
            client._pending, client._pending_data_size = [b"PING\r\n"], 6
            await client.close()
            # The server sees the end, so no descriptor was kept.
            return await connections[0].read() is not None, len(asyncio.all_tasks())

    with trio.fail_after(30):
        ended, tasks = await asyncio_loop.call(close_a_broken_one)
    assert (ended, tasks) == (True, 1)
    nursery.cancel_scope.cancel()


async def test_cancelled_close_leaves_nothing_behind(nursery: trio.Nursery) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)

    async def close_and_be_cancelled() -> tuple[bool, int]:
        async with open_server() as (url, connections):
            client = NatsClient()
            await client.connect(url, allow_reconnect=False)
            await client.subscribe("a", cb=AsyncMock())
            writer = client._tcp._writer
            assert writer is not None
            writer.wait_closed = asyncio.Event().wait  # type: ignore[assignment, method-assign]
            closing = asyncio.create_task(client.close())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            return await connections[0].read() is not None, len(asyncio.all_tasks())

    with trio.fail_after(30):
        ended, tasks = await asyncio_loop.call(close_and_be_cancelled)
    assert (ended, tasks) == (True, 1)
    nursery.cancel_scope.cancel()


async def test_pong_for_a_cancelled_flush_does_not_end_the_connection(
    nursery: trio.Nursery,
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)

    async def late_pong() -> bool:
        pong = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"headers":true}\r\n')
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            await reader.readuntil(b"PING\r\n")
            await pong.wait()
            writer.write(b"PONG\r\n")
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = NatsClient()
        port = server.sockets[0].getsockname()[1]
        await client.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.flush()
        pong.set()
        await client.flush()
        connected = client.is_connected
        await client.close()
        server.close()
        return connected

    with trio.fail_after(30):
        assert await asyncio_loop.call(late_pong)
    nursery.cancel_scope.cancel()


async def test_repeated_header_keeps_all_its_values(nursery: trio.Nursery) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)
    block = b"NATS/1.0\r\nNoti-Topic: /a\r\nOne: 1\r\nNoti-Topic: /b\r\n\r\n"

    async def received() -> HeaderLines:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'INFO {"headers":true}\r\n')
            await reader.readuntil(b"PING\r\n")
            writer.write(b"PONG\r\n")
            sid = (await reader.readuntil(b"\r\n")).split()[-1]
            writer.write(b"HMSG a %b %d %d\r\n%b\r\n" % (sid, len(block), len(block), block))
            await reader.read()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        client = NatsClient()
        port = server.sockets[0].getsockname()[1]
        await client.connect(f"nats://127.0.0.1:{port}", allow_reconnect=False)
        tapped: asyncio.Queue[Sequence[MessageFrame]] = asyncio.Queue()
        await client.tap("a", tapped.put_nowait)
        async with asyncio.timeout(10):
            [frame] = await tapped.get()
        await client.close()
        server.close()
        return parse_headers(frame.headers)

    lines = await asyncio_loop.call(received)
    assert lines == (("Noti-Topic", "/a"), ("One", "1"), ("Noti-Topic", "/b"))
    nursery.cancel_scope.cancel()


async def test_tapped_messages_pass_nats_py_by_and_the_others_do_not(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """The second tap replaces the first; requests of nats-py are answered all the while."""
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)

    async def talk(url: str) -> None:
        client = NatsClient()
        await client.connect(url)
        first: list[MessageFrame] = []
        second: list[MessageFrame] = []
        theirs: list[bytes] = []

        async def hear(message: Msg) -> None:
            theirs.append(message.data)

        await client.subscribe("other", cb=hear)
        await client.tap("inbox.1", first.extend)
        await client.publish("inbox.1", b"one", headers={"A": "b"}, reply="answer.me")
        await client.publish("other", b"two")
        await client.flush()
        await client.tap("inbox.2", second.extend)
        await client.publish_many([("inbox.1", b"lost"), ("inbox.2", b"three"), ("other", b"four")])
        await client.flush()
        assert [(one.subject, one.reply, one.payload) for one in first] == [
            ("inbox.1", "answer.me", b"one")
        ]
        assert b"A: b" in first[0].headers
        assert [one.payload for one in second] == [b"three"]
        assert theirs == [b"two", b"four"]
        await client.close()

    async with nats_server(tmp_path) as server:
        with trio.fail_after(30):
            await asyncio_loop.call(talk, server.url)
    nursery.cancel_scope.cancel()


async def test_reader_of_a_tap_learns_at_once_that_the_connection_ended(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    asyncio_loop = AsyncioLoop()
    await nursery.start(asyncio_loop.run)
    ended = trio.Event()

    async def connect(url: str) -> NatsClient:
        client = NatsClient()
        await client.connect(url, allow_reconnect=False)
        await client.tap("inbox", lambda frames: None if frames else ended.set())
        await client.flush()
        return client

    async with nats_server(tmp_path) as server:
        client = await asyncio_loop.call(connect, server.url)
        await server.kill()
        with trio.fail_after(30):
            await ended.wait()
        await asyncio_loop.call(client.close)
    nursery.cancel_scope.cancel()
