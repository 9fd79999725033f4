"""Real UDP and TCP sockets for gossip; `OSError` becomes an error of `noti.errors` here."""

import socket as constants
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from noti import listening
from noti.address import Address, format_address
from noti.connection_errors import reason_of
from noti.descriptors import GOSSIP_STREAMS_MAX
from noti.errors import AddressInUse, PeerUnavailable
from noti.swim.ports import StreamHandler

_PACKET_BYTES_MAX = 65_536
"""No UDP packet is larger: receive whatever was sent."""

_RECEIVE_BUFFER_BYTES = 2 * 1024 * 1024
"""Room in the kernel for bursts, as real agents ask for; the kernel may give less."""

_RECEIVE_RETRY_S = 0.1
"""Pause after the kernel refused to receive (out of memory), so that it is not asked in a loop."""


class SocketDatagrams:
    """A bound UDP socket; see `noti.swim.ports.Datagrams`."""

    def __init__(self, socket: constants.socket) -> None:
        """`socket` never blocks."""
        self._socket = socket
        self._address = _address_of(socket.getsockname())

    @property
    def address(self) -> Address:
        """The address it is bound to, with the real port."""
        return self._address

    def send(self, payload: bytes, to: Address) -> None:
        """Send one packet; raises `PeerUnavailable` when the system says it cannot be sent.

        When its buffer is full it is lost, as on the way.
        """
        try:
            self._socket.sendto(payload, to)
        except BlockingIOError:
            pass
        except OSError as error:
            raise PeerUnavailable(
                f"cannot send to {format_address(to)}: {reason_of(error)}"
            ) from error

    async def receive(self) -> tuple[bytes, Address]:
        """Wait for one packet and its source."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            packets = self.arrived(1)
            if packets:
                return packets[0]
            # What the kernel reports here belongs to no packet: an earlier send, or its memory.
            await trio.sleep(_RECEIVE_RETRY_S)

    def arrived(self, count_max: int) -> list[tuple[bytes, Address]]:
        """Return packets, with their sources, that have arrived already."""
        packets: list[tuple[bytes, Address]] = []
        try:
            while len(packets) < count_max:
                payload, source = self._socket.recvfrom(_PACKET_BYTES_MAX)
                packets.append((payload, _address_of(source)))
        except OSError:
            pass  # there are no more, or the next call of `receive` waits
        return packets


class SocketNetwork:
    """The operating system's network; see `noti.swim.ports.GossipNetwork`."""

    @asynccontextmanager
    async def open_datagrams(self, bind: Address) -> AsyncIterator[SocketDatagrams]:
        """Bind a UDP socket for the time of the context; raises `AddressInUse`."""
        bound = await _bound(bind, constants.SOCK_DGRAM)
        with constants.socket(fileno=bound.detach()) as socket:
            socket.setblocking(False)
            socket.setsockopt(constants.SOL_SOCKET, constants.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
            yield SocketDatagrams(socket)

    async def serve_streams(
        self,
        bind: Address,
        handler: StreamHandler,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled, one handler task a connection; raises `AddressInUse`."""

        async def handle(stream: trio.SocketStream) -> None:
            try:
                source = _address_of(stream.socket.getpeername())
            except OSError:  # it is gone already
                await stream.aclose()
            else:
                await handler(stream, source)

        bound = await _bound(bind, constants.SOCK_STREAM)
        with constants.socket(fileno=bound.detach()) as listener:
            async with trio.open_nursery() as handlers:
                task_status.started(_address_of(listener.getsockname()))
                await listening.serve(
                    listener,
                    handle,
                    handlers,
                    listener="gossip",
                    connections_max=GOSSIP_STREAMS_MAX,
                )

    async def open_stream(self, to: Address) -> trio.abc.Stream:
        """Connect; raises `PeerUnavailable`. There is no timeout but the caller's."""
        host, port = to
        try:
            return await trio.open_tcp_stream(host, port)
        except OSError as error:
            raise PeerUnavailable(
                f"cannot connect to {format_address(to)}: {reason_of(error, host)}"
            ) from error

    async def resolve(self, address: Address) -> list[Address]:
        """Return the IP addresses of a host name, IPv4 first; raises `PeerUnavailable`."""
        try:
            found = await _lookup(address, constants.SOCK_STREAM)
        except OSError as error:
            host, _ = address
            raise PeerUnavailable(reason_of(error, host)) from error
        return [_address_of(each) for _, each in found]


async def _bound(bind: Address, kind: constants.SocketKind) -> trio.socket.SocketType:
    """Return a socket bound to an address, listening if it is TCP."""
    try:
        family, address = (await _lookup(bind, kind))[0]
        socket = trio.socket.socket(family, kind)
        try:
            if kind == constants.SOCK_STREAM:
                # Connections of our predecessor that still linger must not keep us out.
                socket.setsockopt(constants.SOL_SOCKET, constants.SO_REUSEADDR, 1)
            await socket.bind(address)
            if kind == constants.SOCK_STREAM:
                socket.listen()
        except BaseException:
            socket.close()
            raise
    except OSError as error:
        raise AddressInUse(
            f"cannot listen for gossip on {format_address(bind)}: {reason_of(error)}; "
            "choose another address with --gossip-addr"
        ) from error
    return socket


async def _lookup(
    address: Address, kind: constants.SocketKind
) -> list[tuple[constants.AddressFamily, tuple[object, ...]]]:
    """Return families and addresses, IPv4 first; raises `OSError`."""
    found = await trio.socket.getaddrinfo(*address, type=kind)
    pairs = {(family, where): None for family, _, _, _, where in found}
    return sorted(pairs, key=lambda pair: pair[0] != constants.AF_INET)


def _address_of(raw: tuple[object, ...]) -> Address:
    host, port = raw[:2]
    assert isinstance(host, str)
    assert isinstance(port, int)
    return host, port
