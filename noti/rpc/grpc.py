"""gRPC between nodes and towards operators: the real `RpcNetwork`.

Enters: an RPC handler to serve; addresses to dial. Leaves: message streams.
Never: consensus; grpclib, h2 and OS errors, which become `noti.errors` here.

Two worlds meet in this file. Functions of `_Services` and `_dial` are asyncio and run on the
island; `GrpcNetwork` and `GrpcMessageStream` are Trio and call them through `Island.call`.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol, TypeVar, TypeVarTuple
from weakref import WeakSet

import betterproto2
import grpclib.protocol
import grpclib.server
import structlog
import trio
from grpclib.client import Channel
from grpclib.config import Configuration
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.exceptions import ProtocolError as GrpclibError
from h2.exceptions import H2Error

from noti.errors import (
    AddressInUse,
    ClusterMismatch,
    MessageInvalid,
    NotiError,
    PeerUnavailable,
    Unavailable,
)
from noti.ports import Address, Hello, MessageStream, RpcHandler
from noti.raft.messages import Message
from noti.rpc.aio import Island
from noti.rpc.codec import (
    FRAME_BYTES_MAX,
    decode_hello,
    decode_messages,
    encode_hello,
    encode_messages,
)
from noti.rpc.generated.google.protobuf import Empty
from noti.rpc.generated.grpc.health import v1 as health
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.generated.notification import v1 as notification
from noti.rpc.protobuf import parse

log = structlog.get_logger("noti.rpc")

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
M = TypeVar("M", bound=betterproto2.Message)

RAFT_METHOD: Final = "/noti.v1.Raft/Stream"

REQUEST_BYTES_MAX: Final = 64 * 1024
"""Longest request to the operator services; all of them are nearly empty."""

HELLO_WAIT_S: Final = 5.0
"""A dialer that opened a stream and says nothing is dropped after this; a hello takes one
packet."""

WATCH_INTERVAL_S: Final = 0.5
"""How often a health watch looks for a change; load balancers react within seconds."""

CLEANUP_S: Final = 2.0
"""Closing connections needs no answer from anybody; this only guards against a bug."""

LISTEN_BACKLOG: Final = 128
"""Connections waiting to be accepted; peers are few, the rest are probes."""

HEALTH_SERVICES: Final = frozenset(
    {"", "noti.v1.Raft", "notification.v1.Notification", "grpc.health.v1.Health"}
)

_CONFIG: Final = Configuration(
    # HTTP/2 pings find a dead host, which sends no reset, within 10 s, also on a silent stream.
    # (Raft's own timeouts elect without waiting for this; it frees the connection.)
    _keepalive_time=5.0,
    _keepalive_timeout=5.0,
    _keepalive_permit_without_calls=True,
    _http2_max_pings_without_data=0,
    _http2_min_sent_ping_interval_without_data=4.0,
)

_FOREIGN_ERRORS: Final = (
    GRPCError,
    GrpclibError,
    StreamTerminatedError,
    H2Error,
    OSError,
    # grpclib's word for a stream that ends in the middle of a message.
    AssertionError,
    Unavailable,
)


class GrpcNetwork:
    """Serves and dials on one asyncio island, which must outlive both."""

    def __init__(self, island: Island) -> None:
        self._island = island

    async def serve_rpc(
        self,
        bind: Address,
        handler: RpcHandler,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; started with the real address once connections are accepted.

        Raises `AddressInUse`. *Resource handling*: streams run in a nursery of this call; when it
        is cancelled they are cancelled, all connections are closed, and dialers see that at once.
        """
        listener = _listen(bind)
        address: Address = listener.getsockname()[:2]
        async with trio.open_nursery() as nursery:
            services = _Services(handler, self._island, nursery)
            try:
                server = await self._island.call(_start_server, services, listener)
            except BaseException:
                listener.close()
                raise
            try:
                task_status.started(address)
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(CLEANUP_S, shield=True):
                    await self._island.call(_stop_server, server)

    async def open_raft_stream(self, to: Address, hello: Hello) -> MessageStream:
        """Dial a peer and exchange hellos, on a connection of its own.

        Raises `PeerUnavailable`, or `ClusterMismatch` with the peer's reason when it refuses.
        Does not retry and has no time limit: both belong to the caller. *Cancellation* closes the
        connection.
        """
        try:
            return await self._island.call(_dial, self._island, to, hello)
        except GRPCError as error:
            if error.status is Status.FAILED_PRECONDITION:
                raise ClusterMismatch(error.message or "the peer refused the stream") from error
            raise PeerUnavailable(_describe(to, error)) from error
        except MessageInvalid as error:
            raise PeerUnavailable(_describe(to, error)) from error
        except _FOREIGN_ERRORS as error:
            raise PeerUnavailable(_describe(to, error)) from error


