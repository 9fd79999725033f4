"""Writes to the sockets of adopted streams what `sending.py` decides, and reports what they took.

Nothing here waits for a socket: what the kernel does not take is sent when epoll says so.
"""

import math
import socket
from collections.abc import Callable

import structlog
import trio

from noti.streams.config import HubConfig
from noti.streams.epoll import Wakeups
from noti.streams.feed import Batch, FellBehind
from noti.streams.metrics import CLOSED_FOR, DELIVERIES, SENT, HubMetrics
from noti.streams.open_streams import AdoptedStream, EndReason, Group, Reader, State
from noti.streams.sending import Sending
from noti.streams.time_slice import TimeSlice

log = structlog.get_logger("noti.streams")

DEAD_PEER_MS = 30_000
"""Two heartbeats: a peer that acknowledges nothing for so long is gone (RFC 5482)."""
SENDS_A_LOOK = 2
"""Sends between two looks at the clock: one takes 10 to 30 us."""


def prepare(listener: socket.socket, config: HubConfig) -> None:
    """Set what adopted sockets need; they inherit it from their listener (Linux)."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, config.send_buffer_bytes)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)


class StreamSockets:
    """The sockets of one hub."""

    def __init__(self, sending: Sending, wakeups: Wakeups, metrics: HubMetrics) -> None:
        self._sending = sending
        self._wakeups = wakeups
        self._metrics = metrics

    def adopt(self, sock: socket.socket, reader: Reader, ends_at: float) -> None:
        """Begin a stream on a non-blocking socket, which is closed with it."""
        stream = self._sending.adopt(reader, ends_at, sock)
        self._wakeups.watch(stream.fd)
        self._wakeups.ring()

    def close(self, stream: AdoptedStream, reason: EndReason) -> None:
        """Forget a stream and close its socket."""
        self._sending.close(stream)
        self._wakeups.forget(stream.fd)
        stream.connection.close()
        CLOSED_FOR[reason].inc()
        if reason in (EndReason.BEHIND, EndReason.STALLED):
            log.debug("client disconnected", reason=reason.value, cursor=stream.cursor)

    def close_all(self) -> None:
        """Close all sockets, when the node shuts down."""
        for stream in list(self._sending.adopted.values()):
            self.close(stream, EndReason.DRAINED)

    async def end_all(self, last_words: Callable[[], bytes]) -> None:
        """End every stream in order; bounded by the caller."""
        for stream in list(self._sending.adopted.values()):
            stream.ends_for = EndReason.DRAINED
            self._sending.end(stream, last_words())
        while self._sending.adopted:
            for stream in list(self._sending.sendable.values()):
                self.send_next(stream)
            if self._sending.adopted and not self._sending.sendable:
                await self._wakeups.sleep_until(math.inf)
                self.notice()

    def notice(self) -> None:
        """Take in what happened to sockets since the last call."""
        for fd, hung_up in self._wakeups.reports():
            stream = self._sending.adopted.get(fd)
            if stream is None:
                continue
            if hung_up:
                self.close(stream, EndReason.GONE)
            else:
                self._sending.room_again(stream)

    async def send_to_group(self, group: Group, batch: Batch, time_slice: TimeSlice) -> None:
        """Send one batch to all members in step: the innermost loop of this server."""
        members = list(group.in_step.values())
        chunk = batch.chunk
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
                    self.close(stream, EndReason.GONE)
                    continue
                if sent_bytes < size_bytes:
                    self._sending.took(stream, chunk, sent_bytes, trio.current_time())
            await time_slice.checkpoint_if_over()
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
                DELIVERIES.inc(batch.events)
                self.send(stream, batch.chunk)
            case rest:
                self.send(stream, rest)

    def send(self, stream: AdoptedStream, data: bytes | memoryview) -> None:
        """Send a chunk, or the rest of one; close the stream if those were its last words."""
        if not stream.unsent:
            SENT.inc(len(data))  # A whole chunk: what is not taken now is not counted again.
        stream.quiet = False
        try:
            sent_bytes = stream.connection.send(data)
        except BlockingIOError:
            sent_bytes = 0
        except OSError:
            self.close(stream, EndReason.GONE)
            return
        self._sending.took(stream, data, sent_bytes, trio.current_time())
        if stream.state is State.ENDING and not stream.unsent:
            self.close(stream, stream.ends_for)
