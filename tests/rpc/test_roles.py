"""Nodes are asked for their roles, with TLS and without."""

import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import trio

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.certificates.context import mutual_client_context
from noti.certificates.credentials import CertificateUse, load_credentials
from noti.errors import PeerUnavailable
from noti.rpc import services
from noti.rpc.answers import NodeRole
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.roles import Roles
from tests.certificates.authority import client
from tests.contract.test_rpc_network import ANY_PORT, Handler, Publications
from tests.ports import free_port
from tests.rpc.tls_peers import cluster_authority, node_tls


@cache
def operator_context() -> ssl.SSLContext:
    """What an operator with a client certificate shows and trusts."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = client("operator", cluster_authority()).write(directory, "operator")
        ca = directory / "ca.pem"
        ca.write_bytes(cluster_authority().pem)
        return mutual_client_context(load_credentials(*paths, ca, use=CertificateUse.CLIENT))


@asynccontextmanager
async def running_asyncio_loop() -> AsyncIterator[AsyncioLoop]:
    asyncio_loop = AsyncioLoop()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            yield asyncio_loop
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def node(
    asyncio_loop: AsyncioLoop, name: str, bind: Address = ANY_PORT, *, tls: bool = False
) -> AsyncIterator[Address]:
    network = GrpcNetwork(asyncio_loop, node_tls(name) if tls else None)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(
            network.serve_rpc, bind, Handler(name), Handler(name), Publications()
        )
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("tls", [False, True])
async def test_a_node_is_asked_again_and_again_on_one_connection(tls: bool) -> None:
    connections = 0

    def context() -> ssl.SSLContext | None:
        nonlocal connections
        connections += 1
        return operator_context() if tls else None

    async with (
        running_asyncio_loop() as asyncio_loop,
        node(asyncio_loop, "noti-0", tls=tls) as address,
    ):
        roles = Roles(asyncio_loop, context)
        for _ in range(3):
            assert await roles.ask(address, "noti-0") == NodeRole("noti-0", "leader", 7, "noti-0")
        roles.close()
    assert connections == 1


async def test_a_role_of_a_newer_version_is_never_taken_for_leadership(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(services, "ROLES", {"leader": wire.Role(17)})
    async with running_asyncio_loop() as asyncio_loop, node(asyncio_loop, "noti-0") as address:
        roles = Roles(asyncio_loop)
        assert (await roles.ask(address, "noti-0")).role == "learner"
        roles.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_of_another_node_at_that_address_does_not_count(tls: bool) -> None:
    async with (
        running_asyncio_loop() as asyncio_loop,
        node(asyncio_loop, "noti-1", tls=tls) as address,
    ):
        roles = Roles(asyncio_loop, operator_context if tls else lambda: None)
        with pytest.raises(PeerUnavailable, match="noti-1"):
            await roles.ask(address, "noti-0")
        roles.close()


async def test_a_node_without_tls_is_not_believed_by_an_operator_that_has_it() -> None:
    async with running_asyncio_loop() as asyncio_loop, node(asyncio_loop, "noti-0") as address:
        roles = Roles(asyncio_loop, operator_context)
        with pytest.raises(PeerUnavailable, match=f"{address[0]}:{address[1]}"):
            await roles.ask(address, "noti-0")
        roles.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_permissive_operator_asks_nodes_with_tls_and_without(tls: bool) -> None:
    async with (
        running_asyncio_loop() as asyncio_loop,
        node(asyncio_loop, "noti-0", tls=tls) as address,
    ):
        roles = Roles(asyncio_loop, operator_context, plain_too=True)
        assert (await roles.ask(address, "noti-0")).name == "noti-0"
        roles.close()


async def test_a_dead_node_is_unavailable_and_found_again_when_it_is_back() -> None:
    bind = ("127.0.0.1", free_port())
    async with running_asyncio_loop() as asyncio_loop:
        roles = Roles(asyncio_loop)
        async with node(asyncio_loop, "noti-0", bind):
            await roles.ask(bind, "noti-0")
        for _ in range(2):
            with pytest.raises(PeerUnavailable, match=str(bind[1])):
                await roles.ask(bind, "noti-0")
        async with node(asyncio_loop, "noti-0", bind):
            assert (await roles.ask(bind, "noti-0")).term == 7
        roles.close()


async def test_a_silent_node_can_be_given_up(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = listeners[0].socket.getsockname()[:2]

    async def silent(stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    nursery.start_soon(trio.serve_listeners, silent, listeners)
    async with running_asyncio_loop() as asyncio_loop:
        roles = Roles(asyncio_loop)
        with trio.move_on_after(0.05) as patience:
            await roles.ask(address, "noti-0")
        assert patience.cancelled_caught
        roles.close()
    nursery.cancel_scope.cancel()


async def test_whatever_the_library_raises_is_an_unavailable_node(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'write'")

    async with running_asyncio_loop() as asyncio_loop, node(asyncio_loop, "n1") as address:
        roles = Roles(asyncio_loop)
        with monkeypatch.context() as broken:
            broken.setattr("noti.rpc.roles.PeerChannel.request", fail)
            with pytest.raises(PeerUnavailable):
                await roles.ask(address, "n1")
        assert (await roles.ask(address, "n1")).name == "n1"
        roles.close()
