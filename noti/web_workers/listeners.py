"""The sockets on which web workers listen: one each, at one address, so that the kernel spreads."""

import socket
from typing import Final

from noti.address import Address
from noti.listening import open_listeners, usable

FLAG: Final = "--http-addr"
LISTEN_BACKLOG: Final = 4096


async def open_shared_listeners(bind: Address, count: int) -> list[list[socket.socket]]:
    """Return for each worker the sockets on which it listens, all at the same address.

    They stay open here: what waits at one whose worker has died, its successor takes. Raises
    `AddressInUse`.
    """
    # One without a share in it shows whether the address is free, and which port it is.
    first = await open_listeners(bind, FLAG)
    addresses = [(one.family, one.getsockname()) for one in first]
    if bind[1] == 0:
        addresses = addresses[:1]
    for one in first:
        one.close()
    with usable(bind, FLAG):
        return [[_listener(family, at) for family, at in addresses] for _ in range(count)]


def close_all(listeners: list[list[socket.socket]]) -> None:
    """Close them here; workers that have them keep theirs."""
    for one in listeners:
        for listener in one:
            listener.close()


def _listener(family: int, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind(address)
    listener.listen(LISTEN_BACKLOG)
    return listener
