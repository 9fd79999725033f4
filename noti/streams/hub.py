"""Sends every notification to every client, from one task.

Enters: committed notifications, connected sockets, hang-ups. Leaves: bytes on sockets, counts.
Never: waiting in `publish` or `reset`: a client is a cursor into the feed, never a queue that could
fill.

A pass looks only at the groups for whose audience something came: it costs one read for each of
them, and one `send` for each of their members.

An adopted socket is in exactly one place. It is *in step* with its audience's group, which has one
cursor for all. Or it is *behind*, with its own cursor: just arrived, or replaying. Or it is
*blocked*: behind, and the kernel takes no more bytes until epoll says so. Only whole chunks are
begun, and a begun chunk is finished before the next, so a stream can end at any await.

A client is closed for being slow in two cases only, both of its own making (`backlog.py`): its
socket was full for `stall_timeout_s` before a chunk was through, or it used up its share of the
backlog. How long a socket is full is looked at several times, after asking epoll what has changed:
a hub that is late, or a process that was stopped, does not blame its clients.
"""

import math
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import trio

from noti.history.notification import Notification
from noti.streams import sse
from noti.streams.backlog import Apart, Backlog
from noti.streams.clients import DELIVERIES, NOTHING, SENT, Client, Group, Reader, Reason, Stay
from noti.streams.config import HubConfig
from noti.streams.epoll import Wakeups
from noti.streams.feed import Batch, Feed, FellBehind
from noti.streams.groups import Groups
from noti.streams.limits import Census
from noti.streams.metrics import Measures
from noti.streams.retained import NOWHERE
from noti.streams.schedule import Timetable
from noti.streams.time_slice import Pace

log = structlog.get_logger("noti.streams")

DEAD_PEER_MS = 30_000
"""Two heartbeats: a peer that acknowledges nothing for so long is gone (RFC 5482)."""
BREATHS = 2
"""Sends between two looks at the clock: one takes 10 to 30 us."""
CHUNKS_A_TURN = 16
"""A pass sends those in step all that is new. With one chunk a pass, a client that was behind only
once would stay so for as long as a burst lasts; more than this would let the others wait long.
"""
LOOKS = 256
"""Clients that a sweep looks at between two looks at the clock, as long as it sends nothing."""
STOCK_EVERY_S = 0.02
"""How often the hub looks where all clients stand while one pass goes on."""


