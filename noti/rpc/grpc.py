"""gRPC between nodes and towards operators: the real `RpcNetwork`.

Enters: an RPC handler to serve; addresses to dial. Leaves: message streams.
Never: consensus; grpclib, h2 and OS errors, which become `noti.errors` here.

Two worlds meet in this file. `_RaftService` and `_dial` are asyncio and run on the
island; `GrpcNetwork` and `GrpcMessageStream` are Trio and call them through `Island.call`.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Final, TypeVar, TypeVarTuple

import trio
from grpclib._typing import IServable
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError

from noti import listening
from noti.address import Address, format_address
from noti.asyncio_loop import Island
from noti.certificates.context import MutualContexts
from noti.certificates.rejection_log import RefusalLog
from noti.certificates.rejections import Refusal
from noti.certificates.renewal import Current
from noti.errors import (
    AddressInUse,
    ClusterMismatch,
    MessageInvalid,
    PeerUnavailable,
)
from noti.optional import contained
from noti.publishing.ports import Publishing
from noti.raft.core.messages import PeerMessage
from noti.raft.ports import Hello, MessageStream
from noti.rpc.accepting import RAFT_METHOD, Door, RpcLimits, Server
from noti.rpc.codec import (
    decode_hello,
    decode_messages,
    encode_hello,
    encode_messages,
)
from noti.rpc.dialing import CONFIG, SERVER_CONFIG, describe, refusal_in
from noti.rpc.frames import Frames
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.peer_certificates import Guard
from noti.rpc.ports import RpcHandler
from noti.rpc.publisher import PublisherService
from noti.rpc.rejected_calls import Complaints
from noti.rpc.services import Call, OperatorServices
from noti.rpc.tls import PeerChannel, certificate_of

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

HELLO_WAIT_S: Final = 5.0
"""A dialer that opened a stream and says nothing is dropped after this; a hello takes one
packet."""

CLEANUP_S: Final = 2.0
"""Closing connections needs no answer from anybody; this only guards against a bug."""

LISTEN_BACKLOG: Final = 128
"""Connections waiting to be accepted; peers are few, the rest are probes."""


_LIMITS: Final = RpcLimits()


class GrpcNetwork:
    """Serves and dials on one asyncio island, which must outlive both."""

    def __init__(
        self,
        island: Island,
        tls: Current[MutualContexts] | None = None,
        limits: RpcLimits = _LIMITS,
    ) -> None:
        """With `tls`, every connection is mutual TLS and every peer is held to its certificate."""
        self._island = island
        self._limits = limits
        self._tls = tls
        self._guard = Guard()
        self._refusals = RefusalLog("rpc")
        self._complaints = Complaints()

    async def serve_rpc(
        self,
        bind: Address,
        handler: RpcHandler,
        publishing: Publishing,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; started with the real address once connections are accepted.

        Raises `AddressInUse`. *Resource handling*: streams run in a nursery of this call; when it
        is cancelled they are cancelled, all connections are closed, and dialers see that at once.
        """
        listener = _listen(bind)
        address: Address = listener.getsockname()[:2]
        with self._island.held():
            async with trio.open_nursery() as nursery:
                raft = _RaftService(
                    handler, self._island, nursery, self._guard, self._refusals, self._complaints
                )
                publisher = PublisherService(publishing, self._complaints)
                services = (raft, OperatorServices(handler), publisher)
                try:
                    server = await self._island.call(self._make_server, services)
                except BaseException:
                    listener.close()
                    raise
                try:
                    door = Door(self._island, server, self._server_context, self._refusals)
                    task_status.started(address)
                    await listening.serve(
                        listener,
                        door.enter,
                        nursery,
                        listener="rpc_arriving",
                        connections_max=self._limits.unready_max,
                    )
                finally:
                    listener.close()
                    with trio.move_on_after(CLEANUP_S, shield=True):
                        await self._island.call(_stop_server, server)

    async def _make_server(self, services: Sequence[IServable]) -> Server:
        return Server(
            services, SERVER_CONFIG, self._guard, self._refusals, self._complaints, self._limits
        )

    def _server_context(self) -> ssl.SSLContext | None:
        return None if self._tls is None else self._tls.current.server

    async def open_raft_stream(self, to: Address, hello: Hello) -> MessageStream:
        """Dial a peer and exchange hellos, on a connection of its own.

        Raises `PeerUnavailable`, or `ClusterMismatch` with the peer's reason when it refuses.
        Does not retry and has no time limit: both belong to the caller. *Cancellation* closes the
        connection.
        """
        context = None if self._tls is None else self._tls.current.client
        try:
            return await self._island.call(_dial, self._island, to, hello, context, self._guard)
        except _Refused as refused:
            self._refusals.tell(*to, refused.refusal)
            raise PeerUnavailable(f"{format_address(to)} {refused.refusal}") from refused
        except GRPCError as error:
            if error.status in (Status.FAILED_PRECONDITION, Status.PERMISSION_DENIED):
                raise ClusterMismatch(error.message or "the peer refused the stream") from error
            raise PeerUnavailable(describe(to, error)) from error
        except Exception as error:
            raise PeerUnavailable(describe(to, error)) from error


