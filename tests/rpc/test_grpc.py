"""What only the real RPC network promises: peers that die, hostile bytes, operator services."""

import asyncio
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import h2.config
import h2.connection
import pytest
import trio
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.errors import MessageInvalid, PeerUnavailable
from noti.raft.ports import Hello, MessageStream
from noti.rpc import connections
from noti.rpc.admission import RAFT_METHOD
from noti.rpc.codec import FRAME_BYTES_MAX, encode_hello, encode_messages
from noti.rpc.frame_connections import FrameConnection
from noti.rpc.generated.grpc.health import v1 as health
from noti.rpc.generated.notification import v1 as notification
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.raft_streams import PeerMessageStream
from tests import promises
from tests.contract.test_rpc_network import (
    ANY_PORT,
    CLIENT,
    EVERY_MESSAGE,
    Handler,
    Publications,
    receive,
)
from tests.rpc.older_nodes import callers_are_older

ROOT = Path(__file__).resolve().parents[2]


@asynccontextmanager
async def serving(
    handler: Handler, publishing: Publications | None = None
) -> AsyncIterator[tuple[AsyncioLoop, GrpcNetwork, Address]]:
    asyncio_loop = AsyncioLoop()
    publishing = publishing or Publications()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            network = GrpcNetwork(asyncio_loop)
            async with trio.open_nursery() as inner:
                address = await inner.start(
                    network.serve_rpc, ANY_PORT, handler, handler, publishing
                )
                yield asyncio_loop, network, address
                inner.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


async def ask(
    asyncio_loop: AsyncioLoop, address: Address, question: Callable[[Channel], Awaitable[object]]
) -> object:
    async def on_channel() -> object:
        async with Channel(*address) as channel:
            return await question(channel)

    return await asyncio_loop.call(on_channel)


@pytest.mark.interop
@pytest.mark.slow
async def test_killed_peer_process_is_noticed_at_once() -> None:
    asyncio_loop = AsyncioLoop()
    command = [sys.executable, "-m", "tests.rpc.peer_process"]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, cwd=ROOT)
            assert process.stdout is not None
            try:
                host, port = (await process.stdout.receive_some()).decode().split()
                network = GrpcNetwork(asyncio_loop)
                stream = await network.open_raft_stream((host, int(port)), CLIENT)
                await stream.send(EVERY_MESSAGE[:1])
                assert list(await receive(stream)) == EVERY_MESSAGE[:1]
                process.kill()
                # Raft's election timeout is 500 ms at least: a death has to show well before.
                with pytest.raises(PeerUnavailable), trio.fail_after(0.5):
                    await receive(stream)
                with pytest.raises(PeerUnavailable):
                    await stream.send(EVERY_MESSAGE[:1])
                await stream.aclose()
            finally:
                process.kill()
                with trio.CancelScope(shield=True):
                    await process.wait()
                await process.stdout.aclose()
            nursery.cancel_scope.cancel()


async def test_operators_see_the_members() -> None:
    async with serving(Handler()) as (asyncio_loop, _, address):
        answer = await ask(
            asyncio_loop,
            address,
            lambda channel: notification.NotificationStub(channel).get_servers(),
        )
        server = notification.Server(id="id-server", rpc_addr="127.0.0.1:8400", is_leader=True)
        assert answer == notification.GetServersResponse(servers=[server])


async def test_operators_see_who_leads() -> None:
    async with serving(Handler()) as (asyncio_loop, _, address):
        answer = await ask(
            asyncio_loop,
            address,
            lambda channel: notification.NotificationStub(channel).get_leader_status(),
        )
        assert answer == notification.LeaderStatusResponse(is_leader=True)


@pytest.mark.parametrize("service", ["", "noti.v1.Raft", "notification.v1.Notification"])
async def test_health_is_reported_per_service(service: str) -> None:
    request = health.HealthCheckRequest(service=service)
    async with serving(Handler()) as (asyncio_loop, _, address):
        answer = await ask(
            asyncio_loop, address, lambda channel: health.HealthStub(channel).check(request)
        )
        status = health.HealthCheckResponseServingStatus.SERVING
        assert answer == health.HealthCheckResponse(status=status)


async def test_health_of_an_unknown_service_is_not_found() -> None:
    request = health.HealthCheckRequest(service="nobody")
    async with serving(Handler()) as (asyncio_loop, _, address):
        with pytest.raises(GRPCError) as caught:
            await ask(
                asyncio_loop, address, lambda channel: health.HealthStub(channel).check(request)
            )
        assert caught.value.status is Status.NOT_FOUND


