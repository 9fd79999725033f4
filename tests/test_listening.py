"""Promises of the acceptor that serves one task a connection, over real loopback sockets."""

import errno
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from structlog.testing import capture_logs

from noti import listening
from noti.address import Address
from tests.http.stage import LIMIT_S, until


class Handler:
    """Says `hello`, then waits for the client's end."""

    def __init__(self) -> None:
        self.open = 0

    async def __call__(self, stream: trio.SocketStream) -> None:
        self.open += 1
        try:
            async with stream:
                await stream.send_all(b"hello")
                while await stream.receive_some():
                    pass
        finally:
            self.open -= 1


@asynccontextmanager
async def serving(handler: Handler, connections_max: int | None = None) -> AsyncIterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await listening.serve(
                    listener,
                    handler,
                    nursery,
                    listener="control",
                    connections_max=connections_max,
                )

            nursery.start_soon(serve)
            yield listener.getsockname()
            nursery.cancel_scope.cancel()


async def greeted(address: Address) -> trio.SocketStream:
    with trio.fail_after(LIMIT_S):
        stream = await trio.open_tcp_stream(*address)
        assert await stream.receive_some() == b"hello"
        return stream


async def test_the_oldest_makes_room_for_the_newest() -> None:
    handler = Handler()
    async with serving(handler, 3) as address:
        streams = [await greeted(address) for _ in range(5)]
        await until(lambda: handler.open == 3)
        with trio.fail_after(LIMIT_S):
            for stream in streams[:2]:
                assert await stream.receive_some() == b""
        for stream in streams:
            await stream.aclose()


async def test_nobody_makes_room_before_somebody_comes() -> None:
    async with serving(Handler(), 1) as address:
        only = await greeted(address)
        await trio.sleep(2 * listening.YOUNG_S)
        with trio.move_on_after(0):
            assert await only.receive_some(), "it was closed"
        await (await greeted(address)).aclose()
        await only.aclose()


async def test_who_goes_by_himself_makes_room_without_anybody_being_closed() -> None:
    async with serving(Handler(), 2) as address:
        stays = await greeted(address)
        for _ in range(10):
            await (await greeted(address)).aclose()
        await stays.send_all(b"still here")
        with trio.move_on_after(0):
            assert await stays.receive_some(), "it was closed"
        await stays.aclose()


async def test_no_descriptor_left_is_logged_once_and_survived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = [OSError(errno.EMFILE, "Too many open files")] * 6
    accept = socket.socket.accept

    def fail_first(self: socket.socket) -> tuple[socket.socket, object]:
        if failures:
            raise failures.pop()
        return accept(self)

    monkeypatch.setattr(socket.socket, "accept", fail_first)
    with capture_logs() as lines:
        async with serving(Handler()) as address:
            await (await greeted(address)).aclose()
    assert not failures
    assert len(lines) == 1
