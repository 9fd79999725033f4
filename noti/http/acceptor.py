"""Takes connections in, and begins streams at once: the short way from the port to the hub.

Enters: connections, the heads of their first requests. Leaves: sockets to the hub for streams;
everything else, with what was read of it, to the ordinary way (Quart on Hypercorn).
Never: a task per connection, a body, TLS, a decision about a request (`subscribe.py`).

After a node's death its clients come back within seconds, all of them. So accepting, reading heads
and answering streams is one task with one epoll descriptor, in slices; the kernel's queue holds
those for whom there is no room yet.
"""

import select
import socket
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial

import structlog
import trio
from prometheus_client import Counter

from noti.client_key import client_key, connection_client_key
from noti.connection_slots import Slot, Slots
from noti.descriptors import Acceptor, refuse
from noti.http import request_counts
from noti.http.config import HttpConfig
from noti.http.heads import Flaw, HeadState, RequestHead, refusal, response_head
from noti.http.subscribe import (
    PATHS,
    Admission,
    Answer,
    Headers,
    Opening,
    StreamRequest,
    common_headers,
)
from noti.listening import STUCK_PAUSE_S, YOUNG_S
from noti.streams import sockets, sse
from noti.streams.hub import Hub
from noti.streams.time_slice import TimeSlice

log = structlog.get_logger("noti.http")

ACCEPTED = Counter("noti_http_accepted_total", "Connections accepted.")
ACCEPT_FAILED = Counter("noti_http_accept_failed_total", "Connections that could not be accepted.")
TIMED_OUT = Counter(
    "noti_http_heads_timed_out_total", "Connections closed without a whole request."
)

ACCEPTS_A_TURN = 64
"""Then the heads of those who came before are read, so that no one's wait grows without limit."""
RECEIVE_BYTES = 16 * 1024
HEADS_BYTES_MAX = 32 * 1024 * 1024
"""Of all heads that are not complete; honest ones take a hundredth, as they come in one piece."""

REQUEST_TIMEOUT = response_head(408, (("Connection", "close"), ("Content-Length", "0")))

HandOver = Callable[[socket.socket, RequestHead, str], None]


@dataclass(slots=True, eq=False)
class _Guest:
    """A connection whose first request is not complete, or not decided."""

    sock: socket.socket
    peer: str
    since: float
    head: RequestHead = field(default_factory=RequestHead)
    slot: Slot | None = None
    """While the head is not complete."""
    counted_bytes: int = 0
    """What its head takes of what all heads may take."""
    household: str = ""
    """By which it is counted while it waits for the node to catch up."""


