"""Who is served at the RPC port when there are more connections than places."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager

import h2.config
import h2.connection
import pytest
import trio
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.descriptors import PROBES_MAX
from noti.rpc.accepting import RpcLimits
from noti.rpc.generated.grpc.health import v1 as health
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.grpc import GrpcNetwork
from tests import promises
from tests.contract.test_rpc_network import (
    ANY_PORT,
    CLIENT,
    EVERY_MESSAGE,
    Handler,
    Publications,
    receive,
)
from tests.rpc.test_grpc import ask, raft_request

LIMIT_S = 20
PUBLISH = "/noti.v1.Publisher/PublishStream"


@asynccontextmanager
async def serving(
    limits: RpcLimits, handler: Handler | None = None
) -> AsyncIterator[tuple[AsyncioLoop, GrpcNetwork, Address]]:
    asyncio_loop = AsyncioLoop()
    handler = handler or Handler()
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            network = GrpcNetwork(asyncio_loop, limits=limits)
            async with trio.open_nursery() as inner:
                address = await inner.start(
                    network.serve_rpc, ANY_PORT, handler, handler, Publications()
                )
                yield asyncio_loop, network, address
                inner.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


def taken() -> float:
    return REGISTRY.get_sample_value("noti_connections", {"listener": "rpc"}) or 0.0


async def until_taken(number: int) -> None:
    while taken() != number:  # noqa: ASYNC110 - nobody announces it
        await trio.sleep(0.005)


@contextmanager
def publishers(address: Address, number: int) -> Iterator[None]:
    """Open connections, each with a call that lasts."""
    with ExitStack() as stack:
        for _ in range(number):
            raw, _ = raft_request(address, PUBLISH)
            stack.enter_context(raw)
        yield


def idle(address: Address) -> socket.socket:
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    raw = socket.create_connection(address)
    raw.sendall(connection.data_to_send())
    return raw


async def is_healthy(asyncio_loop: AsyncioLoop, address: Address) -> bool:
    def check(channel: Channel) -> object:
        return health.HealthStub(channel).check(health.HealthCheckRequest())

    answer = await ask(asyncio_loop, address, check)  # type: ignore[arg-type]
    return answer == health.HealthCheckResponse(
        status=health.HealthCheckResponseServingStatus.SERVING
    )


async def publish(asyncio_loop: AsyncioLoop, address: Address) -> object:
    def send(channel: Channel) -> object:
        event = wire.Event(topics=["a"], data="b")
        return wire.PublisherStub(channel).publish(wire.PublishRequest(events=[event]))

    return await ask(asyncio_loop, address, send)  # type: ignore[arg-type]


async def test_who_is_idle_longest_makes_room() -> None:
    async with serving(RpcLimits(connections_max=2)) as (asyncio_loop, _, address):
        with idle(address) as old:
            await until_taken(1)
            with idle(address):
                await until_taken(2)
                assert await publish(asyncio_loop, address)
                old.settimeout(LIMIT_S)

                def read_to_end() -> None:
                    while old.recv(65536):
                        pass

                await trio.to_thread.run_sync(read_to_end)


async def test_who_was_answered_waits_again_and_makes_room() -> None:
    async with serving(RpcLimits(connections_max=1)) as (asyncio_loop, _, address):

        async def both() -> None:
            request = wire.PublishRequest(events=[wire.Event(topics=["a"], data="b")])
            async with Channel(*address) as first:
                await wire.PublisherStub(first).publish(request)
                async with Channel(*address) as second:
                    await wire.PublisherStub(second).publish(request)

        await asyncio_loop.call(both)


@promises.CONNECTIONS_BOUNDED
async def test_when_all_are_busy_publishers_are_rejected_and_nodes_and_health_served() -> None:
    async with serving(RpcLimits(connections_max=2)) as (asyncio_loop, network, address):
        with publishers(address, 2), capture_logs() as lines:
            await until_taken(2)
            stream = await network.open_raft_stream(address, CLIENT)
            for _ in range(2 * PROBES_MAX):
                with pytest.raises(GRPCError, match=r"--rpc-connections-max") as refused:
                    await publish(asyncio_loop, address)
                assert refused.value.status is Status.UNAVAILABLE
            assert await is_healthy(asyncio_loop, address)
            with publishers(address, 2 * PROBES_MAX):
                await until_taken(2 + PROBES_MAX)
            await stream.send(EVERY_MESSAGE[:1])
            assert list(await receive(stream)) == EVERY_MESSAGE[:1], "it made room for nobody"
            await stream.aclose()
        told = [line for line in lines if "connections are rejected" in line["event"]]
        assert len(told) == 1
        await until_taken(0)
        assert await publish(asyncio_loop, address), "there is room again"


async def test_one_address_has_only_its_share() -> None:
    async with serving(RpcLimits(per_address_max=2)) as (asyncio_loop, _, address):
        with publishers(address, 2):
            await until_taken(2)
            with pytest.raises(GRPCError, match="--rpc-connections-per-address-max"):
                await publish(asyncio_loop, address)


async def test_silent_connections_make_room_for_one_that_speaks() -> None:
    limits = RpcLimits(connections_max=8)
    async with serving(limits) as (asyncio_loop, _, address):
        silent = [socket.create_connection(address) for _ in range(3 * limits.unready_max)]
        assert await publish(asyncio_loop, address)
        for raw in silent:
            raw.close()
