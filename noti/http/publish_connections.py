"""Serves publishers on HTTP/1.1: the short way from their connections to the log.

One task watches all connections with one epoll descriptor. What came in one turn is submitted
together, and an answer is sent as soon as it is known, by whoever brings it. A connection whose
next request is for somebody else goes on as a new one would.
"""

import math
import select
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
import trio

from noti.connection_slots import Slot
from noti.descriptors import reject
from noti.http.config import HttpConfig
from noti.http.publish_endpoint import PublishEndpoint
from noti.http.publish_exchange import Phase, PublishExchange, WholeRequest
from noti.http.response_heads import ResponseHeads
from noti.http.tls_socket import scheme_of
from noti.streams.sockets import TimeSlice

log = structlog.get_logger("noti.http")

RECEIVE_BYTES: Final = 64 * 1024
UNREAD_BYTES_MAX: Final = 32 * 1024 * 1024
"""Of all connections together, besides bodies: heads that are not complete, and what came behind a
request. Honest ones take a hundredth."""
LOOK_EVERY_S: Final = 1.0
"""How often those are looked for that have taken too long."""
LINGER_S: Final = 2.0
"""How long a connection is read after its last answer, when more may come: closed with bytes
unread it would be reset, and the answer lost (RFC 9112, 9.6)."""
WORK_SLICE_S: Final = 0.002
"""Then the rest of the node runs, consensus above all."""
CLIENTS_TURN: Final = frozenset({Phase.IDLE, Phase.HEAD, Phase.BODY})
"""Whoever sends half a request and waits makes room for others, like those who send none."""
GONE: Final = select.EPOLLHUP | select.EPOLLERR

PassOn = Callable[[socket.socket, bytes, str], None]
"""Takes a connection, what came of its next request, and the address at its other end."""


class PublishConnection:
    """One connection; whoever counts connections gives it a slot."""

    __slots__ = (
        "begun",
        "counted_bytes",
        "events",
        "exchange",
        "is_open",
        "lingers",
        "owner",
        "phase",
        "since",
        "slot",
        "sock",
        "unsent",
    )

    def __init__(self, sock: socket.socket, owner: "PublishConnections") -> None:
        self.sock = sock
        self.owner = owner
        self.exchange: PublishExchange
        self.slot: Slot | None = None
        self.unsent = b""
        self.events = select.EPOLLIN
        """What epoll reports, besides its end."""
        self.lingers = False
        """Whether all is sent, and what comes is dropped."""
        self.is_open = True
        self.counted_bytes = 0
        """Of those that are not read."""
        self.phase: Phase | None = None
        self.begun = 0
        """Of how many requests this is the phase."""
        self.since = 0.0
        """When it began."""

    def take_slot(self, slot: Slot) -> None:
        """Have this slot for as long as the connection is here."""
        self.slot = slot

    def close(self) -> None:
        """Close at once; what it has published is committed all the same."""
        self.owner.close(self)

    def reject(self, response: bytes) -> None:
        """Answer and close, without waiting; nobody has begun to serve the connection."""
        self.is_open = False
        reject(self.sock, response)


