"""Takes connections in, and begins streams at once: the short way from the port to the hub.

Enters: connections, the heads of their first requests. Leaves: sockets to the hub for streams;
everything else, with what was read of it, to the ordinary way (Quart on Hypercorn).
Never: a task per connection, a body, TLS, a decision about a request (`admission.py`).

After a node's death its clients come back within seconds, all of them. So accepting, reading heads
and answering streams is one task with one epoll descriptor, in slices; the kernel's queue holds
those for whom there is no room yet.
"""

import errno
import math
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from email.utils import formatdate

import structlog
import trio
from prometheus_client import Counter

from noti.web import sse
from noti.web.admission import (
    PATHS,
    Admission,
    Answer,
    Headers,
    Opening,
    StreamRequest,
    common_headers,
)
from noti.web.config import WebConfig
from noti.web.heads import Reading, RequestHead, response_head
from noti.web.hub import Hub
from noti.web.pace import Pace

log = structlog.get_logger("noti.web")

ACCEPTED = Counter("noti_web_accepted_total", "Connections accepted.")
ACCEPT_FAILED = Counter("noti_web_accept_failed_total", "Connections that could not be accepted.")
TIMED_OUT = Counter("noti_web_heads_timed_out_total", "Connections closed without a whole request.")

ACCEPTS_A_TURN = 64
"""Then the heads of those who came before are read, so that no one's wait grows without limit."""
RECEIVE_BYTES = 16 * 1024
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
EXHAUSTED_PAUSE_S = 0.1
"""Without descriptors or memory, trying again at once would only burn the processor."""

REQUEST_TIMEOUT = response_head(408, (("Connection", "close"), ("Content-Length", "0")))

HandOver = Callable[[socket.socket, bytes], None]


@dataclass(slots=True, eq=False)
class _Guest:
    """A connection whose first request is not complete, or not decided."""

    sock: socket.socket
    peer: str
    since: float
    head: RequestHead = field(default_factory=RequestHead)