class Lobby:
    """The connections of one listener that nobody has taken yet."""

    def __init__(
        self,
        admission: Admission,
        hub: Hub,
        config: HttpConfig,
        *,
        catch_up: Callable[[], Awaitable[None]],
        hand_over: HandOver,
    ) -> None:
        """`catch_up` returns when this node has applied all that was committed before the call.
        `hand_over` takes a socket, what was read of its first request, and the address at its other
        end; it owns the socket from then on.
        """
        self._admission = admission
        self._hub = hub
        self._config = config
        self._catch_up = catch_up
        self._hand_over = hand_over
        self._slice = TimeSlice(hub.config.work_slice_s)
        self._guests: dict[int, _Guest] = {}
        """Whose heads are not complete, in the order of arrival."""
        self._listens = True
        """Whether new connections are taken; otherwise they wait in the kernel's queue."""
        self._guests_bytes = 0
        """Of their heads together."""
        per_address_max = config.connections_per_address_max
        self._slots = Slots("http_arriving", config.guests_max, per_address_max)
        self._undecided: list[_Guest] = []
        self._deciding = 0
        """How many wait for the node to catch up."""
        self._deciding_of: Tally[str] = Tally()
        """The same by address, if addresses are counted."""
        self._any_undecided = trio.Event()
        self._date = (0, "")

    async def run(self, listeners: Sequence[socket.socket]) -> None:
        """Accept until cancelled.

        Resource handling: closes the connections that nobody has taken, not the listeners.
        """
        with ExitStack() as resources:
            epoll = resources.enter_context(select.epoll())
            acceptor = resources.enter_context(Acceptor("http"))
            resources.callback(self._close_all)
            by_fd = {listener.fileno(): listener for listener in listeners}
            for listener in listeners:
                sockets.prepare(listener, self._hub.config)
                listener.setblocking(False)
                epoll.register(listener, select.EPOLLIN)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._decide_undecided)
                while True:
                    self._listen(epoll, by_fd)
                    await self._wait(epoll, acceptor)
                    self._slice.begin()
                    for fd, _ in epoll.poll(0):
                        if fd in by_fd:
                            await self._accept(by_fd[fd], acceptor, epoll)
                        elif (guest := self._guests.get(fd)) and self._has_read(guest):
                            self._forget(guest, fd, epoll)
                        await self._slice.checkpoint_if_over()
                    self._limit_heads(epoll)
                    self._send_away_idle(epoll)

    def _listen(self, epoll: select.epoll, listeners: Iterable[int]) -> None:
        """Listen to those who come as long as there is room, or somebody who can make room."""
        if self._listens != self._has_room(trio.current_time()):
            self._listens = not self._listens
            for fd in listeners:
                epoll.modify(fd, select.EPOLLIN if self._listens else 0)

    def _has_room(self, now: float) -> bool:
        if len(self._guests) < self._config.guests_max:
            return True
        oldest = self._oldest()
        return oldest is not None and now - oldest.since >= YOUNG_S

    def _oldest(self) -> _Guest | None:
        return next(iter(self._guests.values()), None)

    async def _wait(self, epoll: select.epoll, acceptor: Acceptor) -> None:
        """Return when something happens, or the oldest guest has been here too long."""
        deadline = acceptor.episode.ends_at
        if (oldest := self._oldest()) is not None:
            patience_s = self._config.head_timeout_s if self._listens else YOUNG_S
            deadline = min(deadline, oldest.since + patience_s)
        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_readable(epoll.fileno())
        acceptor.episode.settle(trio.current_time())

    async def _accept(
        self, listener: socket.socket, acceptor: Acceptor, epoll: select.epoll
    ) -> None:
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
            guest = _Guest(sock, str(address[0]), now)
            # Most often the request is here already.
            if not self._has_read(guest):
                self._seat(guest, epoll)
            await self._slice.checkpoint_if_over()

    def _seat(self, guest: _Guest, epoll: select.epoll) -> None:
        """Let a guest wait here for the rest of its request."""
        address = ""
        if self._slots.counts_clients:
            address = connection_client_key(guest.peer, "", self._config.trusted_proxies)
        # Honest clients send their request at once: who is here longest makes room.
        slot = self._slots.take(address, partial(self._make_room, guest, epoll))
        assert isinstance(slot, Slot), "all of them wait for their clients"
        slot.mark_idle()
        guest.slot = slot
        self._guests[guest.sock.fileno()] = guest
        epoll.register(guest.sock, select.EPOLLIN | select.EPOLLRDHUP)

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
        head = guest.head
        reading = head.feed(data)
        if (flaw := head.excess(self._config.head_bytes_max)) is not None:
            self._refuse(guest, flaw)
        elif reading is HeadState.MORE:
            guest.counted_bytes += len(data)
            self._guests_bytes += len(data)
            return False
        elif reading is HeadState.COMPLETE and self._wants_stream(head):
            self._decide(guest)
        else:
            self._hand_over(guest.sock, head, guest.peer)
        return True

    def _wants_stream(self, head: RequestHead) -> bool:
        """Whether this request can go the short way; what is unusual about it goes the other."""
        return (
            head.method == "GET"
            and head.version == "1.1"
            and head.path in PATHS
            and head.hosts == 1
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
            case None if self._may_wait(guest):
                self._undecided.append(guest)
                self._any_undecided.set()
            case None:
                self._answer(guest, self._admission.turn_away())

    def _may_wait(self, guest: _Guest) -> bool:
        """Whether there will be room for this stream once the node has caught up; note that it
        waits.
        """
        hub = self._hub.config
        if self._hub.clients + self._deciding >= hub.clients_max:
            return False
        if hub.clients_per_address_max:
            forwarded_for = guest.head.header("x-forwarded-for")
            guest.household = client_key(guest.peer, forwarded_for, self._config.trusted_proxies)
            if self._deciding_of[guest.household] >= hub.clients_per_address_max:
                return False
            self._deciding_of[guest.household] += 1
        self._deciding += 1
        return True

    def _no_longer_waits(self, guest: _Guest) -> None:
        self._deciding -= 1
        if guest.household:
            self._deciding_of[guest.household] -= 1
            if not self._deciding_of[guest.household]:
                del self._deciding_of[guest.household]

    def _begin(self, guest: _Guest, opening: Opening) -> None:
        headers = [*opening.headers, ("Transfer-Encoding", "chunked")]
        if self._send(guest, self._head(guest, 200, headers) + sse.chunk(opening.first)):
            request_counts.count("GET", guest.head.path, 200)
            self._hub.adopt(guest.sock, opening.reader)
        else:
            guest.sock.close()

    def _answer(self, guest: _Guest, answer: Answer) -> None:
        length = ("Content-Length", str(len(answer.body)))
        headers = [*answer.headers, length, ("Connection", "close")]
        request_counts.count("GET", guest.head.path, answer.status)
        self._send(guest, self._head(guest, answer.status, headers) + answer.body)
        guest.sock.close()

    def _refuse(self, guest: _Guest, flaw: Flaw) -> None:
        """Answer what is no request; bytes left unread would reset the connection before that."""
        request_counts.count_unread(flaw.status)
        refuse(guest.sock, refusal(flaw))

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
                self._slice.begin()
                while guests:
                    guest = guests.pop()
                    self._no_longer_waits(guest)
                    if patience.cancelled_caught:
                        self._answer(guest, self._admission.turn_away())
                    else:
                        self._decide(guest, caught_up=True)
                    await self._slice.checkpoint_if_over()
            finally:
                for guest in guests:
                    self._no_longer_waits(guest)
                    guest.sock.close()

    def _send_away_idle(self, epoll: select.epoll) -> None:
        """Close connections whose head does not come; they stand in the order of arrival."""
        now = trio.current_time()
        for guest in list(self._guests.values()):
            if now - guest.since < self._config.head_timeout_s:
                break
            self._send_away(guest, epoll)

    def _limit_heads(self, epoll: select.epoll) -> None:
        """Bound the memory that unfinished heads take; who is here longest makes room."""
        while self._guests_bytes > HEADS_BYTES_MAX:
            self._send_away(next(iter(self._guests.values())), epoll)

    def _make_room(self, guest: _Guest, epoll: select.epoll) -> None:
        """Let a guest go; it is served if its request has come meanwhile."""
        fd = guest.sock.fileno()
        left = self._has_read(guest)
        self._forget(guest, fd, epoll)
        if not left:
            TIMED_OUT.inc()
            guest.sock.close()  # Without a word: any status would end an `EventSource` for ever.

    def _send_away(self, guest: _Guest, epoll: select.epoll) -> None:
        TIMED_OUT.inc()
        self._forget(guest, guest.sock.fileno(), epoll)
        if len(guest.head):
            request_counts.count_unread(408)
            self._send(guest, REQUEST_TIMEOUT)
        guest.sock.close()

    def _forget(self, guest: _Guest, fd: int, epoll: select.epoll) -> None:
        del self._guests[fd]
        self._guests_bytes -= guest.counted_bytes
        if guest.slot is not None:
            guest.slot.release()
        with suppress(OSError):  # The kernel has forgotten it if it is closed.
            epoll.unregister(fd)

    def _close_all(self) -> None:
        for guest in self._guests.values():
            guest.sock.close()
            if guest.slot is not None:
                guest.slot.release()
        for guest in self._undecided:
            guest.sock.close()
        self._guests.clear()
        self._undecided.clear()
