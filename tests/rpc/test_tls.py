"""RPC with TLS: who is let in, who is not, and what both sides are told."""

import socket
import ssl
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from noti.address import Address
from noti.asyncio_loop import AsyncioLoop
from noti.certificates.context import MutualContexts
from noti.errors import ClusterMismatch, PeerUnavailable
from noti.raft.ports import Hello
from noti.rpc.accepting import GrpcServer
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.generated.notification import v1 as notification
from noti.rpc.grpc import GrpcNetwork
from noti.rpc.tls import HANDSHAKE_S
from tests import promises
from tests.certificates.authority import client
from tests.certificates.bad import BAD_CALLED, CLAIMED_NAME, BadPeer, peer_context
from tests.contract.test_rpc_network import (
    ANY_PORT,
    CLIENT,
    EVERY_MESSAGE,
    Handler,
    Publications,
    receive,
)
from tests.rpc.tls_peers import Fixed, cluster_authority, node_tls

SERVER = Hello("cluster", "id-server", "server")


def refused(reason: str) -> float:
    labels = {"at": "rpc", "reason": reason}
    return REGISTRY.get_sample_value("noti_tls_rejected_total", labels) or 0


@dataclass
class Scene:
    asyncio_loop: AsyncioLoop
    address: Address

    def network(self, *names: str, plain_too: bool = False) -> GrpcNetwork:
        """A network of somebody else on the same asyncio loop; without names one without TLS."""
        tls = node_tls(*names) if names else None
        return GrpcNetwork(self.asyncio_loop, tls, plain_too=plain_too)

    async def still_serves(self) -> None:
        stream = await self.network("client").open_raft_stream(self.address, CLIENT)
        await stream.send(EVERY_MESSAGE[:1])
        assert list(await receive(stream)) == EVERY_MESSAGE[:1]
        await stream.aclose()


@asynccontextmanager
async def serving(
    tls: Fixed | None, name: str = "server", *, plain_too: bool = False
) -> AsyncIterator[Scene]:
    asyncio_loop = AsyncioLoop()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(asyncio_loop.run)
            async with trio.open_nursery() as inner:
                network = GrpcNetwork(asyncio_loop, tls, plain_too=plain_too)
                yield Scene(
                    asyncio_loop,
                    await inner.start(
                        network.serve_rpc, ANY_PORT, Handler(name), Handler(name), Publications()
                    ),
                )
                inner.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


def told(logs: list[MutableMapping[str, Any]], text: str) -> int:
    return sum(text in line["event"] for line in logs if line["log_level"] == "warning")


async def test_a_caller_under_another_name_is_refused_with_the_reason() -> None:
    async with serving(node_tls("server")) as scene:
        before = refused("name")
        with capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(ClusterMismatch, match="its certificate is for node node2"):
                    await scene.network("node2").open_raft_stream(scene.address, CLIENT)
        assert refused("name") == before + 2
        assert told(logs, "claims to be node 'client'") == 1
        assert told(logs, "rejected") == 1, "and nothing tells it a second time"
        await scene.still_serves()


@promises.ONLY_CERTIFIED_PEERS
@pytest.mark.parametrize("peer", BAD_CALLED, ids=str)
async def test_a_bad_peer_that_is_called_is_refused_and_logged_in_one_line(
    peer: BadPeer, tmp_path: Path
) -> None:
    shows = peer.context(cluster_authority(), tmp_path, server=True)
    there = Fixed(MutualContexts(shows, node_tls("client").current.client))
    async with serving(there, CLAIMED_NAME) as scene:
        before = refused(peer.reason)
        with capture_logs() as logs:
            for _ in range(2):
                with pytest.raises(PeerUnavailable):
                    await scene.network("client").open_raft_stream(scene.address, CLIENT)
        assert refused(peer.reason) >= before + 2  # the other side may refuse as well
        host, port = scene.address
        assert told(logs, f"rejected: {host}:{port} ") == 2  # two networks, each told once


async def test_a_server_under_another_name_is_refused_by_its_caller() -> None:
    async with serving(node_tls("node2")) as scene:
        before = refused("name")
        with capture_logs() as logs, pytest.raises(PeerUnavailable, match="'server'"):
            await scene.network("client").open_raft_stream(scene.address, CLIENT)
        assert refused("name") == before + 1
        assert told(logs, "claims to be node 'server', but its certificate is for node node2") == 1


async def test_a_client_certificate_reads_and_forwards_nothing(tmp_path: Path) -> None:
    async with serving(node_tls("server")) as scene:
        context = peer_context(client("operator", cluster_authority()), tmp_path)

        async def ask() -> tuple[int, Status]:
            async with Channel(*scene.address, ssl=context) as channel:
                servers = (await notification.NotificationStub(channel).get_servers()).servers
                try:
                    await wire.PublisherStub(channel).publish(wire.PublishRequest())
                except GRPCError as error:
                    return len(servers), error.status
                return len(servers), Status.OK

        assert await scene.asyncio_loop.call(ask) == (1, Status.PERMISSION_DENIED)


async def test_a_caller_without_tls_is_refused_and_both_sides_log_it() -> None:
    async with serving(node_tls("server")) as scene:
        with (
            capture_logs() as logs,
            pytest.raises(PeerUnavailable, match="takes TLS only, and this node has none"),
        ):
            await scene.network().open_raft_stream(scene.address, CLIENT)
        assert told(logs, "speaks plain text, and this node takes TLS only") == 1
        assert told(logs, "takes TLS only, and this node has none; set --tls-cert") == 1
        await scene.still_serves()


