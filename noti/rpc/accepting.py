"""Takes connections for gRPC: with TLS or without, as this node is set, never one for the other.

Enters: accepted sockets. Leaves: connections of grpclib's server; refusals, told to both sides.
Never: a connection without TLS on a node that has it; a wait that keeps others from being taken.

The first byte tells who calls: a TLS handshake begins with 22, HTTP/2 without TLS with `PRI`. Who
calls the wrong way is told in his own language, so that his operator reads a clear line too.
"""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakKeyDictionary, WeakSet

import grpclib.protocol
import grpclib.server
import structlog
import trio
from grpclib._typing import IServable
from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.events import RecvRequest, listen
from grpclib.exceptions import GRPCError
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hyperframe.frame import GoAwayFrame, SettingsFrame

from noti.asyncio_loop import Island
from noti.certificates.rejection_log import RefusalLog
from noti.certificates.rejections import Refusal, handshake_refusal
from noti.client_key import client_key
from noti.connection_slots import Place, Places, SlotsFull
from noti.descriptors import PEERS_MAX, Episode, rpc_unready_max
from noti.rpc.connections import Http2Protocol
from noti.rpc.peer_certificates import Guard
from noti.rpc.rejected_calls import Complaints
from noti.rpc.tls import HANDSHAKE_S, accept, allow_large_frames, certificate_of

log = structlog.get_logger("noti.rpc")

TLS_RECORD: Final = b"\x16"
PREFACE: Final = b"PRI"

RAFT_METHOD: Final = "/noti.v1.Raft/Stream"

ALWAYS: Final = frozenset(
    {
        "/grpc.health.v1.Health/Check",
        "/notification.v1.Notification/GetServers",
        "/notification.v1.Notification/GetLeaderStatus",
    }
)
"""Answered also when all connections are busy."""

CROWDED: Final = (
    "this node has as many busy connections as it may have (--rpc-connections-max, and"
    " --rpc-connections-per-address-max): use another node, or come back later"
)

LINGER_S: Final = 0.5
"""A connection that is closed with unread bytes in it is reset, and the reason would be lost."""

TLS_WANTED: Final = (
    SettingsFrame(0).serialize()
    + GoAwayFrame(
        0,
        error_code=ErrorCodes.INADEQUATE_SECURITY,
        additional_data=b"this node speaks TLS only",
    ).serialize()
)
"""The answer to HTTP/2 without TLS (RFC 9113, 7)."""

NO_TLS_HERE: Final = b"\x15\x03\x03\x00\x02\x02\x46"
"""The answer to TLS where there is none: a fatal alert, protocol_version (RFC 8446, 6)."""


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


class _ServerProtocol(Http2Protocol):
    """The server's end of a connection, which waits for its client while no call is open."""

    def __init__(self, like: grpclib.protocol.H2Protocol, complaints: Complaints) -> None:
        super().__init__(like.handler, like.config, like.h2_config)
        self._complaints = complaints
        self._calls = 0
        self._place: Place | None = None
        self._accept = like.handler.accept
        like.handler.accept = self._begin_call  # type: ignore[method-assign]

    def sit(self, place: Place) -> None:
        """Take this place for as long as the connection is open; nothing was called yet."""
        self._place = place
        place.wait()

    def may_call(self, method: str, peers: "_Peers") -> bool:
        """Whether this may be called here; all may, as long as there is room for all.

        Another node's connection changes over from the places of clients to those of nodes, if need
        be: it must not make room for anybody.
        """
        if self._place is None or self._place.full is None:
            return True
        if method == RAFT_METHOD and peers.take(self):
            self._place.leave()
            return True
        return method in ALWAYS

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self._place is not None:
            self._place.leave()

    def _begin_call(self, stream: Any, headers: Any, release_stream: Callable[[], Any]) -> None:
        self._calls += 1
        if self._place is not None:
            self._place.begin()

        def release() -> None:
            release_stream()
            self._calls -= 1
            if not self._calls and self._place is not None:
                self._place.wait()

        self._accept(stream, headers, release)

    def complain(self, transport: asyncio.BaseTransport, error: ProtocolError) -> None:
        self._complaints.tell(transport, "http2", f"{type(error).__name__}: {error}")


class _Peers:
    """Connections of other nodes that came when clients had taken all that they may have."""

    def __init__(self) -> None:
        self._taken: WeakSet[_ServerProtocol] = WeakSet()

    def take(self, protocol: _ServerProtocol) -> bool:
        """Count a connection; return whether there is room for it."""
        closed = [one for one in self._taken if one.connection.is_closing()]
        self._taken.difference_update(closed)
        if len(self._taken) < PEERS_MAX:
            self._taken.add(protocol)
        return protocol in self._taken


