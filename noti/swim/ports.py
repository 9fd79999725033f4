"""The network, as gossip needs it: packets, and short exchanges over streams."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias

import trio

from noti.address import Address


class Datagrams(Protocol):
    """A bound UDP socket."""

    @property
    def address(self) -> Address:
        """The address it is bound to, with the real port."""

    def send(self, payload: bytes, to: Address) -> None:
        """Send one packet at once, or lose it.

        Raises `PeerUnavailable` when the system says it cannot be sent.
        """

    async def receive(self) -> tuple[bytes, Address]:
        """Wait for one packet and its source."""

    def arrived(self, count_max: int) -> list[tuple[bytes, Address]]:
        """Return packets, with their sources, that have arrived already."""


StreamHandler: TypeAlias = Callable[[trio.abc.Stream, Address], Awaitable[None]]
"""Gets a stream and the address at its other end."""


class GossipNetwork(Protocol):
    """UDP packets and short TCP exchanges between nodes."""

    def open_datagrams(self, bind: Address) -> AbstractAsyncContextManager[Datagrams]:
        """Bind; raises `AddressInUse`."""

    async def serve_streams(
        self,
        bind: Address,
        handler: StreamHandler,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Listen until cancelled, one handler task a connection.

        Raises `AddressInUse`. Handlers close their stream.
        """

    async def open_stream(self, to: Address) -> trio.abc.Stream:
        """Connect; raises `PeerUnavailable`."""

    async def resolve(self, address: Address) -> list[Address]:
        """Return the IP addresses of a host name, at least one; raises `PeerUnavailable`."""