class GrpcMessageStream:
    """A Raft stream, on either side. One task may send while another receives."""

    def __init__(
        self, island: Island, frames: "_Frames", peer: Hello, close: Callable[[], None]
    ) -> None:
        self._island = island
        self._frames = frames
        self._peer = peer
        self._close = close
        self._closed = False
        self._send_lock = trio.Lock()

    @property
    def peer(self) -> Hello:
        """Who is on the other side."""
        return self._peer

    async def send(self, messages: Sequence[Message]) -> None:
        """Write messages; returns when the transport took them (it pushes back when it is full).

        Raises `PeerUnavailable`; `LocalError` for a message that fits no frame. *Cancellation*: a
        frame may be half written; then the stream counts as broken.
        """
        async with self._send_lock:
            for frame in encode_messages(messages):
                await self._call(self._frames.write_guarded, frame)

    async def receive(self) -> Sequence[Message]:
        """Wait for the next batch; raises `PeerUnavailable`, or `MessageInvalid` on garbage.

        *Cancellation* loses nothing: the next call goes on where this one stopped.
        """
        frame = await self._call(self._frames.read_guarded)
        if frame is None:
            raise PeerUnavailable(f"{self._peer.name} closed the stream")
        return decode_messages(frame)

    async def aclose(self) -> None:
        """Close; the other side's `receive` raises `PeerUnavailable`. Never fails."""
        self._closed = True
        self._close()
        await trio.lowlevel.checkpoint()

    async def _call(self, function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        try:
            return await self._island.call(function, *args)
        except _FOREIGN_ERRORS as error:
            raise PeerUnavailable(f"lost {self._peer.name}: {error}") from error


class _Frames:
    """Length-prefixed frames on one HTTP/2 stream, as gRPC defines them; asyncio.

    grpclib reads messages of any length that the sender announces (up to 4 GiB), so frames are read
    here, with a limit. The `_guarded` methods can be called from any asyncio task: it is woken with
    an error when the stream breaks. The others are for the task that grpclib itself guards.
    """

    def __init__(self, stream: grpclib.protocol.Stream, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._stream = stream
        self._bytes_max = bytes_max
        # Length of the frame whose prefix was read, kept so that a cancelled read can be repeated.
        self._expected_bytes: int | None = None
        self._writing = False

    async def read(self) -> bytes | None:
        """Return the next frame, or None at the end; raises `MessageInvalid` for one too long."""
        if self._expected_bytes is None:
            prefix = await self._stream.recv_data(5)
            if not prefix:
                return None
            compressed, length = struct.unpack(">?I", prefix)
            if compressed:
                raise MessageInvalid("a compressed frame, which was not negotiated")
            if length > self._bytes_max:
                raise MessageInvalid(f"a frame of {length} bytes exceeds {self._bytes_max}")
            self._expected_bytes = length
        frame = await self._stream.recv_data(self._expected_bytes)
        self._expected_bytes = None
        return frame

    async def write(self, frame: bytes) -> None:
        """Write one frame; waits while the peer's window or the socket is full."""
        if self._writing:
            raise PeerUnavailable("an earlier frame was cut off by a cancelled send")
        self._writing = True
        await self._stream.send_data(struct.pack(">?I", False, len(frame)) + frame)
        self._writing = False

    async def read_guarded(self) -> bytes | None:
        """As `read`, from any task."""
        assert self._stream.wrapper is not None
        with self._stream.wrapper:
            return await self.read()

    async def write_guarded(self, frame: bytes) -> None:
        """As `write`, from any task."""
        assert self._stream.wrapper is not None
        with self._stream.wrapper:
            await self.write(frame)


class _Call(Protocol):
    """The part of `grpclib.server.Stream` that the services use."""

    _stream: grpclib.protocol.Stream

    async def send_initial_metadata(self) -> None: ...

    async def send_message(self, message: Any) -> None: ...


class _Services:
    """Everything that a node answers on its RPC address; asyncio, one task a call."""

    def __init__(self, handler: RpcHandler, island: Island, nursery: trio.Nursery) -> None:
        self._handler = handler
        self._island = island
        self._nursery = nursery

    def __mapping__(self) -> dict[str, Handler]:
        """Return grpclib's routing table."""
        unary = Cardinality.UNARY_UNARY
        check, answer = health.HealthCheckRequest, health.HealthCheckResponse
        get_servers, servers = notification.GetServersRequest, notification.GetServersResponse
        prefix = "/notification.v1.Notification"
        return {
            RAFT_METHOD: Handler(
                self._raft_stream, Cardinality.STREAM_STREAM, wire.Frame, wire.Frame
            ),
            f"{prefix}/GetServers": Handler(self._get_servers, unary, get_servers, servers),
            f"{prefix}/GetLeaderStatus": Handler(
                self._get_leader_status, unary, Empty, notification.LeaderStatusResponse
            ),
            "/grpc.health.v1.Health/Check": Handler(self._check, unary, check, answer),
            "/grpc.health.v1.Health/Watch": Handler(
                self._watch, Cardinality.UNARY_STREAM, check, answer
            ),
        }

    async def _raft_stream(self, call: _Call) -> None:
        frames = _Frames(call._stream)
        try:
            async with asyncio.timeout(HELLO_WAIT_S):
                frame = await frames.read()
            peer = decode_hello(frame or b"")
            self._handler.welcome(peer)
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "no hello came") from None
        except MessageInvalid as error:
            log.warning("refused a raft stream with a bad hello", error=str(error))
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except ClusterMismatch as error:
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from error
        await call.send_initial_metadata()
        await frames.write(encode_hello(self._handler.hello()))
        finished = asyncio.Event()
        stream = GrpcMessageStream(self._island, frames, peer, finished.set)
        self._nursery.start_soon(self._use_raft_stream, stream)
        # grpclib ends the stream when this returns, and cancels this when the peer is gone; the
        # Trio task notices that by itself.
        await finished.wait()

    async def _use_raft_stream(self, stream: GrpcMessageStream) -> None:
        """Hand the stream to the node; Trio."""
        try:
            await self._handler.raft_stream(stream)
        finally:
            await stream.aclose()

    async def _get_servers(self, call: _Call) -> None:
        await _request(call, notification.GetServersRequest)
        servers = [
            notification.Server(id=server.id, rpc_addr=server.rpc_addr, is_leader=server.is_leader)
            for server in self._handler.servers()
        ]
        await call.send_message(notification.GetServersResponse(servers=servers))

    async def _get_leader_status(self, call: _Call) -> None:
        await _request(call, Empty)
        is_leader = self._handler.is_leader()
        await call.send_message(notification.LeaderStatusResponse(is_leader=is_leader))

    async def _check(self, call: _Call) -> None:
        service = (await _request(call, health.HealthCheckRequest)).service
        if service not in HEALTH_SERVICES:
            raise GRPCError(Status.NOT_FOUND, f"no service {service[:100]!r} here")
        await call.send_message(health.HealthCheckResponse(status=self._serving_status(service)))

    async def _watch(self, call: _Call) -> None:
        service = (await _request(call, health.HealthCheckRequest)).service
        told = None
        while True:
            status = self._serving_status(service)
            if status != told:
                await call.send_message(health.HealthCheckResponse(status=status))
                told = status
            await asyncio.sleep(WATCH_INTERVAL_S)

    def _serving_status(self, service: str) -> health.HealthCheckResponseServingStatus:
        status = health.HealthCheckResponseServingStatus
        if service not in HEALTH_SERVICES:
            return status.SERVICE_UNKNOWN
        return status.SERVING if self._handler.serving() else status.NOT_SERVING


class _Server(grpclib.server.Server):
    """A grpclib server that can also close connections; the original only stops its handlers."""

    def __init__(self, services: _Services) -> None:
        super().__init__([services], config=_CONFIG)
        self._protocols: WeakSet[grpclib.protocol.H2Protocol] = WeakSet()

    def _protocol_factory(self) -> grpclib.protocol.H2Protocol:
        protocol = super()._protocol_factory()
        self._protocols.add(protocol)
        return protocol

    def close(self) -> None:
        """Stop listening, cancel handlers, close connections."""
        super().close()
        for protocol in list(self._protocols):
            if hasattr(protocol, "processor"):  # set once the connection was made
                protocol.processor.close()


async def _start_server(services: _Services, listener: socket.socket) -> _Server:
    server = _Server(services)
    await server.start(sock=listener)
    return server


async def _stop_server(server: _Server) -> None:
    server.close()
    await server.wait_closed()


async def _dial(island: Island, to: Address, hello: Hello) -> GrpcMessageStream:
    """Connect and exchange hellos; asyncio. Closes the connection unless it returns."""
    channel = Channel(*to, config=_CONFIG)
    async with AsyncExitStack() as on_failure:
        on_failure.callback(channel.close)
        call = channel.request(RAFT_METHOD, Cardinality.STREAM_STREAM, wire.Frame, wire.Frame)
        # Its exit looks for the peer's reason when the stream is torn down under our feet.
        await on_failure.enter_async_context(call)
        await call.send_request()
        frames = _Frames(call._stream)
        await frames.write_guarded(encode_hello(hello))
        await call.recv_initial_metadata()
        frame = await frames.read_guarded()
        peer = decode_hello(frame or b"")
        on_failure.pop_all()
    return GrpcMessageStream(island, frames, peer, channel.close)


async def _request(call: _Call, request_class: type[M]) -> M:
    """Return the request of a unary call."""
    try:
        frame = await _Frames(call._stream, REQUEST_BYTES_MAX).read()
        if frame is None:
            raise MessageInvalid("the request has no message")
        return parse(request_class, frame)
    except MessageInvalid as error:
        raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error


def _listen(bind: Address) -> socket.socket:
    host, port = bind
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server(bind, family=family, backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise AddressInUse(
            f"cannot listen on {host}:{port} for RPC ({error.strerror}): "
            "stop what uses it, or choose another --rpc-addr"
        ) from error


def _describe(to: Address, error: Exception) -> str:
    host, port = to
    if isinstance(error, GRPCError):
        return f"{host}:{port} refused: {error.message or error.status.name}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot reach {host}:{port}: {error.strerror}"
    reason = str(error) if isinstance(error, NotiError) else f"{type(error).__name__}: {error}"
    return f"cannot reach {host}:{port}: {reason}"