class Server(grpclib.server.Server):
    """A grpclib server that is handed its connections and can close them; asyncio."""

    def __init__(
        self,
        services: Sequence[IServable],
        config: Configuration,
        guard: Guard,
        refusals: RefusalLog,
        complaints: Complaints,
        limits: RpcLimits,
    ) -> None:
        super().__init__(services, config=config)
        self._places = Places("rpc", limits.connections_max, limits.per_address_max, PEERS_MAX)
        self._peers = _Peers()
        self._by_transport: WeakKeyDictionary[asyncio.BaseTransport, _ServerProtocol] = (
            WeakKeyDictionary()
        )
        self._episodes = {
            SlotsFull.NODE: Episode("rpc", "node", "all are busy, raise --rpc-connections-max"),
            SlotsFull.ADDRESS: Episode(
                "rpc",
                "address",
                "one address has all that it may have (--rpc-connections-per-address-max)",
            ),
        }
        self._complaints = complaints
        self._guard = guard
        self._refusals = refusals
        self._protocols: WeakSet[grpclib.protocol.H2Protocol] = WeakSet()
        listen(self, RecvRequest, self._check_caller)

    async def take(self, descriptor: int, context: ssl.SSLContext | None) -> None:
        """Serve a connection, after its handshake if there is a context.

        Keeps a copy of the descriptor; the caller closes his.
        """
        accepted = socket.socket(fileno=os.dup(descriptor))
        accepted.setblocking(False)
        host = accepted.getpeername()[0]
        protocol = self._protocol_factory()
        try:
            if context is None:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)
            else:
                await accept(accepted, protocol, context)
        except BaseException:
            protocol.handler.close()  # Or grpclib would remember it for ever.
            raise
        allow_large_frames(protocol)
        self._protocols.add(protocol)
        self._seat(protocol, host)

    def _seat(self, protocol: _ServerProtocol, host: str) -> None:
        """Give a connection a place. When all are busy, it gets one for other nodes and health."""
        connection = protocol.connection
        if connection.is_closing():
            return
        self._by_transport[connection._transport] = protocol
        now = time.monotonic()
        for episode in self._episodes.values():
            episode.settle(now)

        def close() -> None:
            protocol.processor.close("another connection needs the place of this idle one")

        place = self._places.take(client_key(host, "", ()), close)
        if isinstance(place, SlotsFull):
            self._episodes[place].refuse(now)
            place = self._places.take_for_probe(place, close)
        protocol.sit(place)

    def _protocol_factory(self) -> _ServerProtocol:
        return _ServerProtocol(super()._protocol_factory(), self._complaints)

    async def _check_caller(self, event: RecvRequest) -> None:
        transport = event.peer._transport
        protocol = self._by_transport.get(transport)
        if protocol is not None and not protocol.may_call(event.method_name, self._peers):
            raise GRPCError(Status.UNAVAILABLE, CROWDED)
        certificate = certificate_of(transport)
        if certificate is None:
            return
        refusal = self._guard.objection_to_call(certificate, event.method_name)
        if refusal is not None:
            host, port = transport.get_extra_info("peername")[:2]
            self._refusals.tell(host, port, refusal)
            raise GRPCError(Status.PERMISSION_DENIED, f"this caller {refusal}")

    def close(self) -> None:
        """Cancel handlers, close connections."""
        for handler in self._handlers:
            handler.close()
        for protocol in list(self._protocols):
            protocol.processor.close()

    async def wait_closed(self) -> None:
        """Wait for the handlers."""
        for handler in self._handlers:
            await handler.wait_closed()


class Door:
    """Looks at each new connection before grpclib does; Trio."""

    def __init__(
        self,
        island: Island,
        server: Server,
        context: Callable[[], ssl.SSLContext | None],
        refusals: RefusalLog,
    ) -> None:
        """`context` gives the one for the next connection, or None on a node without TLS. Somebody
        else limits how many `enter` at a time.
        """
        self._island = island
        self._server = server
        self._context = context
        self._refusals = refusals

    async def enter(self, stream: trio.SocketStream) -> None:
        """Hand a new connection to the server, or close it. Never fails for the caller's sake."""
        try:
            await self._look_at(stream)
        except (OSError, trio.BrokenResourceError) as error:
            log.debug("connection lost at once", error=str(error))
        except Exception as error:  # noqa: BLE001 - one connection's trouble is nobody else's
            log.warning("connection failed", error=repr(error))
        finally:
            stream.socket.close()

    async def _look_at(self, stream: trio.SocketStream) -> None:
        first = b""
        with trio.move_on_after(HANDSHAKE_S):
            first = await stream.socket.recv(len(PREFACE), socket.MSG_PEEK)
        if not first:
            return
        host, port = stream.socket.getpeername()[:2]
        context = self._context()
        secured = first.startswith(TLS_RECORD)
        if context is None and secured:
            self._refusals.tell(host, port, Refusal("tls", "speaks TLS, and this node has none"))
            await _part(stream, NO_TLS_HERE)
        elif context is not None and not secured:
            refusal = Refusal("plain", "speaks plain text, and this node takes TLS only")
            self._refusals.tell(host, port, refusal)
            await _part(stream, TLS_WANTED if first == PREFACE else b"")
        else:
            try:
                await self._island.call(self._server.take, stream.socket.fileno(), context)
            except ssl.SSLError as error:
                self._refusals.tell(host, port, handshake_refusal(error))
            except ConnectionError:
                refusal = Refusal("other", "broke off the TLS handshake, or was too slow with it")
                self._refusals.tell(host, port, refusal)


async def _part(stream: trio.SocketStream, word: bytes) -> None:
    with trio.move_on_after(LINGER_S):
        await stream.send_all(word)
        await stream.send_eof()
        while await stream.receive_some():
            pass