class _Refused(Exception):
    """This side or the other one refused the connection for the sake of TLS."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.text)
        self.refusal = refusal


class GrpcMessageStream:
    """A Raft stream, on either side. One task may send while another hears."""

    def __init__(
        self, island: Island, frames: "Frames", peer: Hello, close: Callable[[], None]
    ) -> None:
        self._island = island
        self._frames = frames
        self._peer = peer
        self._close = close
        self._closed = False
        self._inbox = frames.inbox(trio.Event)
        self._send_lock = trio.Lock()

    @property
    def peer(self) -> Hello:
        """Who is on the other side."""
        return self._peer

    async def send(self, messages: Sequence[PeerMessage]) -> None:
        """Write messages; returns when the transport took them (it pushes back when it is full).

        Raises `PeerUnavailable`; `LocalError` for a message that fits no frame. *Cancellation*: a
        frame may be half written; then the stream counts as broken.
        """
        for frame in encode_messages(messages):
            if self._send_lock.locked() or not self._send_at_once(frame):
                async with self._send_lock:
                    await self._call(self._frames.write_guarded, frame)

    def send_at_once(self, messages: Sequence[PeerMessage]) -> bool:
        """As `send`, without a checkpoint; returns False, with nothing sent, if it had to wait."""
        return not self._send_lock.locked() and self._send_at_once(*encode_messages(messages))

    async def hear(self, take: Callable[[Sequence[PeerMessage]], bool]) -> None:
        """See `MessageStream`. `take` is called in the turn that read the socket."""
        await trio.lowlevel.checkpoint_if_cancelled()

        def take_frames(frames: Sequence[bytes]) -> bool:
            return take([message for frame in frames for message in decode_messages(frame)])

        if not await self._inbox.hear(take_frames):
            raise PeerUnavailable(f"{self._peer.name} closed the stream")

    async def aclose(self) -> None:
        """Close; the other side's `receive` raises `PeerUnavailable`. Never fails."""
        self._closed = True
        self._inbox.close("the stream is closed")
        with contained("rpc stream"):
            self._close()
        await trio.lowlevel.checkpoint()

    def _send_at_once(self, *frames: bytes) -> bool:
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        try:
            return self._frames.write_at_once(*frames)
        except Exception as error:
            raise self._lost(error) from error

    async def _call(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        try:
            return await self._island.call(function, *args)
        except Exception as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> PeerUnavailable:
        """Return what to raise for whatever grpclib or h2 raised."""
        return PeerUnavailable(f"lost {self._peer.name}: {str(error) or type(error).__name__}")


class _RaftService:
    """The Raft stream, from the side that is dialed; asyncio, one task a stream."""

    def __init__(
        self,
        handler: RpcHandler,
        island: Island,
        nursery: trio.Nursery,
        guard: Guard,
        refusals: RefusalLog,
        complaints: Complaints,
    ) -> None:
        self._handler = handler
        self._island = island
        self._nursery = nursery
        self._guard = guard
        self._refusals = refusals
        self._complaints = complaints

    def __mapping__(self) -> dict[str, Handler]:
        """Return grpclib's routing table."""
        method = Handler(self._raft_stream, Cardinality.STREAM_STREAM, wire.Frame, wire.Frame)
        return {RAFT_METHOD: method}

    async def _raft_stream(self, call: Call) -> None:
        frames = Frames(call._stream)
        try:
            async with asyncio.timeout(HELLO_WAIT_S):
                frame = await frames.read()
            peer = decode_hello(frame or b"")
            proven = self._check_identity(call, peer)
            self._handler.welcome(peer)
            if proven:
                self._guard.remember(peer)
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "no hello came") from None
        except MessageInvalid as error:
            self._complaints.tell(frames.transport, "hello", str(error))
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except ClusterMismatch as error:
            self._complaints.tell(frames.transport, "cluster", str(error))
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from error
        await call.send_initial_metadata()
        await frames.write(encode_hello(self._handler.hello()))
        finished = asyncio.Event()
        stream = GrpcMessageStream(self._island, frames, peer, finished.set)
        self._nursery.start_soon(self._use_raft_stream, stream)
        # grpclib ends the stream when this returns, and cancels this when the peer is gone; the
        # Trio task notices that by itself.
        await finished.wait()

    def _check_identity(self, call: Call, peer: Hello) -> bool:
        """Return whether a caller has proven who he is; without TLS nobody can.

        Raises `ClusterMismatch` when he is somebody else.
        """
        transport = call._stream._transport
        certificate = certificate_of(transport)
        if certificate is None:
            return False
        cluster = self._handler.hello().cluster_id
        refusal = self._guard.objection_to_peer(certificate, peer, cluster)
        if refusal is not None:
            host, port = transport.get_extra_info("peername")[:2]
            self._refusals.tell(host, port, refusal)
            raise ClusterMismatch(f"this caller {refusal}")
        return True

    async def _use_raft_stream(self, stream: GrpcMessageStream) -> None:
        """Hand the stream to the node; Trio. Its trouble is no other stream's."""
        with contained("rpc stream"):
            try:
                await self._handler.raft_stream(stream)
            finally:
                await stream.aclose()


