"""The Raft stream between two nodes, from both sides.

Two worlds meet here: `GrpcMessageStream` is Trio, `RaftService` and `exchange_hellos` are asyncio
and run on the asyncio loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from noti.asyncio_loop import AsyncioLoop
from noti.certificates.rejection_log import RejectionLog
from noti.errors import ClusterMismatch, MessageInvalid, PeerUnavailable
from noti.optional import contained
from noti.raft.core.messages import PeerMessage
from noti.raft.ports import Hello
from noti.rpc.accepting import RAFT_METHOD
from noti.rpc.codec import (
    FRAME_BYTES_MAX,
    decode_hello,
    decode_messages,
    encode_hello,
    encode_messages,
)
from noti.rpc.connections import PeerStream, stream_of
from noti.rpc.dialing import PeerChannel
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.peer_certificates import PeerCertificates
from noti.rpc.ports import PeerHandler
from noti.rpc.rejected_calls import RejectedCalls
from noti.rpc.services import Call
from noti.rpc.tls import certificate_of

HELLO_WAIT_S: Final = 5.0
"""A dialer that opened a stream and says nothing is dropped after this; a hello takes one
packet."""


class GrpcMessageStream:
    """A Raft stream, on either side. One task may send while another receives."""

    def __init__(
        self, asyncio_loop: AsyncioLoop, stream: PeerStream, peer: Hello, close: Callable[[], None]
    ) -> None:
        """The peer was held to its certificate, if it has shown one."""
        self._asyncio_loop = asyncio_loop
        self._stream = stream
        self._peer = peer
        self._proven = certificate_of(stream.connection.transport) is not None
        self._close = close
        self._closed = False
        self._send_lock = trio.Lock()

    @property
    def peer(self) -> Hello:
        """Who is on the other side."""
        return self._peer

    @property
    def proven(self) -> bool:
        """Whether a certificate proved that it is."""
        return self._proven

    async def send(self, messages: Sequence[PeerMessage]) -> None:
        """Write messages; returns when the transport took them (it pushes back when it is full).

        Raises `PeerUnavailable`; `LocalError` for a message that fits no frame. *Cancellation*: a
        frame may be half written; then the stream counts as broken.
        """
        for frame in encode_messages(messages):
            if self._send_lock.locked() or not self._send_at_once(frame):
                async with self._send_lock:
                    await self._write(frame)

    def send_at_once(self, messages: Sequence[PeerMessage]) -> bool:
        """As `send`, without a checkpoint; returns False, with nothing sent, if it had to wait."""
        return not self._send_lock.locked() and self._send_at_once(*encode_messages(messages))

    async def receive(self, take: Callable[[Sequence[PeerMessage]], bool]) -> None:
        """See `MessageStream`. `take` is called in the turn that read the socket."""
        await trio.lowlevel.checkpoint_if_cancelled()

        def take_frames(frames: Sequence[bytes]) -> bool:
            return take([message for frame in frames for message in decode_messages(frame)])

        try:
            goes_on = await self._stream.inbox.receive(take_frames, trio.Event)
        except StreamTerminatedError as error:
            raise self._lost(error) from error
        if not goes_on:
            raise PeerUnavailable(f"{self._peer.name} closed the stream")

    async def aclose(self) -> None:
        """Close; the other side's `receive` raises `PeerUnavailable`. Never fails."""
        self._closed = True
        self._stream.inbox.fail(PeerUnavailable("the stream is closed"))
        with contained("rpc stream"):
            self._close()
        await trio.lowlevel.checkpoint()

    def _send_at_once(self, *frames: bytes) -> bool:
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        try:
            return self._stream.write_at_once(*frames)
        except Exception as error:
            raise self._lost(error) from error

    async def _write(self, frame: bytes) -> None:
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        try:
            await self._asyncio_loop.call(self._stream.write, frame)
        except Exception as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> PeerUnavailable:
        """Return what to raise for whatever grpclib or h2 raised."""
        return PeerUnavailable(f"lost {self._peer.name}: {str(error) or type(error).__name__}")


class RaftService:
    """The Raft stream, from the side that is dialed; asyncio, one task a stream."""

    def __init__(
        self,
        handler: PeerHandler,
        asyncio_loop: AsyncioLoop,
        on_stream: Callable[[GrpcMessageStream], None],
        certificates: PeerCertificates,
        rejections: RejectionLog,
        rejected: RejectedCalls,
    ) -> None:
        """`on_stream` takes each stream once its hellos are exchanged; it may not wait."""
        self._handler = handler
        self._asyncio_loop = asyncio_loop
        self._on_stream = on_stream
        self._certificates = certificates
        self._rejections = rejections
        self._rejected = rejected

    def __mapping__(self) -> dict[str, Handler]:
        """Return grpclib's routing table."""
        method = Handler(self._raft_stream, Cardinality.STREAM_STREAM, wire.Frame, wire.Frame)
        return {RAFT_METHOD: method}

    async def _raft_stream(self, call: Call) -> None:
        stream = stream_of(call, FRAME_BYTES_MAX)
        transport = stream.connection.transport
        try:
            async with asyncio.timeout(HELLO_WAIT_S):
                frame = await stream.inbox.read()
            peer = decode_hello(frame or b"")
            proven = self._check_identity(transport, peer)
            self._handler.admit(peer, proven=proven)
            if proven:
                self._certificates.remember(peer)
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "no hello came") from None
        except MessageInvalid as error:
            self._rejected.report(transport, "hello", str(error))
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except ClusterMismatch as error:
            self._rejected.report(transport, "cluster", str(error))
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from error
        await call.send_initial_metadata()
        await stream.write(encode_hello(self._handler.hello()))
        finished = asyncio.Event()
        self._on_stream(GrpcMessageStream(self._asyncio_loop, stream, peer, finished.set))
        # grpclib ends the stream when this returns, and cancels this when the peer is gone; the
        # Trio task notices that by itself.
        await finished.wait()

    def _check_identity(self, transport: asyncio.Transport, peer: Hello) -> bool:
        """Return whether a caller has proven who it is; without TLS nobody can.

        Raises `ClusterMismatch` when it is somebody else.
        """
        certificate = certificate_of(transport)
        cluster = self._handler.hello().cluster_id
        rejection = self._certificates.peer_rejection(certificate, peer, cluster)
        if rejection is not None:
            host, port = transport.get_extra_info("peername")[:2]
            self._rejections.log(host, port, rejection)
            raise ClusterMismatch(f"this caller {rejection}")
        return certificate is not None


async def use_stream(handler: PeerHandler, stream: GrpcMessageStream) -> None:
    """Hand a stream to the node, and close it; Trio. Its trouble is no other stream's."""
    with contained("rpc stream"):
        try:
            await handler.raft_stream(stream)
        finally:
            await stream.aclose()


async def exchange_hellos(channel: PeerChannel, hello: Hello) -> tuple[PeerStream, Hello]:
    """Open a Raft stream on a channel of its own; return it, and who is on the other side."""
    async with AsyncExitStack() as handshake:
        # Its exit looks for the peer's reason when the stream is torn down under our feet.
        call = await handshake.enter_async_context(
            channel.request(RAFT_METHOD, Cardinality.STREAM_STREAM, wire.Frame, wire.Frame)
        )
        await call.send_request()
        stream = stream_of(call, FRAME_BYTES_MAX)
        await stream.write(encode_hello(hello))
        await call.recv_initial_metadata()
        frame = await stream.inbox.read()
        peer = decode_hello(frame or b"")
        handshake.pop_all()
    return stream, peer
