"""A login stays here unless the connection is as it was asked to be; an end is a whole one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import Mock
from urllib.parse import urlsplit

import nats.errors
import pytest
import trio
from nats.aio.client import Srv

from noti.asyncio_loop import Island
from noti.publishing.nats.client import NatsClient


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


def greeted(url: str, **options: object) -> NatsClient:
    """A client over a WebSocket, whose server has just greeted."""
    client = NatsClient()
    client._current_server = Srv(urlsplit(url))  # type: ignore[arg-type]
    client._transport = Mock()
    client._server_info = {"headers": True}
    client.options = {
        "verbose": False,
        "pedantic": False,
        "name": None,
        "no_echo": False,
        **options,
    }
    return client


def test_plain_websocket_gets_no_login_where_tls_was_asked_for() -> None:
    with pytest.raises(nats.errors.Error, match="offers no TLS, and nothing was sent to it"):
        greeted("ws://127.0.0.1:8080", tls=object())._connect_command()


@pytest.mark.parametrize("options", [{}, {"tls": object()}])
def test_encrypted_websocket_is_connected_to(options: dict[str, object]) -> None:
    assert greeted("wss://127.0.0.1:8080", **options)._connect_command().startswith(b"CONNECT ")


async def test_client_that_never_connected_is_closed_quietly(nursery: trio.Nursery) -> None:
    island = Island()
    await nursery.start(island.run)
    client = NatsClient()
    await island.call(client.close)
    assert client.is_closed
    nursery.cancel_scope.cancel()


async def test_connection_whose_last_write_fails_is_given_up_all_the_same(
    nursery: trio.Nursery,
) -> None:
    island = Island()
    await nursery.start(island.run)

    async def close_a_broken_one() -> tuple[bool, int]:
        async with open_server() as (url, connections):
            client = NatsClient()
            await client.connect(url, allow_reconnect=False)
            transport = client._transport
            assert transport is not None
            transport.drain = Mock(side_effect=ConnectionResetError)  # type: ignore[method-assign]
            client._pending, client._pending_data_size = [b"PING\r\n"], 6
            await client.close()
            # The server sees the end, so no descriptor was kept.
            return await connections[0].read() is not None, len(asyncio.all_tasks())

    with trio.fail_after(30):
        ended, tasks = await island.call(close_a_broken_one)
    assert (ended, tasks) == (True, 1)
    nursery.cancel_scope.cancel()


async def test_pong_for_a_cancelled_ping_does_not_end_the_connection(
    nursery: trio.Nursery,
) -> None:
    island = Island()
    await nursery.start(island.run)

    async def late_pong() -> bool:
        client = NatsClient()
        cancelled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        client._pongs = [cancelled]
        client._pings_outstanding = 1
        await client._process_pong()
        return client._pings_outstanding == 0

    assert await island.call(late_pong)
    nursery.cancel_scope.cancel()