async def test_a_caller_with_tls_does_not_fall_back_and_both_sides_log_it() -> None:
    async with serving(None) as scene:
        with capture_logs() as logs, pytest.raises(PeerUnavailable, match="TLS"):
            await scene.network("client").open_raft_stream(scene.address, CLIENT)
        assert told(logs, "speaks TLS, and this node has none") == 1
        assert told(logs, "does not speak TLS 1.3; has it no --tls-cert?") == 1


MODES = {"off": (False, False), "permissive": (True, True), "required": (True, False)}
"""Whether there is TLS, and whether plain text is spoken too."""


@promises.TLS_IS_SWITCHED_ON_AND_OFF
@pytest.mark.parametrize(
    ("caller", "called", "with_tls"),
    [
        ("off", "permissive", False),
        ("permissive", "off", False),
        ("permissive", "permissive", True),
        ("permissive", "required", True),
        ("required", "permissive", True),
    ],
)
async def test_nodes_of_one_step_and_the_next_speak_with_tls_where_both_can(
    caller: str, called: str, with_tls: bool
) -> None:
    (calls_with, calls_plain), (has, takes_plain) = MODES[caller], MODES[called]
    async with serving(node_tls("server") if has else None, plain_too=takes_plain) as scene:
        network = scene.network(*["client"] * calls_with, plain_too=calls_plain)
        stream = await network.open_raft_stream(scene.address, CLIENT)
        assert stream.proven == with_tls
        await stream.send(EVERY_MESSAGE[:1])
        assert list(await receive(stream)) == EVERY_MESSAGE[:1]
        await stream.aclose()


async def test_permissive_node_holds_those_with_tls_to_their_certificates(tmp_path: Path) -> None:
    async with serving(node_tls("server"), plain_too=True) as scene:
        with pytest.raises(ClusterMismatch, match="its certificate is for node node2"):
            await scene.network("node2", plain_too=True).open_raft_stream(scene.address, CLIENT)
        context = peer_context(client("operator", cluster_authority()), tmp_path)

        async def publish() -> Status:
            async with Channel(*scene.address, ssl=context) as channel:
                try:
                    await wire.PublisherStub(channel).publish(wire.PublishRequest())
                except GRPCError as error:
                    return error.status
            return Status.OK

        assert await scene.asyncio_loop.call(publish) is Status.PERMISSION_DENIED


async def test_permissive_caller_takes_no_plain_text_instead_of_a_bad_certificate() -> None:
    async with serving(node_tls("node2"), plain_too=True) as scene:
        network = scene.network("client", plain_too=True)
        with pytest.raises(PeerUnavailable, match="'server'"):
            await network.open_raft_stream(scene.address, CLIENT)


async def test_caller_without_tls_cannot_take_the_id_of_a_node_that_had_it() -> None:
    async with serving(node_tls("server"), plain_too=True) as scene:
        stream = await scene.network("client").open_raft_stream(scene.address, CLIENT)
        await stream.aclose()
        thief = Hello(CLIENT.cluster_id, CLIENT.node_id, "thief")
        with pytest.raises(ClusterMismatch, match="comes with the node id of node 'client'"):
            await scene.network().open_raft_stream(scene.address, thief)
        stream = await scene.network().open_raft_stream(scene.address, CLIENT)
        await stream.aclose()


async def test_what_is_neither_tls_nor_http_2_is_refused() -> None:
    async with serving(node_tls("server")) as scene:
        before = refused("plain")
        stream = await trio.open_tcp_stream(*scene.address)
        async with stream:
            await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            assert await stream.receive_some() == b""
        assert refused("plain") == before + 1
        await scene.still_serves()


async def test_a_renewed_certificate_is_shown_to_the_next_caller() -> None:
    tls = node_tls("node2")
    renewable = Fixed(tls.current)
    async with serving(renewable) as scene:
        with pytest.raises(PeerUnavailable):
            await scene.network("client").open_raft_stream(scene.address, CLIENT)
        object.__setattr__(renewable, "current", node_tls("server").current)
        await scene.still_serves()


async def test_failed_handshakes_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    servers: list[GrpcServer] = []
    make = GrpcServer.__init__

    def remember(self: GrpcServer, *args: object) -> None:
        servers.append(self)
        make(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(GrpcServer, "__init__", remember)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    def call() -> None:
        with socket.create_connection(scene.address) as raw, context.wrap_socket(raw) as secured:
            secured.recv(1)

    async with serving(node_tls("server")) as scene:
        for _ in range(30):
            with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
                await trio.to_thread.run_sync(call)
        [server] = servers
        assert not server._open


@pytest.mark.slow
async def test_who_sends_nothing_is_dropped_and_keeps_nobody_from_being_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert HANDSHAKE_S <= 10
    monkeypatch.setattr("noti.rpc.sniffing.HANDSHAKE_S", 0.3)
    monkeypatch.setattr("noti.rpc.tls.HANDSHAKE_S", 0.3)
    async with serving(node_tls("server")) as scene:
        silent = [await trio.open_tcp_stream(*scene.address) for _ in range(20)]
        slow = await trio.open_tcp_stream(*scene.address)
        await slow.send_all(b"\x16\x03\x01")  # a TLS record that never goes on
        await scene.still_serves()
        for stream in (*silent, slow):
            with trio.fail_after(30):
                assert await stream.receive_some() == b""
            await stream.aclose()
