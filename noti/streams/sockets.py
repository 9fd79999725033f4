"""Writes to the sockets of adopted streams what `sending.py` decides, and reports what they took.

No write waits for a socket: what the kernel does not take is sent when epoll says so.
"""

import math
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
import trio

from noti.streams.client_messages import ClientMessages
from noti.streams.config import HubConfig
from noti.streams.end_reason import EndReason
from noti.streams.feed import Batch, FellBehind
from noti.streams.metrics import CLOSED_FOR, DELIVERIES, SENT, HubMetrics
from noti.streams.open_streams import AdoptedStream, Group, Reader, State
from noti.streams.sending import Sending

log = structlog.get_logger("noti.streams")

DEAD_PEER_MS = 30_000
"""Two heartbeats: a peer that acknowledges nothing for so long is gone (RFC 5482)."""
SENDS_A_LOOK = 2
"""Sends between two looks at the clock: one takes 10 to 30 us."""
HANG_UP = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WATCHED = select.EPOLLET | select.EPOLLRDHUP
"""What is reported of every socket, beside errors."""


def prepare(listener: socket.socket, config: HubConfig) -> None:
    """Set what adopted sockets need; they inherit it from their listener (Linux)."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)


class Wakeups:
    """Sleeps until a socket has room again or hung up, or the doorbell is rung.

    One private epoll descriptor watches all of them, and is itself awaited through Trio: no task
    per client.

    Usable inside `opened` only, but for `ring`.
    """

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._room_watched: set[int] = set()
        """Sockets that were full once; most never are."""
        self._doorbell = -1
        self._rung = False

    @property
    def is_open(self) -> bool:
        """Whether anybody can be woken."""
        return self._epoll is not None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the descriptors open."""
        assert self._epoll is None, "they are opened once at a time"
        with select.epoll() as epoll:
            self._doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                epoll.register(self._doorbell, select.EPOLLIN)
                self._epoll = epoll
                yield
            finally:
                self._epoll = None
                self._room_watched.clear()
                os.close(self._doorbell)
                self._doorbell = -1
                self._rung = False

    def watch(self, fd: int, *, reads: bool = False) -> None:
        """Report a socket once at hang-up. With `reads`, also whenever something has come.

        That there is room is not reported before `watch_room`: every new socket has room, and to
        hear so would wake the sleeper once for each of them.
        """
        assert self._epoll is not None
        self._epoll.register(fd, WATCHED | select.EPOLLIN if reads else WATCHED)

    def watch_room(self, fd: int, *, reads: bool = False) -> None:
        """Report from now on also when the kernel has room again, or has it already."""
        assert self._epoll is not None
        if fd not in self._room_watched:
            self._room_watched.add(fd)
            events = WATCHED | select.EPOLLOUT
            self._epoll.modify(fd, events | select.EPOLLIN if reads else events)

    def forget(self, fd: int) -> None:
        """Report nothing more about a socket."""
        assert self._epoll is not None
        self._room_watched.discard(fd)
        self._epoll.unregister(fd)

    def ring(self) -> None:
        """Wake the sleeper, once for many rings. Does nothing while nobody can be woken."""
        if not self._rung and self._doorbell >= 0:
            self._rung = True
            os.eventfd_write(self._doorbell, 1)

    async def sleep_until(self, deadline: float) -> None:
        """Return at `deadline` (Trio's time), or when there is something to report."""
        assert self._epoll is not None
        with trio.move_on_at(deadline):
            await trio.lowlevel.wait_readable(self._epoll.fileno())

    def reports(self) -> list[tuple[int, int]]:
        """Return what happened since the last call: (descriptor, epoll's events)."""
        assert self._epoll is not None
        events = self._epoll.poll(0)
        if self._rung:
            # Rings while this was at work are for the next time; `poll` has seen this one.
            os.eventfd_read(self._doorbell)
            self._rung = False
        return [report for report in events if report[0] != self._doorbell]


class TimeSlice:
    """Lets a busy task hold the loop for a slice of time, and then lets the rest of the node run.

    The rest is consensus above all. It never sleeps.
    """

    def __init__(self, slice_s: float) -> None:
        """A slice is `slice_s` seconds long."""
        self._slice_s = slice_s
        self._ends = 0.0

    def begin(self) -> None:
        """Begin a slice: the caller has just been at a checkpoint."""
        self._ends = trio.current_time() + self._slice_s

    @property
    def is_over(self) -> bool:
        """Whether it is time to let the rest of the node run."""
        return trio.current_time() >= self._ends

    async def checkpoint_if_over(self) -> None:
        """Let the rest of the node run when the slice is over. A checkpoint only then."""
        if self.is_over:
            await trio.lowlevel.checkpoint()
            self.begin()


