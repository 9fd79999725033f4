"""Streams between nodes, and gRPC towards operators and publishers: the real `RpcNetwork`.

Errors of grpclib, h2 and the system become `noti.errors` here.
"""

import socket
import ssl
from contextlib import ExitStack
from typing import Final

import trio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from noti import listening
from noti.address import Address, format_address
from noti.asyncio_loop import AsyncioLoop
from noti.certificates.context import MutualContexts
from noti.certificates.rejection_log import RejectionLog
from noti.certificates.rejections import Rejection
from noti.certificates.renewal import Current
from noti.errors import AddressInUse, ClusterMismatch, PeerUnavailable
from noti.publishing.ports import Publishing
from noti.raft.ports import Hello, MessageStream
from noti.rpc.accepting import GrpcServer, RpcLimits, Servable
from noti.rpc.admission import CallerAdmission
from noti.rpc.dialing import Dialer, describe, rejection_in
from noti.rpc.peer_certificates import PeerCertificates
from noti.rpc.ports import NodeReport, PeerHandler
from noti.rpc.publish_service import PublisherService
from noti.rpc.raft_streams import PeerMessageStream, RaftService, open_stream, use_stream
from noti.rpc.rejected_calls import RejectedCalls
from noti.rpc.services import OperatorServices
from noti.rpc.sniffing import ProtocolSniffer
from noti.rpc.tls import certificate_of

CLEANUP_S: Final = 2.0
"""Closing connections needs no answer from anybody; this only guards against a bug."""

LISTEN_BACKLOG: Final = 128
"""Connections waiting to be accepted; peers are few, the rest are probes."""


_LIMITS: Final = RpcLimits()


class GrpcNetwork:
    """Serves and dials on one asyncio loop, which must outlive both."""

    def __init__(
        self,
        asyncio_loop: AsyncioLoop,
        tls: Current[MutualContexts] | None = None,
        limits: RpcLimits = _LIMITS,
        *,
        plain_too: bool = False,
    ) -> None:
        """With `tls`, every connection is mutual TLS and every peer is held to its certificate.

        With `plain_too`, only those with peers that have TLS.
        """
        self._asyncio_loop = asyncio_loop
        self._limits = limits
        self._server: GrpcServer | None = None
        self._tls = tls
        self._plain_too = plain_too
        self._certificates = PeerCertificates()
        self._rejections = RejectionLog("rpc")
        self._rejected = RejectedCalls()

    def change(self, limits: RpcLimits) -> None:
        """Hold to other limits from now on."""
        self._limits = limits
        if self._server is not None:
            self._server.change(limits)

    async def serve_rpc(
        self,
        bind: Address,
        peers: PeerHandler,
        node: NodeReport,
        publishing: Publishing,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; started with the real address once connections are accepted.

        Raises `AddressInUse`. *Resource handling*: streams run in a nursery of this call; when it
        is cancelled they are cancelled, all connections are closed, and dialers see that at once.
        """
        with self._asyncio_loop.held(), _listen(bind) as listener:
            address: Address = listener.getsockname()[:2]
            async with trio.open_nursery() as nursery:
                admission = CallerAdmission(
                    peers, self._certificates, self._rejections, self._rejected
                )
                raft = RaftService(
                    admission,
                    self._asyncio_loop,
                    lambda stream: nursery.start_soon(use_stream, peers, stream),
                )
                publisher = PublisherService(publishing, self._rejected)
                services: tuple[Servable, ...] = (raft, OperatorServices(node), publisher)

                async def make_server() -> GrpcServer:
                    return GrpcServer(services, raft.greet, admission, self._rejected, self._limits)

                server = await self._asyncio_loop.call(make_server)
                self._server = server
                try:
                    sniffer = ProtocolSniffer(
                        self._asyncio_loop,
                        server,
                        self._server_context,
                        self._rejections,
                        plain_too=self._plain_too,
                    )
                    task_status.started(address)
                    await listening.serve(
                        listener,
                        sniffer.serve,
                        nursery,
                        listener="rpc_arriving",
                        connections_max=self._limits.unready_max,
                    )
                finally:
                    listener.close()
                    with trio.move_on_after(CLEANUP_S, shield=True):
                        await self._asyncio_loop.call(server.aclose)

    def _server_context(self) -> ssl.SSLContext | None:
        return None if self._tls is None else self._tls.current.server

    async def open_raft_stream(self, to: Address, hello: Hello) -> MessageStream:
        """Dial a peer and exchange hellos, on a connection of its own.

        Raises `PeerUnavailable`, or `ClusterMismatch` with the peer's reason when it rejects.
        Does not retry and has no time limit: both belong to the caller. *Cancellation* closes the
        connection.
        """
        try:
            return await self._asyncio_loop.call(self._dial, to, hello)
        except ClusterMismatch:
            raise
        except _RejectedByTls as rejected:
            self._rejections.log(*to, rejected.rejection)
            raise PeerUnavailable(f"{format_address(to)} {rejected.rejection}") from rejected
        except GRPCError as error:
            if error.status in (Status.FAILED_PRECONDITION, Status.PERMISSION_DENIED):
                raise ClusterMismatch(error.message or "the peer rejected the stream") from error
            raise PeerUnavailable(describe(to, error)) from error
        except Exception as error:
            raise PeerUnavailable(describe(to, error)) from error

    async def _dial(self, to: Address, hello: Hello) -> PeerMessageStream:
        """Connect and exchange hellos; asyncio. Closes the connection unless it returns."""
        context = None if self._tls is None else self._tls.current.client
        with ExitStack() as resources:
            resources.enter_context(self._asyncio_loop.held())
            dialer = Dialer(to, context, plain_too=self._plain_too)
            resources.callback(dialer.close)
            try:
                carrier, peer = await open_stream(dialer, hello)
            except Exception as error:
                rejection = rejection_in(dialer, error)
                if rejection is None:
                    raise
                raise _RejectedByTls(rejection) from error
            certificate = certificate_of(carrier.transport)
            rejection = self._certificates.peer_rejection(certificate, peer, hello.cluster_id)
            if rejection is not None:
                raise _RejectedByTls(rejection)
            if certificate is not None:
                self._certificates.remember(peer)
            elif context is not None:
                self._rejections.let_pass(*to, "has no TLS yet")
            close = resources.pop_all().close
            return PeerMessageStream(self._asyncio_loop, carrier, peer, close)


class _RejectedByTls(Exception):
    """This side or the other one rejected the connection for the sake of TLS."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.text)
        self.rejection = rejection


def _listen(bind: Address) -> socket.socket:
    host, _ = bind
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(bind, family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise AddressInUse(
            f"cannot listen on {format_address(bind)} for RPC ({error.strerror}): "
            "stop what uses it, or choose another --rpc-addr"
        ) from error
