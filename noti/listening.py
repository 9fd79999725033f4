"""Serves connections, one task each, and never more of them than there may be.

Connections that could not be taken are not logged one by one.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import trio

from noti.address import Address, format_address
from noti.connection_errors import reason_of
from noti.descriptors import MADE_ROOM, OPEN, OPEN_MAX, Acceptor
from noti.errors import AddressInUse

YOUNG_S: Final = 0.1
"""Who came so recently makes no room: an honest client in the middle of a storm is about to say
something. Those who come meanwhile wait in the kernel's queue."""

STUCK_PAUSE_S: Final = 0.1
"""Without descriptors or memory, trying again at once would only burn the processor."""

Serve = Callable[[trio.SocketStream], Awaitable[None]]


@contextmanager
def usable(bind: Address, flag: str) -> Iterator[None]:
    """Raise `AddressInUse`, which names the flag, when the body cannot listen at an address."""
    try:
        yield
    except OSError as error:
        problem = f"{flag} {format_address(bind)} cannot be used: {reason_of(error)}"
        raise AddressInUse(f"{problem}; choose another address") from error


async def open_listeners(bind: Address, flag: str) -> list[socket.socket]:
    """Return sockets that listen at an address; raises `AddressInUse`, which names the flag."""
    host, port = bind
    with usable(bind, flag):
        listeners = await trio.open_tcp_listeners(port, host=host or None)
    return [socket.socket(fileno=one.socket.detach()) for one in listeners]


def peer_of(stream: trio.SocketStream) -> str:
    """Return the address at the other end; empty when it is gone already."""
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:
        return ""


async def serve(
    listening: socket.socket,
    handler: Serve,
    handlers: trio.Nursery,
    *,
    listener: str,
    connections_max: int | None = None,
) -> None:
    """Accept until cancelled, and run `handler` for each connection, which owns the stream then.

    The handlers run in `handlers`.

    When `connections_max` are being handled, the one that came first is cancelled, unless it is
    young: honest ones are done in a moment. None means that somebody else counts them.
    *Resource handling*: does not close `listening`.
    """
    made_room = MADE_ROOM.labels(listener)
    scopes: dict[trio.CancelScope, float] = {}
    left = trio.lowlevel.ParkingLot()
    if connections_max is not None:
        OPEN_MAX.labels(listener).set(connections_max)
        OPEN.labels(listener).set_function(lambda: len(scopes))

    async def handle(taken: socket.socket, scope: trio.CancelScope) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(taken))
        try:
            with scope:
                await handler(stream)
        finally:
            scopes.pop(scope, None)
            left.unpark_all()

    async def make_room() -> None:
        while connections_max is not None and len(scopes) >= connections_max:
            oldest, since = next(iter(scopes.items()))
            if trio.current_time() - since >= YOUNG_S:
                del scopes[oldest]
                oldest.cancel()
                made_room.inc()
                return
            with trio.move_on_at(since + YOUNG_S):
                await left.park()

    listening.setblocking(False)
    with Acceptor(listener) as acceptor:
        while True:
            with trio.move_on_at(acceptor.episode.ends_at) as episode:
                await trio.lowlevel.wait_readable(listening)
            acceptor.episode.settle(trio.current_time())
            if episode.cancelled_caught:
                continue
            await make_room()
            now = trio.current_time()
            try:
                accepted = acceptor.accept(listening, now)
            except BlockingIOError:
                continue
            if accepted is None:
                if acceptor.stuck:
                    await trio.sleep(STUCK_PAUSE_S)
                continue
            scope = trio.CancelScope()
            scopes[scope] = now
            handlers.start_soon(handle, accepted[0], scope)