@pytest.mark.slow
async def test_health_watch_reports_every_change() -> None:
    class Changing(Handler):
        asked = 0

        def serving(self) -> bool:
            self.asked += 1
            return self.asked != 2

    async def first_three(channel: Channel) -> list[int]:
        seen: list[int] = []
        async for answer in health.HealthStub(channel).watch(health.HealthCheckRequest()):
            seen.append(int(answer.status))
            if len(seen) == 3:
                break
        return seen

    async with serving(Changing()) as (asyncio_loop, _, address):
        assert await ask(asyncio_loop, address, first_three) == [1, 2, 1]


def raft_request(
    address: Address, path: str = RAFT_METHOD
) -> tuple[socket.socket, h2.connection.H2Connection]:
    """Open a Raft stream, or another call, by hand, for saying what no client of ours would."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    connection.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "test"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ],
    )
    raw = socket.create_connection(address)
    raw.sendall(connection.data_to_send())
    return raw, connection


def framed(payload: bytes) -> bytes:
    return struct.pack(">?I", False, len(payload)) + payload


@pytest.mark.parametrize(
    "data",
    [
        framed(b"\xff" * 20),  # not protobuf
        framed(b""),  # neither hello nor batch
        struct.pack(">?I", False, FRAME_BYTES_MAX + 1),  # longer than allowed
        struct.pack(">?I", True, 3) + b"abc",  # compressed
    ],
    ids=["garbage", "empty", "oversized", "compressed"],
)
async def test_bad_hello_is_refused_and_harms_nobody(data: bytes) -> None:
    handler = Handler()
    async with serving(handler) as (_, network, address):
        raw, connection = raft_request(address)
        with raw:
            connection.send_data(1, data)
            raw.sendall(connection.data_to_send())
            stream = await network.open_raft_stream(address, CLIENT)
            await stream.send(EVERY_MESSAGE[:1])
            assert list(await receive(stream)) == EVERY_MESSAGE[:1]
            await stream.aclose()
        assert [served.peer.name for served in handler.streams] == ["client"]


@promises.INVALID_BYTES_STOP_NO_NODE
@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: test\r\n\r\n",
        bytes(range(256)),
        # A frame of a type that no RFC knows, after a proper preface.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\0\xee\0\0\0\0\1",
    ],
    ids=["http1", "noise", "unknown-frame"],
)
async def test_connection_that_talks_nonsense_harms_nobody(data: bytes) -> None:
    async with serving(Handler()) as (_, network, address):
        raw = await trio.open_tcp_stream(*address)
        async with raw:
            await raw.send_all(data)
            with trio.move_on_after(0.05):
                while await raw.receive_some():
                    pass
            stream = await network.open_raft_stream(address, CLIENT)
            await stream.send(EVERY_MESSAGE[:1])
            assert list(await receive(stream)) == EVERY_MESSAGE[:1]
            await stream.aclose()


@pytest.mark.parametrize(
    "data",
    [
        framed(b"\xff\xff\xff"),
        b"\1" + framed(next(encode_messages(EVERY_MESSAGE[:1])))[1:],
        struct.pack(">?I", False, FRAME_BYTES_MAX + 1),
    ],
    ids=["garbage", "compressed", "oversized"],
)
async def test_garbage_on_an_open_stream_is_message_invalid(data: bytes) -> None:
    seen: list[Exception] = []
    done = trio.Event()

    async def hear_garbage(stream: MessageStream) -> None:
        try:
            await receive(stream)
        except (MessageInvalid, PeerUnavailable) as error:
            seen.append(error)
        done.set()

    async with serving(Handler(after_stream=hear_garbage)) as (_, _, address):
        raw, connection = raft_request(address)
        with raw:
            connection.send_data(1, framed(encode_hello(CLIENT)) + data)
            raw.sendall(connection.data_to_send())
            await done.wait()
    assert [type(error) for error in seen] == [MessageInvalid]


async def test_both_ends_take_a_batch_of_events_in_one_frame() -> None:
    with callers_are_older():
        await _both_ends_take_a_batch_in_one_frame()


async def _both_ends_take_a_batch_in_one_frame() -> None:
    async with serving(Handler()) as (_, network, address):
        stream = await network.open_raft_stream(address, CLIENT)
        assert isinstance(stream, PeerMessageStream)
        assert isinstance(stream._carrier, connections.PeerStream)
        connection = stream._carrier.connection.h2
        limits = (connection.max_outbound_frame_size, connection.max_inbound_frame_size)
        while limits != (
            connections.FRAME_BYTES_MAX,
            connections.FRAME_BYTES_MAX,
        ):  # once the settings came
            await trio.sleep(0.01)
            limits = (connection.max_outbound_frame_size, connection.max_inbound_frame_size)
        await stream.aclose()


async def test_stream_that_ends_in_the_middle_of_a_frame_is_message_invalid() -> None:
    seen: list[Exception] = []

    async def hear(stream: MessageStream) -> None:
        try:
            await stream.receive(lambda _: True)
        except (MessageInvalid, PeerUnavailable) as error:
            seen.append(error)

    handler = Handler(after_stream=hear)
    async with serving(handler) as (_, _, address):
        raw, connection = raft_request(address)
        with raw:
            cut = framed(b"x" * 100)[:-1]
            connection.send_data(1, framed(encode_hello(CLIENT)) + cut, end_stream=True)
            raw.sendall(connection.data_to_send())
            await handler.ended.wait()
    assert [type(error) for error in seen] == [MessageInvalid]


async def test_dialing_something_else_is_unavailable() -> None:
    async def not_grpc(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(Handler()) as (_, network, _), trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, not_grpc, 0)
        host, port = listeners[0].socket.getsockname()[:2]
        with pytest.raises(PeerUnavailable):
            await network.open_raft_stream(("127.0.0.1", port), CLIENT)
        assert host is not None
        nursery.cancel_scope.cancel()


async def test_root_cancellation_closes_everything_in_any_nesting() -> None:
    """Loop, server, served stream and dialed stream are cancelled at the same moment."""
    asyncio_loop = AsyncioLoop()
    network = GrpcNetwork(asyncio_loop)
    handler = Handler()

    async def dialer(address: Address, *, task_status: trio.TaskStatus[None]) -> None:
        stream = await network.open_raft_stream(address, CLIENT)
        try:
            await stream.send(EVERY_MESSAGE[:1])
            await receive(stream)
            task_status.started()
            await receive(stream)
        finally:
            await stream.aclose()

    with trio.fail_after(10), trio.CancelScope() as root:
        async with trio.open_nursery() as outer:
            await outer.start(asyncio_loop.run)
            async with trio.open_nursery() as inner:
                address = await inner.start(
                    network.serve_rpc, ANY_PORT, handler, handler, Publications()
                )
                await inner.start(dialer, address)
                root.cancel()
    assert handler.ended.is_set()
    # Nothing listens there any more.
    with pytest.raises(OSError, match="failed"):
        await trio.open_tcp_stream(*address)


FOREIGN_ERRORS = [
    AssertionError("a stream that is none"),
    AttributeError("'NoneType' object has no attribute 'write'"),
    KeyError(7),
    asyncio.InvalidStateError("invalid state"),
]


@pytest.mark.parametrize("carrier", [FrameConnection, connections.PeerStream])
@pytest.mark.parametrize("error", FOREIGN_ERRORS, ids=lambda error: type(error).__name__)
async def test_whatever_the_library_raises_is_an_unavailable_peer(
    error: Exception, carrier: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise error

    def fail_at_once(*_: object) -> None:
        raise error

    older = nullcontext() if carrier is FrameConnection else callers_are_older()
    async with serving(Handler()) as (_, network, address):
        with older:
            stream = await network.open_raft_stream(address, CLIENT)
            with monkeypatch.context() as broken:
                broken.setattr(carrier, "write_at_once", fail_at_once)
                with pytest.raises(PeerUnavailable):
                    stream.send_at_once(EVERY_MESSAGE[:1])
                broken.setattr(carrier, "write_at_once", lambda *_: False)
                broken.setattr(carrier, "write", fail)
                with pytest.raises(PeerUnavailable):
                    await stream.send(EVERY_MESSAGE[:1])
                if carrier is FrameConnection:
                    broken.setattr(carrier, "write_at_once", fail_at_once)
                with pytest.raises(PeerUnavailable):
                    await network.open_raft_stream(address, CLIENT)
            await stream.aclose()
            await (await network.open_raft_stream(address, CLIENT)).aclose()


@promises.CONNECTION_FAILS_ALONE
async def test_error_in_the_use_of_one_stream_ends_that_stream_and_no_more() -> None:
    async def fail(stream: MessageStream) -> None:
        if stream.peer.name == "clumsy":
            raise AssertionError("planted")
        await receive(stream)

    async with serving(Handler(after_stream=fail)) as (_, network, address):
        clumsy = Hello("cluster", "id-clumsy", "clumsy")
        stream = await network.open_raft_stream(address, clumsy)
        with pytest.raises(PeerUnavailable):
            await receive(stream)
        await stream.aclose()
        await (await network.open_raft_stream(address, CLIENT)).aclose()
