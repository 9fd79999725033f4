"""Accepts connections, and begins streams at once: the short way from the port to the hub.

After a node's death its clients come back within seconds, all of them. So accepting, reading heads
and answering streams is one task with one epoll descriptor, in slices of time; the kernel's queue
holds those for whom there is no room yet. `stream_openings.py` answers who asks for a stream; what
is none goes the ordinary way (Quart on Hypercorn), with what was read of it. Over TLS, a connection
is pending from the first byte of its handshake on. Nothing here reads a body.
"""

import select
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio
from prometheus_client import Counter

from noti.client_key import connection_client_key
from noti.connection_slots import Slot, Slots
from noti.descriptors import Acceptor, reject
from noti.http import request_counts
from noti.http.config import HttpConfig
from noti.http.handshakes import Handshakes
from noti.http.heads import HeadState, RequestHead, rejection_response, response_head
from noti.http.publish_requests import wants_to_publish
from noti.http.response_heads import ResponseHeads
from noti.http.stream_openings import HandOver, StreamAsker, StreamOpenings
from noti.http.subscribe import PATHS, Admission
from noti.http.tls_socket import RECORD_BYTES, awaits_room, speaks_http_2
from noti.http.websocket_handshake import wants_websocket
from noti.listening import STUCK_PAUSE_S, YOUNG_S
from noti.streams import sockets
from noti.streams.hub import Hub
from noti.streams.sockets import TimeSlice

log = structlog.get_logger("noti.http")

ACCEPTED = Counter("noti_http_accepted_total", "Connections accepted.")
ACCEPT_FAILED = Counter("noti_http_accept_failed_total", "Connections that could not be accepted.")
TIMED_OUT = Counter(
    "noti_http_heads_timed_out_total", "Connections closed without a whole request."
)

ACCEPTS_A_TURN = 64
"""Then the heads of those who came before are read, so that nobody waits without limit."""
RECEIVE_BYTES = RECORD_BYTES
"""Over TLS, no less: what is kept decrypted, epoll does not know of."""
READABLE = select.EPOLLIN | select.EPOLLRDHUP
HEADS_BYTES_MAX = 32 * 1024 * 1024
"""Of all heads that are not complete; honest ones take a hundredth, as they come in one piece."""

UNUSUAL = frozenset({b"upgrade", b"content-length", b"transfer-encoding"})
"""Headers that a plain request for a stream does not have."""

REQUEST_TIMEOUT = response_head(408, (("Connection", "close"), ("Content-Length", "0")))


@dataclass(slots=True, eq=False)
class _PendingConnection:
    """A connection whose first request is not complete, or not decided."""

    sock: socket.socket
    peer: str
    since: float
    head: RequestHead = field(default_factory=RequestHead)
    greeted: bool = False
    """Whether it is known what it speaks; if that is TLS, its handshake is done."""
    slot: Slot | None = None
    """While the head is not complete."""
    counted_bytes: int = 0
    """What its head takes of what all heads may take."""
    events: int = READABLE
    """What epoll reports."""