class StreamSockets:
    """The sockets of one hub."""

    def __init__(self, sending: Sending, wakeups: Wakeups, metrics: HubMetrics) -> None:
        self._sending = sending
        self._wakeups = wakeups
        self._metrics = metrics
        self.said = ClientMessages()
        """What clients of WebSockets have said."""

    def adopt(self, sock: socket.socket, reader: Reader, ends_at: float) -> None:
        """Begin a stream on a non-blocking socket, which is closed with it."""
        stream = self._sending.adopt(reader, ends_at, sock)
        self._wakeups.watch(stream.fd, reads=reader.audience.framing.is_websocket)
        if stream.state is not State.IN_STEP:
            self._wakeups.ring()

    def close(self, stream: AdoptedStream, reason: EndReason) -> None:
        """Forget a stream and close its socket."""
        told = stream.state is State.ENDING
        self._sending.close(stream)
        self._wakeups.forget(stream.fd)
        if stream.group.audience.framing.is_websocket:
            self.said.part(stream, reason, told=told)
        stream.connection.close()
        CLOSED_FOR[reason].inc()
        if reason in (EndReason.BEHIND, EndReason.STALLED):
            log.debug("client disconnected", reason=reason.value, cursor=stream.cursor)

    def close_all(self) -> None:
        """Close all sockets, without last words."""
        for stream in list(self._sending.adopted.values()):
            self.close(stream, EndReason.DRAINED)

    async def end_all(self, last_words: Callable[[AdoptedStream], bytes]) -> None:
        """End every stream in order; bounded by the caller."""
        for stream in list(self._sending.adopted.values()):
            stream.ends_for = EndReason.DRAINED
            self._sending.end(stream, last_words(stream))
        while self._sending.adopted:
            for stream in list(self._sending.sendable.values()):
                self.send_next(stream)
            if self._sending.adopted and not self._sending.sendable:
                await self._wakeups.sleep_until(math.inf)
                self.notice()

    def notice(self) -> None:
        """Take in what happened to sockets since the last call."""
        for fd, events in self._wakeups.reports():
            stream = self._sending.adopted.get(fd)
            if stream is None:
                continue
            if events & HANG_UP:
                self.close(stream, EndReason.DISCONNECTED)
                continue
            self._sending.room_again(stream)
            if events & select.EPOLLIN:
                self.said.note(stream)

    def hear(self) -> None:
        """Read what clients of WebSockets say, and answer it; for 2 ms at the most."""
        for stream in self.said.turn():
            reply = self.said.read(stream)
            if reply is None:
                self.close(stream, EndReason.DISCONNECTED)
                continue
            if reply.pongs:
                self.send(stream, reply.pongs)
            if reply.close is not None and stream.state is not State.CLOSED:
                stream.ends_for = EndReason.INVALID if reply.invalid else EndReason.DISCONNECTED
                self._sending.end(stream, reply.close)

    async def send_to_group(self, group: Group, batch: Batch, time_slice: TimeSlice) -> None:
        """Send one batch to all members in step: the innermost loop of this server."""
        members = list(group.in_step.values())
        chunk = batch.wire
        size_bytes = len(chunk)
        self._metrics.sends(batch.created_ms)
        for start in range(0, len(members), SENDS_A_LOOK):
            for stream in members[start : start + SENDS_A_LOOK]:
                stream.quiet = False
                try:
                    sent_bytes = stream.connection.send(chunk)
                except BlockingIOError:
                    sent_bytes = 0
                except OSError:
                    self.close(stream, EndReason.DISCONNECTED)
                    continue
                if sent_bytes < size_bytes:
                    self._sending.took(stream, chunk, sent_bytes, trio.current_time())
            await time_slice.checkpoint_if_over()
        batch.delivered.streams += len(members)
        DELIVERIES.inc(len(members) * batch.events)
        SENT.inc(len(members) * size_bytes)

    def send_next(self, stream: AdoptedStream) -> None:
        """Send a chunk, or the rest of one, to a stream that is not in step."""
        match self._sending.next_for(stream):
            case None:
                pass
            case FellBehind():
                self.close(stream, EndReason.BEHIND)
            case Batch() as batch:
                if stream.live:
                    self._metrics.sends(batch.created_ms)
                batch.delivered.streams += 1
                DELIVERIES.inc(batch.events)
                self.send(stream, batch.wire)
            case rest:
                self.send(stream, rest)

    def send(self, stream: AdoptedStream, data: bytes | memoryview) -> None:
        """Send a chunk, or the rest of one; close the stream if it was the closing one."""
        if not stream.unsent:
            SENT.inc(len(data))  # A whole chunk: what is not taken now is not counted again.
        stream.quiet = False
        try:
            sent_bytes = stream.connection.send(data)
        except BlockingIOError:
            sent_bytes = 0
        except OSError:
            self.close(stream, EndReason.DISCONNECTED)
            return
        self._sending.took(stream, data, sent_bytes, trio.current_time())
        if stream.unsent:
            if stream.is_blocked:
                reads = stream.group.audience.framing.is_websocket
                self._wakeups.watch_room(stream.fd, reads=reads)
            return
        if stream.state is State.ENDING:
            self.close(stream, stream.ends_for)
        else:
            self.said.taken(stream)
