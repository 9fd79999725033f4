"""Serves calls on connections that were accepted elsewhere, within limits; asyncio.

When clients have all connections that they may have, a probe is served all the same. Those of other
nodes count elsewhere (`seats`).
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import grpclib.const
import grpclib.server
from grpclib.const import Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from h2.exceptions import ProtocolError

from noti.certificates.context import HTTP_2, RAFT_FRAMES
from noti.client_key import client_key
from noti.connection_slots import Slot, Slots, SlotsFull
from noti.descriptors import PROBES_MAX, Episode, rpc_unready_max
from noti.rpc.admission import RAFT_METHOD, CallerAdmission
from noti.rpc.connections import Caller, KeepAlive, PeerProtocol
from noti.rpc.frame_connections import FrameConnection
from noti.rpc.rejected_calls import RejectedCalls
from noti.rpc.tls import accept

ALWAYS: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/notification.v1.Notification/GetServers",
        "/notification.v1.Notification/GetLeaderStatus",
        RAFT_METHOD,
    }
)
"""Answered also when all connections are busy. An older node's stream has a seat as soon as it is
known whose it is."""

CROWDED: Final = (
    "this node has as many busy connections as it may have (--rpc-connections-max, and"
    " --rpc-connections-per-address-max): use another node, or come back later"
)

KEEPALIVE: Final = KeepAlive(patience_s=20.0)
"""Who is called has more patience: nobody waits for it to notice, and a publisher that is busy, or
on a slow line, answers late (20 s is gRPC's default)."""


class Servable(Protocol):
    """Methods that can be called; see grpclib."""

    def __mapping__(self) -> Mapping[str, grpclib.const.Handler]:
        """Return a handler for each path."""


@dataclass(frozen=True, slots=True)
class RpcLimits:
    """How many connections there may be at the RPC port."""

    connections_max: int = 1024
    """Of publishers and operators; each has 100 calls at a time at most (h2's limit)."""
    per_address_max: int = 0
    """Of those from one IPv4 address or IPv6 /64; 0 for any number."""

    @property
    def unready_max(self) -> int:
        """Connections that have not said what they are, or shake hands; the oldest makes room."""
        return rpc_unready_max(self.connections_max)


class _Calls(grpclib.server.Handler):
    """The calls of one connection."""

    def __init__(self, mapping: Mapping[str, grpclib.const.Handler], events: Any) -> None:
        super().__init__(dict(mapping), ProtoCodec(), None, events)
        self.on_begin: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None

    def accept(self, stream: Any, headers: Any, release_stream: Callable[[], Any]) -> None:
        def release() -> None:
            release_stream()
            self.on_end()

        self.on_begin()
        super().accept(stream, headers, release)


class _ServerProtocol(PeerProtocol):
    """The server's end of a connection, which waits for its client while no call is open."""

    handler: _Calls

    def __init__(self, server: "GrpcServer", handler: _Calls) -> None:
        super().__init__(handler, client_side=False, keepalive=KEEPALIVE)
        self._server = server
        self._calls = 0
        self._slot: Slot | None = None
        handler.on_begin, handler.on_end = self._begin_call, self._end_call

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._slot = self._server.take_slot(self)
        self._slot.mark_idle()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._slot is not None:
            self._slot.release()

    def may_call(self, method: str) -> bool:
        """Whether this may be called here; all may, as long as there is room for all."""
        return self._slot is None or self._slot.full is None or method in ALWAYS

    def on_node(self) -> None:
        """Take no client's place: a node makes room for nobody, and has a seat."""
        if self._slot is not None:
            self._slot.release()

    def _begin_call(self) -> None:
        self._calls += 1
        if self._slot is not None:
            self._slot.mark_busy()

    def _end_call(self) -> None:
        self._calls -= 1
        if not self._calls and self._slot is not None:
            self._slot.mark_idle()

    def on_violation(self, error: ProtocolError) -> None:
        self._server.rejected.report(
            self.connection.transport, "http2", f"{type(error).__name__}: {error}"
        )


Greet: TypeAlias = Callable[[FrameConnection], Awaitable[None]]
"""Lets a node in that came without gRPC, or closes its connection."""


class GrpcServer:
    """Serves grpclib's services on connections that it is handed, and closes them; asyncio.

    Those of nodes that speak without gRPC it hands on.
    """

    def __init__(
        self,
        services: Sequence[Servable],
        greet: Greet,
        admission: CallerAdmission,
        rejected: RejectedCalls,
        limits: RpcLimits,
    ) -> None:
        self.rejected = rejected
        self._greet = greet
        self._admission = admission
        self._mapping = {
            path: handler for service in services for path, handler in service.__mapping__().items()
        }
        self._events = grpclib.server.Server(())  # for its events only: it never listens
        listen(self._events, RecvRequest, self._check_caller)
        self._slots = Slots("rpc", limits.connections_max, limits.per_address_max, PROBES_MAX)
        self._episodes = {
            SlotsFull.NODE: Episode("rpc", "node", "all are busy, raise --rpc-connections-max"),
            SlotsFull.ADDRESS: Episode(
                "rpc",
                "address",
                "one address has all that it may have (--rpc-connections-per-address-max)",
            ),
        }
        self._open: set[_ServerProtocol] = set()

    def change(self, limits: RpcLimits) -> None:
        """Hold to other limits from now on."""
        self._slots.change(limits.connections_max, limits.per_address_max)

    async def take(self, descriptor: int, context: ssl.SSLContext | None, spoken: str) -> None:
        """Serve a connection, after its handshake if there is a context.

        `spoken` is what a connection without TLS begins with: `HTTP_2` or `RAFT_FRAMES`. Of one
        with the latter, this returns when its node was let in, or not.
        Keeps a copy of the descriptor; the caller closes its own. Raises what `ssl` raises, or
        `ConnectionError`, when the handshake fails.
        """
        accepted = socket.socket(fileno=os.dup(descriptor))
        accepted.setblocking(False)
        frames = FrameConnection()
        calls = _ServerProtocol(self, _Calls(self._mapping, self._events.__dispatch__))
        applications = {RAFT_FRAMES: frames, HTTP_2: calls}
        if context is not None:
            spoken = await accept(accepted, applications, context)
        else:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: applications[spoken], accepted
            )
        if spoken == RAFT_FRAMES:
            await self._greet(frames)

    def take_slot(self, protocol: _ServerProtocol) -> Slot:
        """Give a connection a slot. When all are busy, it gets one for probes."""
        self._open = {
            one for one in self._open if not (one.handler.closing and one.handler.check_closed())
        }
        self._open.add(protocol)

        def close() -> None:
            protocol.processor.close("another connection needs the slot of this idle one")

        now = time.monotonic()
        for episode in self._episodes.values():
            episode.settle(now)
        host, _ = (protocol.transport.get_extra_info("peername") or ("", 0))[:2]
        slot = self._slots.take(client_key(host, "", ()), close)
        if isinstance(slot, SlotsFull):
            self._episodes[slot].reject(now)
            slot = self._slots.take_for_probe(slot, close)
        return slot

    async def _check_caller(self, event: RecvRequest) -> None:
        assert isinstance(event.peer, Caller)
        connection = event.peer.connection
        protocol = connection.protocol
        assert isinstance(protocol, _ServerProtocol)
        if not protocol.may_call(event.method_name):
            raise GRPCError(Status.UNAVAILABLE, CROWDED)
        rejection = self._admission.call_rejection(connection.transport, event.method_name)
        if rejection is not None:
            raise GRPCError(Status.PERMISSION_DENIED, rejection)

    async def aclose(self) -> None:
        """Close connections, cancel calls and wait for their end."""
        for protocol in self._open:
            protocol.processor.close()
        for protocol in self._open:
            await protocol.handler.wait_closed()