class HttpAcceptor:
    """The pending connections of one listener."""

    def __init__(
        self,
        admission: Admission,
        hub: Hub,
        config: HttpConfig,
        *,
        catch_up: Callable[[], Awaitable[None]],
        hand_over: HandOver,
        publish: HandOver | None = None,
        heads: ResponseHeads | None = None,
        handshakes: Handshakes | None = None,
    ) -> None:
        """`catch_up` returns when this node has applied all that was committed before the call.

        `hand_over` takes a socket, what was read of its first request, and the address at its other
        end; it owns the socket from then on. So does `publish`, for those that want to publish;
        without it they go the ordinary way. With `handshakes`, connections are over TLS, all but
        those that these let pass.
        """
        self._hub = hub
        self._config = config
        self._hand_over = hand_over
        self._publish = publish
        self._handshakes = handshakes
        heads = heads or ResponseHeads(config)
        self._openings = StreamOpenings(
            admission, hub, config, catch_up=catch_up, hand_over=hand_over, heads=heads
        )
        self._epoll: select.epoll
        self._slice = TimeSlice(hub.config.work_slice_s)
        self._pending: dict[int, _PendingConnection] = {}
        """Whose heads are not complete, by descriptor, in the order of arrival."""
        self._pending_bytes = 0
        """Of their heads together."""
        self._slots = Slots(
            "http_arriving",
            config.pending_connections_max,
            config.connections_per_address_max,
        )
        self._listens = True
        """Whether new connections are taken; otherwise they wait in the kernel's queue."""

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        """Accept until cancelled.

        Resource handling: closes the connections that nobody has taken, not the listeners.
        """
        with ExitStack() as resources:
            self._epoll = resources.enter_context(select.epoll())
            acceptor = resources.enter_context(Acceptor("http"))
            resources.callback(self._close_all)
            by_fd = {listener.fileno(): listener for listener in listeners}
            for listener in listeners:
                sockets.prepare(listener, self._hub.config)
                listener.setblocking(False)
                self._epoll.register(listener, select.EPOLLIN)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._openings.run)
                while True:
                    self._listen(by_fd)
                    await self._wait(acceptor)
                    self._slice.begin()
                    for fd, _ in self._epoll.poll(0):
                        if fd in by_fd:
                            await self._accept(by_fd[fd], acceptor)
                        elif (pending := self._pending.get(fd)) and self._has_read(pending):
                            self._forget(pending, fd)
                        await self._slice.checkpoint_if_over()
                    self._close_overdue()

    def change(self) -> None:
        """Hold to the limits that the configuration has now."""
        config = self._config
        self._slots.change(config.pending_connections_max, config.connections_per_address_max)
        self._openings.change()

    # Connections that come

    def _listen(self, listeners: Iterable[int]) -> None:
        """Listen as long as there is room, or a connection that can make room."""
        if self._listens != self._has_room(trio.current_time()):
            self._listens = not self._listens
            for fd in listeners:
                self._epoll.modify(fd, select.EPOLLIN if self._listens else 0)

    def _has_room(self, now: float) -> bool:
        if len(self._pending) < self._config.pending_connections_max:
            return True
        oldest = self._oldest()
        return oldest is not None and now - oldest.since >= YOUNG_S

    def _oldest(self) -> _PendingConnection | None:
        return next(iter(self._pending.values()), None)

    async def _wait(self, acceptor: Acceptor) -> None:
        """Return when something happens, or the oldest connection has been pending too long."""
        deadline = acceptor.episode.ends_at
        if (oldest := self._oldest()) is not None:
            patience_s = self._config.head_timeout_s if self._listens else YOUNG_S
            deadline = min(deadline, oldest.since + patience_s)
        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_readable(self._epoll.fileno())
        acceptor.episode.settle(trio.current_time())

    async def _accept(self, listener: socket.socket, acceptor: Acceptor) -> None:
        for _ in range(ACCEPTS_A_TURN):
            now = trio.current_time()
            if not self._has_room(now):
                return
            try:
                accepted = acceptor.accept(listener, now)
            except BlockingIOError:
                return
            if accepted is None:
                ACCEPT_FAILED.inc()
                if acceptor.stuck:
                    await trio.sleep(STUCK_PAUSE_S)
                    return
                await self._slice.checkpoint_if_over()
                continue
            ACCEPTED.inc()
            sock, address = accepted
            sock.setblocking(False)
            self._begin(sock, str(address[0]), now)
            await self._slice.checkpoint_if_over()

    def _begin(self, sock: socket.socket, peer: str, now: float) -> None:
        """Serve a new connection if its request is here, as it is most often; or let it wait."""
        if self._handshakes is None:
            try:
                data = _received(sock)
            except BlockingIOError:
                self._await_rest(_PendingConnection(sock, peer, now))
                return
            if not data:
                sock.close()
            elif not self._openings.has_begun(sock, data, peer):
                pending = _PendingConnection(sock, peer, now)
                if not self._has_taken(pending, data):
                    self._await_rest(pending)
            return
        pending = _PendingConnection(sock, peer, now)
        if not self._has_read(pending):
            self._await_rest(pending)

    def _await_rest(self, pending: _PendingConnection) -> None:
        """Let a connection wait here for the rest of its request."""
        key = ""
        if self._slots.counts_clients:
            key = connection_client_key(pending.peer, "", self._config.trusted_proxies)
        # Honest clients send their request at once: the oldest connection makes room.
        slot = self._slots.take(key, partial(self._make_room, pending))
        assert isinstance(slot, Slot), "all of them are idle"
        slot.mark_idle()
        pending.slot = slot
        self._pending[pending.sock.fileno()] = pending
        self._epoll.register(pending.sock, pending.events)

    # Requests

    def _has_read(self, pending: _PendingConnection) -> bool:
        """Read what is there; return whether the connection is pending no longer."""
        if self._handshakes is not None and not pending.greeted:
            advanced = self._handshakes.advance(pending.sock, pending.peer)
            if advanced is None:
                return True
            pending.sock, pending.greeted = advanced
            self._watch(pending)
            if not pending.greeted:
                return False
            if speaks_http_2(pending.sock):
                self._hand_over(pending.sock, pending.head, pending.peer)
                return True
        try:
            data = _received(pending.sock)
        except BlockingIOError:
            return False
        if not data:
            pending.sock.close()
            return True
        if not len(pending.head) and self._openings.has_begun(pending.sock, data, pending.peer):
            return True
        return self._has_taken(pending, data)

    def _watch(self, pending: _PendingConnection) -> None:
        """Let epoll report what a handshake waits for."""
        events = select.EPOLLOUT if awaits_room(pending.sock) else READABLE
        if events != pending.events:
            pending.events = events
            if pending.slot is not None:
                self._epoll.modify(pending.sock, events)

    def take_back(self, sock: socket.socket, received: bytes, peer: str) -> None:
        """Go on with a connection as with a new one; of its next request, this was received."""
        pending = _PendingConnection(sock, peer, trio.current_time(), greeted=True)
        if not self._has_taken(pending, received):
            self._await_rest(pending)

    def _has_taken(self, pending: _PendingConnection, data: bytes) -> bool:
        """Take what was read; return whether the connection is pending no longer."""
        head = pending.head
        state = head.feed(data)
        if (rejection := head.excess(self._config.head_bytes_max)) is not None:
            # Bytes left unread would reset the connection before the answer.
            request_counts.count_unread(rejection.status)
            reject(pending.sock, rejection_response(rejection))
        elif state is HeadState.MORE:
            pending.counted_bytes += len(data)
            self._pending_bytes += len(data)
            return False
        elif state is HeadState.COMPLETE and _wants_stream(head):
            self._openings.decide(StreamAsker(pending.sock, head, pending.peer))
        elif state is HeadState.COMPLETE and self._publish and wants_to_publish(head):
            self._publish(pending.sock, head, pending.peer)
        else:
            self._hand_over(pending.sock, head, pending.peer)
        return True

    # Connections whose request does not come

    def _close_overdue(self) -> None:
        """Close the oldest connections that are pending too long.

        More of them, while all heads together take too much memory.
        """
        now, timeout_s = trio.current_time(), self._config.head_timeout_s
        while (oldest := self._oldest()) is not None and (
            oldest.since + timeout_s <= now or self._pending_bytes > HEADS_BYTES_MAX
        ):
            TIMED_OUT.inc()
            self._forget(oldest, oldest.sock.fileno())
            if len(oldest.head):
                request_counts.count_unread(408)
                with suppress(OSError):
                    oldest.sock.send(REQUEST_TIMEOUT)
            oldest.sock.close()

    def _make_room(self, pending: _PendingConnection) -> None:
        """Close a connection; it is served if its request has come meanwhile."""
        fd = pending.sock.fileno()
        served = self._has_read(pending)
        self._forget(pending, fd)
        if not served:
            TIMED_OUT.inc()
            # Without a word: any status would end an `EventSource` permanently.
            pending.sock.close()

    def _forget(self, pending: _PendingConnection, fd: int) -> None:
        del self._pending[fd]
        self._pending_bytes -= pending.counted_bytes
        if pending.slot is not None:
            pending.slot.release()
        with suppress(OSError):  # The kernel has forgotten it if it is closed.
            self._epoll.unregister(fd)

    def _close_all(self) -> None:
        for pending in self._pending.values():
            pending.sock.close()
            if pending.slot is not None:
                pending.slot.release()
        self._pending.clear()


def _received(sock: socket.socket) -> bytes:
    """Return what came; empty at the end, whatever ended it. Raises `BlockingIOError`."""
    try:
        return sock.recv(RECEIVE_BYTES)
    except BlockingIOError:
        raise
    except OSError:
        return b""


def _wants_stream(head: RequestHead) -> bool:
    """Whether this request can go the short way; what is unusual about it goes the other."""
    return (
        head.method == "GET"
        and head.version == "1.1"
        and head.path in PATHS
        and head.hosts == 1
        and bool(head.header("host"))
        and (head.lacks(UNUSUAL) or _is_usual(head))
    )


def _is_usual(head: RequestHead) -> bool:
    return (
        (not head.header("upgrade") or wants_websocket(head.header))
        and not head.header("content-length")
        and not head.header("transfer-encoding")
    )