class PublishConnections:
    """The publishers of one listener."""

    def __init__(
        self,
        endpoint: PublishEndpoint,
        heads: ResponseHeads,
        config: HttpConfig,
        on_closed: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_closed` hears of each connection that is here no longer."""
        self._endpoint = endpoint
        self._on_closed = on_closed
        self._heads = heads
        self._config = config
        self._patience_s = {
            Phase.IDLE: config.idle_timeout_s,
            Phase.HEAD: config.head_timeout_s,
            Phase.BODY: config.body_timeout_s,
            Phase.OVER: LINGER_S,
        }
        self._epoll: select.epoll
        self._connections: dict[int, PublishConnection] = {}
        """By descriptor."""
        self._unread_bytes = 0
        self._in_turn = False
        self._answered: dict[PublishConnection, None] = {}
        """Those for which an answer came in this turn."""
        self._later: dict[PublishConnection, None] = {}
        """Those that have something to do besides what epoll reports."""
        self._any_later = trio.Event()
        self._drains = False
        self._pass_on: PassOn
        self._slice = TimeSlice(WORK_SLICE_S)

    def __len__(self) -> int:
        return len(self._connections)

    def connection(self, sock: socket.socket, peer: str) -> PublishConnection:
        """Return a connection that is not served yet, and has no slot."""
        connection = PublishConnection(sock, self)
        on_answer = partial(self._on_answer, connection)
        connection.exchange = PublishExchange(
            peer, self._endpoint, self._heads, self._config, on_answer, scheme_of(sock)
        )
        return connection

    def adopt(self, connection: PublishConnection, received: bytes) -> None:
        """Serve a connection from now on; of its first request, this was received."""
        self._connections[connection.sock.fileno()] = connection
        self._epoll.register(connection.sock, connection.events)
        connection.exchange.receive(received)
        self._look_later(connection)

    async def run(
        self, pass_on: PassOn, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until cancelled. `pass_on` owns the sockets that it gets.

        Resource handling: closes all connections that are left.
        """
        self._pass_on = pass_on
        with select.epoll() as self._epoll:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._go_on_later)
                    nursery.start_soon(self._end_late)
                    task_status.started()
                    while True:
                        await trio.lowlevel.wait_readable(self._epoll.fileno())
                        self._slice.begin()
                        connections = []
                        for fd, events in self._epoll.poll(0):
                            connection = self._connections.get(fd)
                            if connection is not None and self._receive(connection, events):
                                connections.append(connection)
                            if self._slice.is_over:
                                self._take_turn(connections)
                                connections = []
                                await self._slice.checkpoint_if_over()
                        self._take_turn(connections)
            finally:
                for connection in list(self._connections.values()):
                    self.close(connection)

    def drain(self) -> None:
        """Take no more requests; those in progress are answered."""
        self._drains = True
        for connection in list(self._connections.values()):
            connection.exchange.drain()
            if connection.lingers:
                self.close(connection)
            self._settle(connection)

    def close(self, connection: PublishConnection) -> None:
        """Close a connection at once."""
        if connection.is_open:
            connection.exchange.end_input()
            self._forget(connection)
            connection.sock.close()

    # Turns

    def _receive(self, connection: PublishConnection, events: int) -> bool:
        """Read what is there; return whether there is something to do."""
        if not events & select.EPOLLIN:
            if events & GONE:
                self.close(connection)
                return False
            return True  # it can be written again
        try:
            data = connection.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            self.close(connection)
            return False
        if connection.lingers:
            if not data:
                self.close(connection)
            return False
        if data:
            connection.exchange.receive(data)
        else:
            connection.exchange.end_input()
        return True

    def _take_turn(self, connections: Iterable[PublishConnection]) -> None:
        """Go on with these connections; what they ask for is submitted together."""
        self._in_turn = True
        whole: list[WholeRequest] = []
        for connection in connections:
            try:
                whole += connection.exchange.advance()
            except Exception as error:  # noqa: BLE001 - one connection's trouble is nobody else's
                log.error("connection failed", error=repr(error))
                self.close(connection)
        for number, one in enumerate(whole, start=1):
            self._endpoint.submit(*one, at_once=number == len(whole))
        self._in_turn = False
        for connection in {**dict.fromkeys(connections), **self._answered}:
            self._settle(connection)
        self._answered.clear()

    def _on_answer(self, connection: PublishConnection) -> None:
        if not connection.is_open:
            return
        if self._in_turn:
            self._answered[connection] = None
        elif connection.exchange.unanswered == 1 and connection.exchange.wants_input:
            self._settle(connection)
        else:
            # Other answers are perhaps coming in the same turn: they leave together. And whatever
            # else follows is not for the caller to wait for.
            self._look_later(connection)

    def _look_later(self, connection: PublishConnection) -> None:
        self._later[connection] = None
        self._any_later.set()

    async def _go_on_later(self) -> None:
        while True:
            await self._any_later.wait()
            self._any_later = trio.Event()
            connections, self._later = self._later, {}
            self._take_turn([one for one in connections if one.is_open])

    async def _end_late(self) -> None:
        """End connections that have waited too long for their clients."""
        while True:
            await trio.sleep(LOOK_EVERY_S)
            now = trio.current_time()
            for connection in list(self._connections.values()):
                self._end_if_late(connection, now)

    def _end_if_late(self, connection: PublishConnection, now: float) -> None:
        waits_s = now - connection.since
        if connection.unsent:
            if waits_s >= self._config.send_timeout_s:
                self.close(connection)
        elif connection.phase is not None and waits_s >= self._patience_s.get(
            connection.phase, math.inf
        ):
            if connection.phase in (Phase.HEAD, Phase.BODY):
                connection.exchange.time_out()
                self._settle(connection)
            else:
                self.close(connection)

    # What follows from what happened

    def _settle(self, connection: PublishConnection) -> None:
        """Send what can be sent, and do what is to be done then."""
        if not connection.is_open or connection.lingers:
            return
        exchange = connection.exchange
        output = connection.unsent or exchange.take_output()
        if output and not self._send(connection, output):
            return
        unread_bytes = exchange.unread_bytes
        if unread_bytes != connection.counted_bytes:
            self._unread_bytes += unread_bytes - connection.counted_bytes
            connection.counted_bytes = unread_bytes
            if self._unread_bytes > UNREAD_BYTES_MAX:
                self.close(connection)
                return
        if connection.unsent:
            self._enter(connection, exchange.phase, select.EPOLLOUT)
            return
        if exchange.paused and exchange.wants_input:
            self._look_later(connection)
        match phase := exchange.phase:
            case Phase.PASSES_ON:
                self._pass(connection)
            case Phase.OVER if exchange.lingers:
                self._linger(connection)
            case Phase.OVER:
                self.close(connection)
            case _:
                self._enter(connection, phase, select.EPOLLIN if exchange.wants_input else 0)

    def _send(self, connection: PublishConnection, data: bytes) -> bool:
        """Send what can be sent; return whether the connection is still open."""
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(connection)
            return False
        rest = data[sent:]
        if (rest and sent) or bool(rest) != bool(connection.unsent):
            connection.since = trio.current_time()
        connection.unsent = rest
        return True

    def _enter(self, connection: PublishConnection, phase: Phase, events: int) -> None:
        if events != connection.events:
            connection.events = events
            self._epoll.modify(connection.sock, events)
        begun = connection.exchange.begun
        if phase is connection.phase and begun == connection.begun:
            return
        connection.phase, connection.begun = phase, begun
        if not connection.unsent and phase is not Phase.COMMIT:  # which may take any time
            connection.since = trio.current_time()
        if connection.slot is not None:
            if phase in CLIENTS_TURN and not connection.exchange.unanswered:
                connection.slot.mark_idle()
            else:
                connection.slot.mark_busy()

    def _linger(self, connection: PublishConnection) -> None:
        """Tell the client that all is said, and drop what it still sends."""
        with suppress(OSError):
            connection.sock.shutdown(socket.SHUT_WR)
        connection.lingers = True
        self._enter(connection, Phase.OVER, select.EPOLLIN)
        if connection.slot is not None:
            connection.slot.mark_idle()

    def _pass(self, connection: PublishConnection) -> None:
        """Let the connection go on as a new one."""
        rest = connection.exchange.take_rest()
        self._forget(connection)
        if self._drains:
            connection.sock.close()
        else:
            self._pass_on(connection.sock, rest, connection.exchange.peer)

    def _forget(self, connection: PublishConnection) -> None:
        connection.is_open = False
        self._unread_bytes -= connection.counted_bytes
        if connection.slot is not None:
            connection.slot.release()
        if self._connections.pop(connection.sock.fileno(), None) is not None:
            with suppress(OSError, ValueError):
                self._epoll.unregister(connection.sock)
            self._on_closed()
