"""The Raft stream between two nodes, from both sides: on a connection of its own, or on gRPC.

The latter is for older nodes, which know nothing else. Two worlds meet here: `PeerMessageStream` is
Trio, `RaftService` and `open_stream` are asyncio and run on the asyncio loop.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final, Protocol

import trio
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from noti.asyncio_loop import AsyncioLoop
from noti.certificates.context import HTTP_2, RAFT_FRAMES
from noti.errors import ClusterMismatch, MessageInvalid, PeerUnavailable
from noti.optional import contained
from noti.raft.core.messages import PeerMessage
from noti.raft.ports import Hello
from noti.rpc.admission import RAFT_METHOD, CallerAdmission
from noti.rpc.codec import (
    FRAME_BYTES_MAX,
    decode_answer,
    decode_hello,
    decode_messages,
    encode_hello,
    encode_messages,
    encode_rejection,
)
from noti.rpc.connections import PeerProtocol, PeerStream, stream_of
from noti.rpc.dialing import Dialer, PeerChannel, peer_protocol
from noti.rpc.frame_connections import FrameConnection, FramesLost
from noti.rpc.generated.noti import v1 as wire
from noti.rpc.inbox import Inbox
from noti.rpc.ports import PeerHandler
from noti.rpc.services import Call
from noti.rpc.tls import certificate_of

PLAIN_FIRST: Final = RAFT_FRAMES
"""What a node without TLS is asked for first."""


class Carrier(Protocol):
    """What carries the frames of one stream: a call of gRPC, or a connection of its own."""

    inbox: Inbox

    @property
    def transport(self) -> asyncio.Transport:
        """What carries the connection."""

    def write_at_once(self, *frames: bytes) -> bool:
        """Write frames, from anywhere in this thread; returns False if it had to wait."""

    async def write(self, *frames: bytes) -> None:
        """Write frames, as soon as they are taken; asyncio."""


class PeerMessageStream:
    """A Raft stream, on either side. One task may send while another receives."""

    def __init__(
        self, asyncio_loop: AsyncioLoop, carrier: Carrier, peer: Hello, close: Callable[[], None]
    ) -> None:
        """The peer was held to its certificate, if it has shown one."""
        self._asyncio_loop = asyncio_loop
        self._carrier = carrier
        self._peer = peer
        self._proven = certificate_of(carrier.transport) is not None
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
            goes_on = await self._carrier.inbox.receive(take_frames, trio.Event)
        except (StreamTerminatedError, FramesLost) as error:
            raise self._lost(error) from error
        if not goes_on:
            raise PeerUnavailable(f"{self._peer.name} closed the stream")

    async def aclose(self) -> None:
        """Close; the other side's `receive` raises `PeerUnavailable`. Never fails."""
        self._closed = True
        self._carrier.inbox.fail(PeerUnavailable("the stream is closed"))
        with contained("rpc stream"):
            self._close()
        await trio.lowlevel.checkpoint()

    def _send_at_once(self, *frames: bytes) -> bool:
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        try:
            return self._carrier.write_at_once(*frames)
        except Exception as error:
            raise self._lost(error) from error

    async def _write(self, frame: bytes) -> None:
        if self._closed:
            raise PeerUnavailable("the stream is closed")
        try:
            await self._asyncio_loop.call(self._carrier.write, frame)
        except Exception as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> PeerUnavailable:
        """Return what to raise for whatever grpclib, h2 or the connection raised."""
        return PeerUnavailable(f"lost {self._peer.name}: {str(error) or type(error).__name__}")


class RaftService:
    """The Raft stream, from the side that is dialed; asyncio, one task a stream."""

    def __init__(
        self,
        admission: CallerAdmission,
        asyncio_loop: AsyncioLoop,
        on_stream: Callable[[PeerMessageStream], None],
    ) -> None:
        """`on_stream` takes each stream once its hellos are exchanged; it may not wait."""
        self._admission = admission
        self._asyncio_loop = asyncio_loop
        self._on_stream = on_stream

    def __mapping__(self) -> dict[str, Handler]:
        """Return grpclib's routing table."""
        method = Handler(self._raft_stream, Cardinality.STREAM_STREAM, wire.Frame, wire.Frame)
        return {RAFT_METHOD: method}

    async def greet(self, connection: FrameConnection) -> None:
        """Let a node in that came without gRPC, or close its connection.

        Never fails for the caller's sake. *Cancellation* closes the connection.
        """
        try:
            peer = await self._admission.introduced(connection, connection.inbox)
        except ClusterMismatch as error:
            with suppress(FramesLost):  # who hung up is not told
                connection.write_at_once(encode_rejection(str(error)))
            connection.close()
        except (MessageInvalid, TimeoutError, FramesLost):
            connection.abort()
        except BaseException:
            connection.abort()
            raise
        else:
            with suppress(FramesLost):  # it is gone already
                connection.write_at_once(encode_hello(self._admission.hello()))
                connection.inbox.bytes_max = FRAME_BYTES_MAX
                self._hand_on(connection, peer, connection.close)

    async def _raft_stream(self, call: Call) -> None:
        stream = stream_of(call, FRAME_BYTES_MAX)
        try:
            protocol = stream.connection.protocol
            peer = await self._admission.introduced(protocol, stream.inbox)
            protocol.on_node()
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "no hello came") from None
        except MessageInvalid as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        except ClusterMismatch as error:
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from error
        await call.send_initial_metadata()
        await stream.write(encode_hello(self._admission.hello()))
        finished = asyncio.Event()
        self._hand_on(stream, peer, finished.set)
        # grpclib ends the stream when this returns, and cancels this when the peer is gone; the
        # Trio task notices that by itself.
        await finished.wait()

    def _hand_on(self, carrier: Carrier, peer: Hello, close: Callable[[], None]) -> None:
        self._on_stream(PeerMessageStream(self._asyncio_loop, carrier, peer, close))


async def use_stream(handler: PeerHandler, stream: PeerMessageStream) -> None:
    """Hand a stream to the node, and close it; Trio. Its trouble is no other stream's."""
    with contained("rpc stream"):
        try:
            await handler.raft_stream(stream)
        finally:
            await stream.aclose()


async def open_stream(dialer: Dialer, hello: Hello) -> tuple[Carrier, Hello]:
    """Open a Raft stream on a connection of its own; return it, and who is on the other side.

    An older node gets a stream of gRPC: with TLS on the same connection. Without, it hangs up on
    whatever is no HTTP/2, or says something else, and is dialed again.
    """
    applications: dict[str, FrameConnection | PeerProtocol] = {
        RAFT_FRAMES: FrameConnection(),
        HTTP_2: peer_protocol(),
    }
    dialed = await dialer.connect(applications, PLAIN_FIRST)
    if isinstance(dialed, FrameConnection):
        try:
            return dialed, await _exchange_hellos(dialed, hello)
        except (FramesLost, MessageInvalid):
            if dialed.is_understood or dialer.is_secured:
                raise
        dialed.abort()
        return await _exchange_hellos_in_call(PeerChannel(dialer), hello)
    return await _exchange_hellos_in_call(PeerChannel(dialer, dialed), hello)


async def _exchange_hellos(connection: FrameConnection, hello: Hello) -> Hello:
    connection.write_at_once(encode_hello(hello))
    frame = await connection.inbox.read()
    connection.inbox.bytes_max = FRAME_BYTES_MAX
    return decode_answer(frame or b"")


async def _exchange_hellos_in_call(channel: PeerChannel, hello: Hello) -> tuple[PeerStream, Hello]:
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
