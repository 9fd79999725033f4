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
"""

import math
import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog
import trio

from noti.notifications.notification import Notification
from noti.web import sse
from noti.web.census import Census
from noti.web.clients import DELIVERIES, NOTHING, SENT, Client, Group, Reason, Stay
from noti.web.config import HubConfig
from noti.web.feed import Audience, Batch, Feed, FellBehind
from noti.web.pace import Pace
from noti.web.wakeups import Wakeups

log = structlog.get_logger("noti.web")

DEAD_PEER_MS = 30_000
"""Two heartbeats: a peer that acknowledges nothing for so long is gone (RFC 5482)."""
LIFETIME_SPREAD = 0.1
"""Streams that began together do not end together."""
ENDING_EVERY_S = 0.05
"""How often streams are ended while many are: enough to spread them, few enough to cost nothing."""
BREATHS = 2
"""Sends between two looks at the clock: one takes 10 to 30 us."""
LOOKS = 256
"""Clients that a sweep looks at between two looks at the clock, as long as it sends nothing."""


class Hub:
    """One node's clients and what they are to see; clients are adopted only while `run` runs."""

    def __init__(self, config: HubConfig, rng: random.Random) -> None:
        self.config = config
        self.feed = Feed(config.history_size)
        self.census = Census(config.clients_max, config.clients_per_address_max)
        self._rng = rng
        self._groups: dict[Audience, Group] = {}
        self._lagging: dict[Audience, Group] = {}
        """Groups that have not been sent everything up to `_passed_seq`."""
        self._passed_seq = 0
        """Up to here, all groups that had something to get were told to the sending task."""
        self._clients: dict[int, Client] = {}
        self._behind: dict[int, Client] = {}
        self._subscriptions: set[Stay] = set()
        self._news = trio.lowlevel.ParkingLot()
        self._pace = Pace(config.slice_s)
        self._wakeups = Wakeups()
        self._heartbeat_at = 0.0
        self._sweep_at = 0.0
        self._hurry_until = 0.0
        self._drained_at = math.inf

    @property
    def clients(self) -> int:
        """Streams open now, on adopted sockets and on ordinary responses."""
        return self.census.count

    @property
    def pressure(self) -> float:
        """How full the backlog of clients that read is: 0.0 empty, 1.0 (or more) at its bound."""
        return 0.0

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
        if self._clients:
            self._wakeups.ring()
        self._news.unpark_all()

    def reset(self, notifications: Sequence[Notification]) -> None:
        """Replace the whole history, after a snapshot; a client whose place is gone must resume."""
        for group in self._groups.values():
            self._lag(group)
        self.feed.reset(notifications)
        self._ring()

    def farewell(self) -> bytes:
        """Return the last words of a stream: when to come back, different for each client."""
        return sse.retry(self._rng.randint(self.config.retry_ms_min, self.config.retry_ms_max))

    def heartbeat(self) -> bytes:
        """Return what a silent, caught-up stream gets: a comment, and a fresh cursor."""
        return sse.comment() + sse.cursor(self.feed.newest_id)

    def prepare(self, listener: socket.socket) -> None:
        """Set what adopted sockets need; they inherit it from their listener (Linux)."""
        size_bytes = self.config.send_buffer_bytes
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size_bytes)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_PEER_MS)

    def adopt(self, sock: socket.socket, audience: Audience, after_seq: int, address: str) -> None:
        """Take over a non-blocking socket on which a chunked response has begun, and close it in
        the end. Its listener was prepared.
        """
        assert self.sending, "a hub adopts only while it runs"
        group = self._enter(audience, address)
        client = Client(
            group, address, self._ends_at(), sock=sock, fd=sock.fileno(), cursor=after_seq
        )
        self._clients[client.fd] = client
        self._behind[client.fd] = client
        self._wakeups.watch(client.fd)
        self._wakeups.ring()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled or drained.

        Resource handling: closes all adopted sockets. Cancellation: streams are ended in order,
        within `drain_timeout_s`.
        """
        with self._opened():
            task_status.started()
            try:
                while not self._is_drained():
                    if self._behind:
                        await trio.lowlevel.checkpoint()
                    else:
                        await self._wakeups.sleep_until(min(self._sweep_at, self._drained_at))
                    self._pace.begin()
                    self._notice()
                    await self._advance_groups()
                    await self._advance_behind()
                    if trio.current_time() >= self._sweep_at:
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
        self._hurry_until = max(self._hurry_until, now + window_s)
        self._sweep_at = now
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
        self._heartbeat_at = trio.current_time() + self.config.heartbeat_s / 2
        self._plan_sweep()
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
                self._behind[fd] = client

    # Sending

    async def _advance_groups(self) -> None:
        """Bring every group, with its members in step, to the newest notification."""
        for audience in self.feed.stirred():
            if (group := self._groups.get(audience)) is not None:
                self._lag(group)
        self._passed_seq = self.feed.newest_seq
        for group in list(self._lagging.values()):
            await self._pace.breathe()
            await self._advance(group)

    async def _advance(self, group: Group) -> None:
        while group.clients:
            batch = self.feed.read(
                group.audience,
                group.cursor,
                self.config.chunk_bytes_max,
                through_seq=self._passed_seq,
            )
            if isinstance(batch, FellBehind):
                for client in list(group.in_step.values()):
                    self._close(client, Reason.BEHIND)
                break
            group.cursor = batch.seq
            if batch.events:
                await self._send_to_members(group, batch)
            if group.cursor >= self._passed_seq:
                break
        group.lagging = False
        self._lagging.pop(group.audience, None)

    def _lag(self, group: Group) -> None:
        """Note that something is on its way to a group."""
        if not group.lagging:
            group.cursor = self._passed_seq
            group.lagging = True
        self._lagging[group.audience] = group

    def _place(self, group: Group) -> int:
        """Return where a group's members in step are."""
        return group.cursor if group.lagging else self._passed_seq

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
        """Bring clients with their own cursor on: each by one chunk, so that none waits long."""
        for client in list(self._behind.values()):
            if client.unsent:
                self._flush(client)
            elif client.fd in self._behind:
                self._catch_up(client)
            await self._pace.breathe()

    def _catch_up(self, client: Client) -> None:
        """Send one chunk to a client that is behind its group, or let it fall into step."""
        place = self._place(client.group)
        if client.cursor < place or not self._holds(client.cursor):
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
                DELIVERIES.inc(batch.events)
                self._push(client, batch.chunk)
        if client.cursor == place and not client.unsent and client.fd in self._behind:
            del self._behind[client.fd]
            client.group.in_step[client.fd] = client

    def _holds(self, cursor: int) -> bool:
        return self.feed.oldest_seq - 1 <= cursor <= self.feed.newest_seq

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
        client.stalled_at = trio.current_time()
        if client.group.in_step.pop(client.fd, None) is not None:
            client.cursor = self._place(client.group)
        self._behind[client.fd] = client

    def _flush(self, client: Client) -> None:
        """Send on what is unsent, until it is gone or the kernel takes no more."""
        try:
            while client.unsent:
                client.unsent = client.unsent[client.sock.send(client.unsent) :]
        except BlockingIOError:
            client.blocked = True
            del self._behind[client.fd]
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
        now = trio.current_time()
        pace = Pace(self.config.work_slice_s)
        pace.begin()
        beats = now >= self._heartbeat_at
        if beats:
            self._heartbeat_at = now + self.config.heartbeat_s / 2
        newest_seq, heartbeat = self.feed.newest_seq, sse.chunk(self.heartbeat())
        for number, client in enumerate(list(self._clients.values())):
            if number % LOOKS == 0:
                await pace.breathe()
            if client.ends_at <= now:
                self._end(client)
                await pace.breathe()
            if client.unsent:
                if now - client.stalled_at >= self.config.stall_timeout_s:
                    self._close(client, Reason.STALLED)
            elif beats and client.fd in client.group.in_step:
                if not client.quiet:
                    client.quiet = True
                elif self._place(client.group) == newest_seq:
                    # To others, the heartbeat's cursor would skip what they have not been sent.
                    self._push(client, heartbeat)
                    await pace.breathe()
        self._plan_sweep()

    def _plan_sweep(self) -> None:
        now = trio.current_time()
        every_s = self.config.stall_timeout_s / 4
        if now < self._hurry_until:
            every_s = min(every_s, ENDING_EVERY_S)
        self._sweep_at = min(now + every_s, self._heartbeat_at)

    def _ends_at(self) -> float:
        """Return when a stream that begins now is to end."""
        if not self.config.lifetime_s:
            return math.inf
        spread = self._rng.uniform(1 - LIFETIME_SPREAD, 1 + LIFETIME_SPREAD)
        return trio.current_time() + self.config.lifetime_s * spread

    # Coming and going

    def join(self, audience: Audience, address: str) -> Stay:
        """Count a subscription, which reads for itself, until `leave`."""
        stay = Stay(self._enter(audience, address), address, self._ends_at())
        self._subscriptions.add(stay)
        return stay

    def leave(self, stay: Stay, reason: Reason) -> None:
        """Count a subscription no longer."""
        self._subscriptions.remove(stay)
        self._exit(stay, reason)

    def _enter(self, audience: Audience, address: str) -> Group:
        """Count one more stream of `audience`."""
        group = self._groups.get(audience)
        if group is None:
            group = self._groups[audience] = Group(audience, self._passed_seq)
            self.feed.watch(audience)
            self._lagging[audience] = group
        group.clients += 1
        self.census.enter(address)
        return group

    def _exit(self, stay: Stay, reason: Reason) -> None:
        group = stay.group
        group.clients -= 1
        if group.clients == 0:
            del self._groups[group.audience]
            self._lagging.pop(group.audience, None)
            self.feed.forget(group.audience)
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
        if self._clients.pop(client.fd, None) is None:
            return
        self._behind.pop(client.fd, None)
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