async def _stop_server(server: Server) -> None:
    server.close()
    await server.wait_closed()


async def _dial(
    island: Island, to: Address, hello: Hello, context: ssl.SSLContext | None, guard: Guard
) -> GrpcMessageStream:
    """Connect and exchange hellos; asyncio. Closes the connection unless it returns."""
    with ExitStack() as resources:
        resources.enter_context(island.held())
        channel = PeerChannel(to, CONFIG, context)
        resources.callback(channel.close)
        try:
            frames, peer = await _exchange_hellos(channel, hello)
        except Exception as error:
            refusal = refusal_in(channel, error)
            if refusal is None:
                raise
            raise _Refused(refusal) from error
        certificate = certificate_of(frames.transport)
        if certificate is not None:
            refusal = guard.objection_to_peer(certificate, peer, hello.cluster_id)
            if refusal is not None:
                raise _Refused(refusal)
            guard.remember(peer)
        return GrpcMessageStream(island, frames, peer, resources.pop_all().close)


async def _exchange_hellos(channel: PeerChannel, hello: Hello) -> tuple[Frames, Hello]:
    async with AsyncExitStack() as handshake:
        # Its exit looks for the peer's reason when the stream is torn down under our feet.
        call = await handshake.enter_async_context(
            channel.request(RAFT_METHOD, Cardinality.STREAM_STREAM, wire.Frame, wire.Frame)
        )
        await call.send_request()
        frames = Frames(call._stream)
        await frames.write_guarded(encode_hello(hello))
        await call.recv_initial_metadata()
        frame = await frames.read_guarded()
        peer = decode_hello(frame or b"")
        handshake.pop_all()
    return frames, peer


def _listen(bind: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in bind[0] else socket.AF_INET
    try:
        return socket.create_server(bind, family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise AddressInUse(
            f"cannot listen on {format_address(bind)} for RPC ({error.strerror}): "
            "stop what uses it, or choose another --rpc-addr"
        ) from error