class Hub:
    """One node's clients and what they are to see; clients are adopted only while `run` runs."""

    def __init__(self, config: HubConfig, rng: random.Random) -> None:
        self.config = config
        self.feed = Feed()
        self.census = Census(config.clients_max, config.clients_per_address_max)
        self._rng = rng
        self._groups = Groups(self.feed)
        self._clients: dict[int, Client] = {}
        self._behind: dict[int, Client] = {}
        self._blocked: dict[int, Client] = {}
        self._subscriptions: set[Stay] = set()
        apart = Apart(self._behind, self._blocked, self._subscriptions)
        self._backlog = Backlog(self.feed, self._groups, apart, config.backlog_bytes)
        self._news = trio.lowlevel.ParkingLot()
        self._pace = Pace(config.slice_s)
        self._wakeups = Wakeups()
        self._took_stock = True
        """Since the last pass: nothing has changed."""
        self._times = Timetable(config, rng)
        self._measures = Measures(config, self.feed.retained, lambda: self.pressure)
        self._drained_at = math.inf

    @property
    def clients(self) -> int:
        """Streams open now, on adopted sockets and on ordinary responses."""
        return self.census.count

    @property
    def pressure(self) -> float:
        """How full the backlog of clients that read is: 0.0 empty, 1.0 (or more) at its bound."""
        return self._backlog.pressure

    @property
    def sending(self) -> bool:
        """Whether events are being sent: `run` runs."""
        return self._wakeups.is_open

    @property
    def running(self) -> bool:
        """Whether another stream may begin: `run` runs and does not drain."""
        return self.sending and self._drained_at == math.inf

    def publish(self, notifications: Sequence[Notification]) -> None:
        """Show notifications that follow the newest one. Returns at once, whatever clients do."""
        self.feed.extend(notifications)
        if self.clients:
            self._wakeups.ring()
        self._news.unpark_all()

    def trim(self, oldest_seq: int) -> None:
        """Let history begin at `oldest_seq`; clients that were open before get what they need."""
        self.feed.trim(oldest_seq)
        if not self.clients:
            self._backlog.free_all(trio.current_time())

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Replace the whole history, after a snapshot; a client whose place is gone must resume."""
        self._groups.lag_all()
        self.feed.reset(notifications)
        self._ring()

    def farewell(self) -> bytes:
        """Return the last words of a stream: when to come back, different for each client."""
        return sse.retry(self._rng.randint(self.config.retry_ms_min, self.config.retry_ms_max))

    def heartbeat(self, stay: Stay) -> bytes:
        """Return what a silent stream gets: a comment, and a fresh cursor if it wants one and has
        all that is here.
        """
        if stay.wants_cursors and stay.cursor == self.feed.newest_seq:
            return sse.HEARTBEAT + sse.cursor(self.feed.retained.newest_cursor)
        return sse.HEARTBEAT

    def prepare(self, listener: socket.socket) -> None:
        """Set what adopted sockets need; they inherit it from their listener (Linux)."""
        size_bytes = self.config.send_buffer_bytes
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)

    def hold(self, reader: Reader) -> None:
        """Keep the place of a reader that is about to be adopted, or to join."""
        self._backlog.hold(reader.after_seq, trio.current_time() + self.config.held_s)

    def adopt(self, sock: socket.socket, reader: Reader) -> None:
        """Take over a non-blocking socket on which a chunked response has begun, and close it in
        the end. Its listener was prepared.
        """
        assert self.sending, "a hub adopts only while it runs"
        client = Client(*self._enter(reader), sock=sock, fd=sock.fileno())
        self._clients[client.fd] = client
        self._behind[client.fd] = client
        self._wakeups.watch(client.fd)
        self._wakeups.ring()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled or drained.

        Resource handling: closes all adopted sockets. Cancellation: streams are ended in order,
        within `drain_timeout_s`.
        """
        self._measures.show()
        with self._opened():
            task_status.started()
            try:
                while not self._is_drained():
                    if self._behind:
                        await trio.lowlevel.checkpoint()
                    else:
                        await self._wakeups.sleep_until(self._wakes_at())
                    self._pace.begin()
                    self._notice()
                    await self._advance_groups()
                    await self._advance_behind()
                    self._measures.passed()
                    await self._free()
                    if trio.current_time() >= self._times.sweep_at:
                        await self._sweep()
            finally:
                with trio.move_on_after(self.config.drain_timeout_s, shield=True):
                    await self._end_all()

    def drain(self) -> None:
        """Refuse new streams and end the open ones at random moments of `drain_window_s`; `run`
        returns within `drain_timeout_s` after that.
        """
        self._drained_at = trio.current_time() + self.config.drain_window_s
        self.end_within(self.config.drain_window_s, Reason.DRAINED)

    def end_within(self, window_s: float, why: Reason) -> None:
        """End all streams that are open now, at random moments of `window_s` from now."""
        now = trio.current_time()
        for stay in (*self._clients.values(), *self._subscriptions):
            stay.ends_at = min(stay.ends_at, now + self._rng.uniform(0, window_s))
            stay.why = why
        self._times.hurry(now, now + window_s)
        self._ring()

    # Waking up

    async def wait_for_news(self) -> None:
        """Return after the next change: news, another history, or the end of some streams."""
        await self._news.park()

    def _is_drained(self) -> bool:
        return self._drained_at < math.inf and (
            not self.clients or trio.current_time() >= self._drained_at
        )

    @contextmanager
    def _opened(self) -> Iterator[None]:
        self._drained_at = math.inf
        self._times.begin(trio.current_time())
        try:
            with self._wakeups.opened():
                try:
                    yield
                finally:
                    for client in list(self._clients.values()):
                        self._close(client, Reason.DRAINED)
        finally:
            self._news.unpark_all()

    def _ring(self) -> None:
        """Wake the sending task and all subscriptions."""
        self._wakeups.ring()
        self._news.unpark_all()

    def _notice(self) -> None:
        """Take in what happened to sockets since the last pass."""
        for fd, hung_up in self._wakeups.reports():
            client = self._clients.get(fd)
            if client is None:
                continue
            if hung_up:
                self._close(client, Reason.GONE)
            elif client.blocked:
                client.blocked = False
                self._behind[fd] = self._blocked.pop(fd)

    # Sending

    async def _advance_groups(self) -> None:
        """Bring every group, with its members in step, to the newest notification."""
        for group in self._groups.pass_on():
            await self._pace.breathe()
            await self._advance(group)

    async def _advance(self, group: Group) -> None:
        while group.in_step:
            batch = self.feed.read(
                group.audience,
                group.cursor,
                self.config.chunk_bytes_max,
                through_seq=self._groups.passed_seq,
            )
            if isinstance(batch, FellBehind):
                for client in list(group.in_step.values()):
                    self._close(client, Reason.BEHIND)
                break
            group.cursor = batch.seq
            if batch.events:
                self._measures.sends(batch.created_ms)
                await self._send_to_members(group, batch)
            if group.cursor >= self._groups.passed_seq:
                break
            self._take_stock_in_passing()
        self._groups.settle(group)

    async def _send_to_members(self, group: Group, batch: Batch) -> None:
        """Hand one batch to all members in step: the innermost loop of this server."""
        members = list(group.in_step.values())
        chunk = batch.chunk
        size_bytes = len(chunk)
        for start in range(0, len(members), BREATHS):
            for client in members[start : start + BREATHS]:
                client.quiet = False
                try:
                    sent_bytes = client.sock.send(chunk)
                except BlockingIOError:
                    sent_bytes = 0
                except OSError:
                    self._close(client, Reason.GONE)
                    continue
                if sent_bytes < size_bytes:
                    self._keep(client, memoryview(chunk)[sent_bytes:])
            await self._pace.breathe()
        DELIVERIES.inc(len(members) * batch.events)
        SENT.inc(len(members) * size_bytes)

    async def _advance_behind(self) -> None:
        """Bring clients with their own cursor on, each by what its socket takes, up to a limit."""
        for client in list(self._behind.values()):
            for _ in range(CHUNKS_A_TURN):
                if self._behind.get(client.fd) is not client:
                    break  # blocked, in step, or closed meanwhile
                if client.unsent:
                    self._flush(client)
                else:
                    self._catch_up(client)
                self._take_stock_in_passing()
                await self._pace.breathe()

    def _catch_up(self, client: Client) -> None:
        """Send one chunk to a client that is behind its group, or let it fall into step."""
        place = self._groups.place(client.group)
        if client.cursor < place or not self.feed.holds(client.cursor):
            batch = self.feed.read(
                client.group.audience,
                client.cursor,
                self.config.chunk_bytes_max,
                through_seq=place,
            )
            if isinstance(batch, FellBehind):
                self._close(client, Reason.BEHIND)
                return
            client.cursor = batch.seq
            if batch.events:
                if client.live:
                    self._measures.sends(batch.created_ms)
                DELIVERIES.inc(batch.events)
                self._push(client, batch.chunk)
        if client.cursor == place and not client.unsent and client.fd in self._behind:
            del self._behind[client.fd]
            client.slow, client.live = False, True
            client.group.in_step[client.fd] = client

    def _push(self, client: Client, data: bytes) -> None:
        """Begin a chunk; what the kernel does not take now follows later."""
        assert not client.unsent, "a chunk is finished before the next one is begun"
        client.quiet = False
        try:
            sent_bytes = client.sock.send(data)
        except BlockingIOError:
            sent_bytes = 0
        except OSError:
            self._close(client, Reason.GONE)
            return
        SENT.inc(len(data))
        if sent_bytes < len(data):
            self._keep(client, memoryview(data)[sent_bytes:])

    def _keep(self, client: Client, unsent: memoryview) -> None:
        """Remember what the kernel did not take of a chunk; the client is not in step any more."""
        client.unsent = unsent
        client.waited_s = 0.0
        if client.group.in_step.pop(client.fd, None) is not None:
            client.cursor = self._groups.place(client.group)
        self._behind[client.fd] = client

    def _flush(self, client: Client) -> None:
        """Send on what is unsent, until it is gone or the kernel takes no more."""
        try:
            while client.unsent:
                client.unsent = client.unsent[client.sock.send(client.unsent) :]
        except BlockingIOError:
            client.blocked = client.slow = True
            client.blocked_at = trio.current_time()
            self._blocked[client.fd] = self._behind.pop(client.fd)
        except OSError:
            self._close(client, Reason.GONE)
        else:
            client.unsent = NOTHING
            if client.ending:
                self._close(client, client.why)

    # Time

    async def _sweep(self) -> None:
        """Look at every client: is its time over, does it take what it is sent, is it silent?

        Heartbeats are considered twice per heartbeat time, so that no stream is silent for longer
        than that.
        """
        self._notice()
        now = trio.current_time()
        beats, since_last_s = self._times.sweep(now)
        pace = Pace(self.config.work_slice_s)
        pace.begin()
        for number, client in enumerate(list(self._clients.values())):
            if number % LOOKS == 0:
                await pace.breathe()
            if client.ends_at <= now:
                self._end(client)
                await pace.breathe()
            if client.blocked:
                client.waited_s += min(since_last_s, now - client.blocked_at)
                if client.waited_s >= self.config.stall_timeout_s:
                    self._close(client, Reason.STALLED)
            elif beats and client.group.in_step.get(client.fd) is client:
                if not client.quiet:
                    client.quiet = True
                else:
                    client.cursor = self._groups.place(client.group)
                    self._push(client, sse.chunk(self.heartbeat(client)))
                    await pace.breathe()
        self._times.plan(trio.current_time())

    # What is kept

    def _wakes_at(self) -> float:
        stock_at = math.inf if self._took_stock else self._backlog.due_at()
        return min(self._times.sweep_at, self._drained_at, stock_at)

    async def _free(self) -> None:
        """Free what nobody needs any more."""
        self._took_stock = trio.current_time() >= self._backlog.due_at()
        if self._took_stock:
            self._take_stock()
        while self._backlog.free():
            await self._pace.breathe()

    def _take_stock_in_passing(self) -> None:
        """Do so in the middle of a pass too: it may be a long one."""
        if trio.current_time() >= self._backlog.due_at() + STOCK_EVERY_S:
            self._notice()
            self._take_stock()
            self._backlog.free()

    def _take_stock(self) -> None:
        """Look where everybody stands, and let go who has used up its share."""
        began = trio.current_time()
        reads_since = began - self.config.stall_timeout_s / 4
        self._backlog.take_stock(self.clients, reads_since, began)
        if gone := self._backlog.overdrawn():
            for stay in gone:
                why = Reason.BEHIND if stay.slow else Reason.OVERRUN
                if isinstance(stay, Client):
                    self._close(stay, why)
                else:
                    stay.cursor, stay.why = NOWHERE, why
            self._news.unpark_all()
            self._measures.let_go(len(gone))
            self._backlog.take_stock(self.clients, reads_since, began)
        self._backlog.took_stock(began, trio.current_time())

    # Coming and going

    def join(self, reader: Reader) -> Stay:
        """Count a subscription, which reads for itself and moves its cursor, until `leave`."""
        stay = Stay(*self._enter(reader))
        self._subscriptions.add(stay)
        return stay

    def leave(self, stay: Stay, reason: Reason) -> None:
        """Count a subscription no longer."""
        self._subscriptions.remove(stay)
        self._exit(stay, reason)

    def _enter(self, reader: Reader) -> tuple[Group, str, float, int, bool]:
        """Count one more stream; return what a `Stay` begins with."""
        self.census.enter(reader.address)
        self._backlog.enter(reader.after_seq)
        group = self._groups.enter(reader.audience)
        ends_at = self._times.end_of_stream(trio.current_time())
        return group, reader.address, ends_at, reader.after_seq, reader.wants_cursors

    def _exit(self, stay: Stay, reason: Reason) -> None:
        self._groups.leave(stay.group)
        self.census.leave(stay.address, reason)

    def _end(self, client: Client) -> None:
        """Say farewell, after the rest of a begun chunk; the socket is closed when that is sent."""
        if client.ending:
            return
        client.ending = True
        last_words = sse.chunk(self.farewell()) + sse.LAST_CHUNK
        if client.unsent:
            client.unsent = memoryview(bytes(client.unsent) + last_words)
            return
        self._push(client, last_words)
        if not client.unsent:
            self._close(client, client.why)

    def _close(self, client: Client, reason: Reason) -> None:
        """Forget a client and close its socket."""
        if self._clients.get(client.fd) is not client:
            return  # It is closed already, and the number may be another's.
        del self._clients[client.fd]
        self._behind.pop(client.fd, None)
        self._blocked.pop(client.fd, None)
        client.group.in_step.pop(client.fd, None)
        self._exit(client, reason)
        self._wakeups.forget(client.fd)
        client.sock.close()
        if reason in (Reason.BEHIND, Reason.STALLED):
            log.debug("client disconnected", reason=reason.value, cursor=client.cursor)

    async def _end_all(self) -> None:
        """End every adopted stream; bounded by the caller."""
        for client in list(self._clients.values()):
            client.why = Reason.DRAINED
            self._end(client)
        while self._clients:
            for client in list(self._behind.values()):
                self._flush(client)
            if self._clients and not self._behind:
                await self._wakeups.sleep_until(math.inf)
                self._notice()