class Lobby:
    """The connections of one listener that nobody has taken yet."""

    def __init__(
        self,
        admission: Admission,
        hub: Hub,
        config: WebConfig,
        *,
        catch_up: Callable[[], Awaitable[None]],
        hand_over: HandOver,
    ) -> None:
        """`catch_up` returns when this node has applied all that was committed before the call.
        `hand_over` takes a socket and the bytes that came on it; it owns the socket from then on.
        """
        self._admission = admission
        self._hub = hub
        self._config = config
        self._catch_up = catch_up
        self._hand_over = hand_over
        self._pace = Pace(hub.config.work_slice_s)
        self._guests: dict[int, _Guest] = {}
        """Whose heads are not complete, in the order of arrival."""
        self._undecided: list[_Guest] = []
        self._any_undecided = trio.Event()
        self._date = (0, "")

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        """Accept until cancelled.

        Resource handling: closes the connections that nobody has taken, not the listeners.
        """
        with ExitStack() as resources:
            epoll = resources.enter_context(select.epoll())
            resources.callback(self._close_all)
            by_fd = {listener.fileno(): listener for listener in listeners}
            for listener in listeners:
                self._hub.prepare(listener)
                listener.setblocking(False)
                epoll.register(listener, select.EPOLLIN)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._decide_undecided)
                while True:
                    await self._wait(epoll)
                    self._pace.begin()
                    for fd, _ in epoll.poll(0):
                        if fd in by_fd:
                            await self._accept(by_fd[fd], epoll)
                        elif (guest := self._guests.get(fd)) and self._has_read(guest):
                            self._forget(fd, epoll)
                        await self._pace.breathe()
                    self._send_away_idle(epoll)

    async def _wait(self, epoll: select.epoll) -> None:
        """Return when something happens, or the oldest guest has been here too long."""
        oldest = next(iter(self._guests.values()), None)
        deadline = math.inf if oldest is None else oldest.since + self._config.head_timeout_s
        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_readable(epoll.fileno())

    async def _accept(self, listener: socket.socket, epoll: select.epoll) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                ACCEPT_FAILED.inc()
                if error.errno in EXHAUSTED:
                    log.error("cannot accept: raise the limit of open files", error=error.strerror)
                    await trio.sleep(EXHAUSTED_PAUSE_S)
                    return
                continue  # That client is gone already.
            ACCEPTED.inc()
            if len(self._guests) >= self._config.guests_max:
                # Honest clients send their request at once: who is here longest makes room.
                self._send_away(next(iter(self._guests.values())), epoll)
            sock.setblocking(False)
            guest = _Guest(sock, str(address[0]), trio.current_time())
            # Most often the request is here already.
            if not self._has_read(guest):
                self._guests[sock.fileno()] = guest
                epoll.register(sock, select.EPOLLIN | select.EPOLLRDHUP)
            await self._pace.breathe()

    def _has_read(self, guest: _Guest) -> bool:
        """Read what is there; return whether the guest has left, one way or another."""
        try:
            data = guest.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            guest.sock.close()
            return True
        reading = guest.head.feed(data)
        if reading is Reading.MORE and len(guest.head.bytes) < self._config.head_bytes_max:
            return False
        if reading is Reading.COMPLETE and self._wants_stream(guest.head):
            self._decide(guest)
        else:
            self._hand_over(guest.sock, guest.head.bytes)
        return True

    def _wants_stream(self, head: RequestHead) -> bool:
        """Whether this request can go the short way; what is unusual about it goes the other."""
        return (
            head.method == "GET"
            and head.version == "1.1"
            and head.path in PATHS
            and bool(head.header("host"))
            and not head.header("upgrade")
            and not head.header("content-length")
            and not head.header("transfer-encoding")
        )

    def _decide(self, guest: _Guest, *, caught_up: bool = False) -> None:
        head = guest.head
        request = StreamRequest(head.path, head.query, head.header, guest.peer)
        try:
            decision = self._admission.decide(request, caught_up=caught_up)
        except Exception as error:  # noqa: BLE001 - one request's trouble is nobody else's
            log.error("request failed", path=head.path, error=repr(error))
            decision = Answer(500, [], b"")
        match decision:
            case Opening() as opening:
                self._begin(guest, opening)
            case Answer() as answer:
                self._answer(guest, answer)
            case None:
                self._undecided.append(guest)
                self._any_undecided.set()

    def _begin(self, guest: _Guest, opening: Opening) -> None:
        headers = [*opening.headers, ("Transfer-Encoding", "chunked")]
        if self._send(guest, self._head(guest, 200, headers) + sse.chunk(opening.first)):
            self._hub.adopt(guest.sock, opening.audience, opening.after_seq, opening.address)
        else:
            guest.sock.close()

    def _answer(self, guest: _Guest, answer: Answer) -> None:
        length = ("Content-Length", str(len(answer.body)))
        headers = [*answer.headers, length, ("Connection", "close")]
        self._send(guest, self._head(guest, answer.status, headers) + answer.body)
        guest.sock.close()

    def _send(self, guest: _Guest, data: bytes) -> bool:
        """Send the first bytes on a connection; its buffer is empty and takes them, or it is
        broken.
        """
        try:
            return guest.sock.send(data) == len(data)
        except OSError:
            return False

    def _head(self, guest: _Guest, status: int, headers: Headers) -> bytes:
        origin = guest.head.header("origin")
        common = common_headers(origin, self._config)
        return response_head(status, (*headers, *common, ("Date", self._now())))

    def _now(self) -> str:
        """Return the date for a head, made once a second (RFC 9110 6.6.1)."""
        second = int(trio.current_time())
        if self._date[0] != second:
            self._date = (second, formatdate(usegmt=True))
        return self._date[1]

    async def _decide_undecided(self) -> None:
        """Wait once for all who wait: whoever comes meanwhile is in the next batch."""
        while True:
            await self._any_undecided.wait()
            self._any_undecided = trio.Event()
            guests, self._undecided = self._undecided, []
            try:
                with trio.move_on_after(self._config.catch_up_wait_s) as patience:
                    await self._catch_up()
                self._pace.begin()
                while guests:
                    guest = guests.pop()
                    if patience.cancelled_caught:
                        self._answer(guest, self._admission.turn_away())
                    else:
                        self._decide(guest, caught_up=True)
                    await self._pace.breathe()
            finally:
                for guest in guests:
                    guest.sock.close()

    def _send_away_idle(self, epoll: select.epoll) -> None:
        """Close connections whose head does not come; they stand in the order of arrival."""
        now = trio.current_time()
        for guest in list(self._guests.values()):
            if now - guest.since < self._config.head_timeout_s:
                break
            self._send_away(guest, epoll)

    def _send_away(self, guest: _Guest, epoll: select.epoll) -> None:
        TIMED_OUT.inc()
        self._forget(guest.sock.fileno(), epoll)
        if guest.head.bytes:
            self._send(guest, REQUEST_TIMEOUT)
        guest.sock.close()

    def _forget(self, fd: int, epoll: select.epoll) -> None:
        del self._guests[fd]
        with suppress(OSError):  # The kernel has forgotten it if it is closed.
            epoll.unregister(fd)

    def _close_all(self) -> None:
        for guest in [*self._guests.values(), *self._undecided]:
            guest.sock.close()
        self._guests.clear()
        self._undecided.clear()
