"""Sends every notification to every client, from one task.

Enters: committed notifications, connected sockets, hang-ups. Leaves: bytes on sockets, counts.
Never: waiting in `publish` or `reset`: a client is a cursor into the feed, never a queue that could
fill.

An adopted socket is in exactly one place. It is *in step* with its audience's group, which has one
cursor for all, so a pass costs one read per audience and one `send` per member. Or it is *behind*,
with its own cursor: just arrived, or replaying. Or it is *blocked*: behind, and the kernel takes no
more bytes until epoll says so. Only whole chunks are begun, and a begun chunk is finished before
the next, so a stream can end at any await.
"""

import os
import random
import select
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import trio

from noti.notifications.notification import Notification
from noti.web import sse
from noti.web.clients import CLIENTS, CLOSED, DELIVERIES, OPENED, SENT, Client, Group, Reason
from noti.web.config import HubConfig
from noti.web.feed import Audience, Batch, Feed, FellBehind

log = structlog.get_logger("noti.web")

DEAD_PEER_MS = 30_000
"""Two heartbeats: a peer that acknowledges nothing for so long is gone (RFC 5482)."""


class Hub:
    """One node's clients and what they are to see; clients are adopted only while `run` runs."""

    def __init__(self, config: HubConfig, rng: random.Random) -> None:
        self.config = config
        self.feed = Feed(config.history_size)
        self._rng = rng
        self._groups: dict[Audience, Group] = {}
        self._clients: dict[int, Client] = {}
        self._behind: dict[int, Client] = {}
        self._blocked: dict[int, Client] = {}
        self._count = 0
        self._news = trio.lowlevel.ParkingLot()
        self._closing = False
        self._epoll: select.epoll | None = None
        self._doorbell = -1
        self._slice_ends = 0.0
        self._heartbeat_at = 0.0

    @property
    def clients(self) -> int:
        """Streams open now, on adopted sockets and on ordinary responses."""
        return self._count

    @property
    def running(self) -> bool:
        """Whether events are being sent: `run` runs and does not drain."""
        return self._epoll is not None and not self._closing

    @property
    def accepting(self) -> bool:
        """Whether another stream may be opened: the hub runs and is not full."""
        return self.running and self.clients < self.config.clients_max

    def publish(self, notifications: Sequence[Notification]) -> None:
        """Show notifications that follow the newest one. Returns at once, whatever clients do."""
        self.feed.extend(notifications)
        self._ring()

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Replace the whole history, after a snapshot; a client whose place is gone must resume."""
        self.feed.reset(notifications)
        self._ring()

    def farewell(self) -> bytes:
        """Return the last words of a stream: when to come back, different for each client."""
        return sse.retry(self._rng.randint(self.config.retry_ms_min, self.config.retry_ms_max))

    def heartbeat(self) -> bytes:
        """Return what a silent, caught-up stream gets: a comment, and a fresh cursor."""
        return sse.comment() + sse.cursor(self.feed.newest_id)

    def adopt(self, sock: socket.socket, audience: Audience, after_seq: int) -> None:
        """Take over a non-blocking socket on which a chunked response has begun, and close it in
        the end.
        """
        assert self._epoll is not None, "a hub adopts only while it runs"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.config.send_buffer_bytes)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)
        group = self.join(audience, after_seq)
        client = Client(sock, sock.fileno(), group, after_seq)
        self._clients[client.fd] = client
        self._behind[client.fd] = client
        # Edge-triggered: one report when the kernel has room again, and one at hang-up.
        events = select.EPOLLET | select.EPOLLOUT | select.EPOLLRDHUP
        self._epoll.register(client.fd, events)
        self._ring()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled or drained.

        Resource handling: closes all adopted sockets. Cancellation: streams are ended in order,
        within `drain_timeout_s`.
        """
        with self._descriptors() as epoll:
            task_status.started()
            self._heartbeat_at = trio.current_time() + self.config.heartbeat_s / 2
            try:
                while not self._closing:
                    if self._behind:
                        await trio.lowlevel.checkpoint()
                    else:
                        with trio.move_on_at(self._next_deadline()):
                            await trio.lowlevel.wait_readable(epoll.fileno())
                    self._slice_ends = trio.current_time() + self.config.slice_s
                    self._notice(epoll)
                    await self._advance_groups()
                    await self._advance_behind()
                    self._disconnect_stalled(trio.current_time())
                    if trio.current_time() >= self._heartbeat_at:
                        await self._send_heartbeats()
            finally:
                with trio.move_on_after(self.config.drain_timeout_s, shield=True):
                    self._closing = True
                    self._news.unpark_all()
                    await self._end_streams(epoll)

    def drain(self) -> None:
        """Refuse new streams and end all open ones; `run` returns within `drain_timeout_s`."""
        self._closing = True
        self._news.unpark_all()
        self._ring()

    # Waking up

    async def wait_for_news(self) -> None:
        """Return after the next change: news, another history, or the beginning of the end."""
        await self._news.park()

    def _next_deadline(self) -> float:
        """When to wake up even if nothing happens."""
        oldest = next(iter(self._blocked.values()), None)
        if oldest is None:
            return self._heartbeat_at
        return min(self._heartbeat_at, oldest.stalled_at + self.config.stall_timeout_s)

    @contextmanager
    def _descriptors(self) -> Iterator[select.epoll]:
        assert self._epoll is None, "a hub runs once at a time"
        self._closing = False
        with select.epoll() as epoll:
            self._doorbell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            try:
                epoll.register(self._doorbell, select.EPOLLIN)
                self._epoll = epoll
                yield epoll
            finally:
                for client in list(self._clients.values()):
                    self._close(client, Reason.DRAINED)
                self._epoll = None
                os.close(self._doorbell)
                self._doorbell = -1

    def _ring(self) -> None:
        """Wake the sending task and all subscriptions."""
        if self._doorbell >= 0:
            os.eventfd_write(self._doorbell, 1)
        self._news.unpark_all()

    def _notice(self, epoll: select.epoll) -> None:
        """Take in what happened to sockets since the last pass."""
        for fd, events in epoll.poll(0):
            if fd == self._doorbell:
                os.eventfd_read(fd)
            elif (client := self._clients.get(fd)) is None:
                continue
            elif events & (select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR):
                self._close(client, Reason.GONE)
            elif fd in self._blocked:
                del self._blocked[fd]
                self._behind[fd] = client

    async def _breathe(self) -> None:
        """Let the rest of the node run when this task's slice is over. A checkpoint only then."""
        if trio.current_time() >= self._slice_ends:
            await trio.lowlevel.checkpoint()
            self._slice_ends = trio.current_time() + self.config.slice_s

    # Sending

    async def _advance_groups(self) -> None:
        """Bring every group, with its members in step, to the newest notification."""
        for group in list(self._groups.values()):
            await self._breathe()
            while group.clients and (
                group.cursor < self.feed.newest_seq or not self._holds(group.cursor)
            ):
                batch = self.feed.read(group.audience, group.cursor, self.config.chunk_bytes_max)
                members = list(group.in_step.values())
                if isinstance(batch, FellBehind):
                    for client in members:
                        self._close(client, Reason.BEHIND)
                    group.cursor = self.feed.newest_seq
                    break
                group.cursor = batch.seq
                if batch.events:
                    await self._send_to_all(members, batch)

    async def _send_to_all(self, members: list[Client], batch: Batch) -> None:
        for client in members:
            self._send(client, batch)
            await self._breathe()

    async def _advance_behind(self) -> None:
        """Bring clients with their own cursor on: each by one chunk, so that none waits long."""
        for client in list(self._behind.values()):
            if client.unsent:
                self._flush(client)
            elif client.cursor == client.group.cursor:
                del self._behind[client.fd]
                client.group.in_step[client.fd] = client
            elif client.cursor < client.group.cursor or not self._holds(client.cursor):
                batch = self.feed.read(
                    client.group.audience,
                    client.cursor,
                    self.config.chunk_bytes_max,
                    through_seq=client.group.cursor,
                )
                if isinstance(batch, FellBehind):
                    self._close(client, Reason.BEHIND)
                else:
                    client.cursor = batch.seq
                    if batch.events:
                        self._send(client, batch)
            await self._breathe()

    def _holds(self, cursor: int) -> bool:
        return self.feed.oldest_seq - 1 <= cursor <= self.feed.newest_seq

    def _send(self, client: Client, batch: Batch) -> None:
        """Hand a batch to a client's socket; what the kernel does not take now follows later."""
        DELIVERIES.inc(batch.events)
        self._push(client, batch.chunk)

    def _push(self, client: Client, data: bytes) -> None:
        assert not client.unsent, "a chunk is finished before the next one is begun"
        try:
            sent_bytes = client.sock.send(data)
        except BlockingIOError:
            sent_bytes = 0
        except OSError:
            self._close(client, Reason.GONE)
            return
        SENT.inc(sent_bytes)
        client.quiet = False
        if sent_bytes < len(data):
            client.unsent = memoryview(data)[sent_bytes:]
            client.stalled_at = trio.current_time()
            if client.group.in_step.pop(client.fd, None) is not None:
                client.cursor = client.group.cursor
            self._behind[client.fd] = client

    def _flush(self, client: Client) -> None:
        """Send on what is unsent, until it is gone or the kernel takes no more."""
        try:
            while client.unsent:
                sent_bytes = client.sock.send(client.unsent)
                SENT.inc(sent_bytes)
                client.unsent = client.unsent[sent_bytes:]
                client.stalled_at = trio.current_time()
        except BlockingIOError:
            self._blocked[client.fd] = self._behind.pop(client.fd)
        except OSError:
            self._close(client, Reason.GONE)

    # Time

    def _disconnect_stalled(self, now: float) -> None:
        """Disconnect clients that took nothing for too long; they stand in the order in which they
        were blocked.
        """
        for client in list(self._blocked.values()):
            if now - client.stalled_at < self.config.stall_timeout_s:
                break
            self._close(client, Reason.STALLED)

    async def _send_heartbeats(self) -> None:
        """Send a heartbeat to all who heard nothing since the last call.

        Called twice per heartbeat time, so that no stream is silent for longer than that.
        """
        self._heartbeat_at = trio.current_time() + self.config.heartbeat_s / 2
        newest_seq, heartbeat = self.feed.newest_seq, sse.chunk(self.heartbeat())
        for group in list(self._groups.values()):
            if group.cursor != newest_seq:
                continue  # The heartbeat's cursor would skip what these have not been sent yet.
            for client in list(group.in_step.values()):
                if client.quiet:
                    self._push(client, heartbeat)
                else:
                    client.quiet = True
                await self._breathe()

    # Coming and going

    def join(self, audience: Audience, cursor: int) -> Group:
        """Count one more client of `audience`; a new group begins at `cursor`."""
        group = self._groups.get(audience)
        if group is None:
            group = self._groups[audience] = Group(audience, cursor)
        group.clients += 1
        self._count += 1
        CLIENTS.inc()
        OPENED.inc()
        return group

    def leave(self, group: Group, reason: Reason) -> None:
        """Count one client less."""
        group.clients -= 1
        if group.clients == 0:
            del self._groups[group.audience]
            self.feed.forget(group.audience)
        self._count -= 1
        CLIENTS.dec()
        CLOSED.labels(reason.value).inc()

    def _close(self, client: Client, reason: Reason) -> None:
        """Forget a client and close its socket."""
        if self._clients.pop(client.fd, None) is None:
            return
        self._behind.pop(client.fd, None)
        self._blocked.pop(client.fd, None)
        client.group.in_step.pop(client.fd, None)
        self.leave(client.group, reason)
        assert self._epoll is not None, "clients exist only while the hub runs"
        self._epoll.unregister(client.fd)
        client.sock.close()
        if reason in (Reason.BEHIND, Reason.STALLED):
            log.debug("client disconnected", reason=reason.value, cursor=client.cursor)

    async def _end_streams(self, epoll: select.epoll) -> None:
        """Say farewell to everybody, after the rest of a begun chunk; bounded by the caller."""
        for client in list(self._clients.values()):
            last_words = sse.chunk(self.farewell()) + sse.LAST_CHUNK
            if client.unsent:
                client.unsent = memoryview(bytes(client.unsent) + last_words)
            else:
                self._push(client, last_words)
                if not client.unsent:
                    self._close(client, Reason.DRAINED)
        while self._clients:
            for client in list(self._clients.values()):
                self._behind[client.fd] = client
                self._flush(client)
                if not client.unsent:
                    self._close(client, Reason.DRAINED)
            if self._clients:
                await trio.lowlevel.wait_readable(epoll.fileno())
                self._notice(epoll)
