"""Sends every notification to every client, from one task: what `sending.py` says goes to sockets.

`publish` and `reset` never wait: a client is a cursor into the feed, never a queue that could fill.
A pass looks only at the groups for whose audience something came: it costs one read for each of
them, and one `send` for each of their members.

A client is closed for being slow in two cases only, both of its own making (`backlog.py`): its
socket was full for `stall_timeout_s` before a chunk was through (a large event counts as many), or
it used up its share of the backlog. How long a socket is full is looked at several times, after
asking epoll what has changed: a hub that is late, or a process that was stopped, does not blame its
clients.
"""

import math
import random
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import trio

from noti.history.notification import Notification
from noti.live_settings import take_over
from noti.streams.backlog import Backlog
from noti.streams.config import HubConfig
from noti.streams.end_reason import EndReason
from noti.streams.feed import Feed, FellBehind
from noti.streams.metrics import CLOSED_FOR, OPENED, HubMetrics
from noti.streams.open_streams import (
    AdoptedStream,
    OpenStream,
    Reader,
    StreamLimits,
    StreamObserver,
)
from noti.streams.retained import NOWHERE
from noti.streams.schedule import Schedule
from noti.streams.sending import Sending
from noti.streams.sockets import StreamSockets, TimeSlice, Wakeups
from noti.tracing.lookup import SentEvent

CHUNKS_A_TURN = 16
"""A pass sends those in step all that is new. With one chunk a pass, a client that was behind only
once would stay so for as long as a burst lasts; more than this would let the others wait long.
"""
STREAMS_A_LOOK = 256
"""Streams that a sweep looks at between two looks at the clock, as long as it sends nothing."""
TRIMMED_AT_ONCE = 1000
"""Events that leave history in one slice: 2 ms."""
STOCK_EVERY_S = 0.02
"""How often the hub looks where all clients stand while one pass goes on."""


class News:
    """Tells tasks and others that something has changed."""

    def __init__(self) -> None:
        self._waiting = trio.lowlevel.ParkingLot()
        self.listeners: set[Callable[[], None]] = set()

    async def wait(self) -> None:
        """Return after the next change."""
        await self._waiting.park()

    def tell(self) -> None:
        """Wake all who wait, and call all listeners."""
        self._waiting.unpark_all()
        for listener in tuple(self.listeners):
            listener()


class Hub:
    """One node's clients and what they are to see; clients are adopted only while `run` runs.

    It is the `HistoryObserver` of `noti.history`, and so learns what becomes visible.
    """

    def __init__(self, config: HubConfig, rng: random.Random) -> None:
        self.config = config
        self.feed = Feed()
        self.limits = StreamLimits(config.clients_max, config.clients_per_address_max)
        self._rng = rng
        self._sending = Sending(self.feed, self.limits, config.chunk_bytes_max)
        self._backlog = Backlog(
            self.feed, self._sending, config.backlog_bytes, _reads_within_s(config)
        )
        self._news = News()
        self._slice = TimeSlice(config.slice_s)
        self._wakeups = Wakeups()
        self._took_stock = True
        """Since the last pass: nothing has changed."""
        self._schedule = Schedule(config, rng)
        self._metrics = HubMetrics(
            config, self.feed.retained, lambda: self.clients, lambda: self.pressure
        )
        self._sockets = StreamSockets(self._sending, self._wakeups, self._metrics)
        self._drained_at = math.inf
        self.passed: Callable[[int], None] = lambda _through_seq: None
        """Called at the end of each pass: streams in step have what is theirs up to this number."""
        self._trims: deque[tuple[int, Sequence[int]]] = deque()
        """What history has lost, and the feed is yet to be told."""

    @property
    def clients(self) -> int:
        """Streams open now, on adopted sockets and on ordinary responses."""
        return self.limits.count

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
        if self.limits.count:
            self._wakeups.ring()
        self._news.tell()

    def trim(self, oldest_seq: int, gone: Sequence[int] | None = None) -> None:
        """Let history's window begin at `oldest_seq`, and forget what is `gone` from history.

        None means all that was before. Clients that were open before get what they need. Much at
        once, as after a change of limits, is forgotten in slices, in the order of the calls: until
        then, one can resume from what has gone, and is told of a gap if there is one.
        """
        if gone is None or not self.sending or not (self._trims or len(gone) > TRIMMED_AT_ONCE):
            self._trim_rest()
            self._trim(oldest_seq, gone)
            return
        ordered = sorted(gone)
        for start in range(TRIMMED_AT_ONCE, len(ordered), TRIMMED_AT_ONCE):
            some = ordered[start - TRIMMED_AT_ONCE : start]
            self._trims.append((min(some[-1] + 1, oldest_seq), some))
        last = (len(ordered) - 1) // TRIMMED_AT_ONCE * TRIMMED_AT_ONCE if ordered else 0
        self._trims.append((oldest_seq, ordered[last:]))
        self._wakeups.ring()

    def _trim_rest(self) -> None:
        while self._trims:
            self._trim(*self._trims.popleft())

    def _trim(self, oldest_seq: int, gone: Sequence[int] | None) -> None:
        self.feed.trim(oldest_seq, gone)
        if not self.limits.count:
            self._backlog.free_all(trio.current_time())

    def reset(self, notifications: Sequence[Notification], oldest_seq: int | None = None) -> None:
        """Replace the whole history, after a snapshot; its window begins at `oldest_seq`.

        None means that all of it is the window. A client that has lost something must resume.
        """
        self._trims.clear()
        self._sending.groups.lag_all()
        self.feed.reset(notifications, oldest_seq)
        self._ring()

    def change(self, config: HubConfig) -> None:
        """Go by other settings from now on. Open streams end when they were to end before."""
        take_over(self.config, config)
        self.limits.change(config.clients_max, config.clients_per_address_max)
        self._backlog.bytes_max = config.backlog_bytes
        self._backlog.reads_within_s = _reads_within_s(config)
        if self.sending:
            self._metrics.show()
            self._schedule.begin(trio.current_time())
            self._wakeups.ring()

    def sent(self, seqs: Sequence[int]) -> list[SentEvent]:
        """Return to how many streams these events were handed."""
        return [SentEvent(seq, *self.feed.delivered.streams_of(seq)) for seq in seqs]

    def audience_of(self, notification: Notification) -> int:
        """Return how many streams that are open now are for an event, whatever carries them."""
        return self._sending.groups.count(self.feed.audiences_of(notification))

    def retry_ms(self) -> int:
        """Return after how many milliseconds a client is to come back, different for each."""
        least = self.config.retry_ms_min
        span = self.config.retry_ms_max - least + 1
        return least + int(self._rng.random() * span)

    def observe(self, observer: StreamObserver) -> None:
        """Tell `observer` of every stream that begins and ends; before the first one."""
        assert not self.clients, "an observer knows all streams or none"
        self._sending.observer = observer

    # Streams that begin and end

    def hold(self, reader: Reader) -> None:
        """Keep what a reader needs that is about to be adopted, or to join."""
        self._backlog.hold(reader.after_seq, trio.current_time() + self.config.held_s)

    def adopt(self, sock: socket.socket, reader: Reader) -> None:
        """Take over a non-blocking socket on which a chunked response has begun.

        The hub closes it in the end. Its listener was prepared (`sockets.prepare`).
        """
        assert self.sending, "a hub adopts only while it runs"
        self._sockets.adopt(sock, reader, self._begin(reader))

    def join(self, reader: Reader) -> OpenStream:
        """Count a subscription, which reads for itself and moves its cursor, until `leave`."""
        return self._sending.subscribe(reader, self._begin(reader))

    def leave(self, stream: OpenStream, reason: EndReason) -> None:
        """Count a subscription no longer."""
        self._sending.close(stream)
        CLOSED_FOR[reason].inc()

    def _begin(self, reader: Reader) -> float:
        """Note that one more stream begins; return when it is to end."""
        OPENED.inc()
        self._backlog.enter(reader.after_seq)
        return self._schedule.end_of_stream(trio.current_time())

    def disconnect(
        self,
        *,
        subject: str | None = None,
        token_id: str | None = None,
        subscriber: str | None = None,
    ) -> int:
        """End the streams that have all of these that are given; return how many they are.

        They end in order, within a pass of the hub; one that waits for its client is cut off.
        """
        bearers, now = self._sending.bearers, trio.current_time()
        streams = bearers.of(subject=subject, token_id=token_id, subscriber=subscriber)
        for stream in streams:
            self._end_now(stream, now)
        if streams:
            self._ring()
        return len(streams)

    def _end_now(self, stream: OpenStream, now: float) -> None:
        stream.ends_at, stream.ends_for = min(stream.ends_at, now), EndReason.REVOKED
        self._sending.bearers.end_at(stream, now)

    def drain(self) -> None:
        """Reject new streams, and end the open ones at random moments of `drain_window_s`.

        `run` returns within `drain_timeout_s` after that.
        """
        self._drained_at = trio.current_time() + self.config.drain_window_s
        self.end_within(self.config.drain_window_s, EndReason.DRAINED)

    def end_within(self, window_s: float, reason: EndReason) -> None:
        """End all streams that are open now, at random moments of `window_s` from now."""
        now = trio.current_time()
        for stream in self._sending.all():
            ends_at = now + self._rng.uniform(0, window_s)
            if ends_at < stream.ends_at:
                stream.ends_at, stream.ends_for = ends_at, reason
        self._schedule.hurry(now, now + window_s)
        self._ring()

    def abandon(self) -> None:
        """Reset the streams on adopted sockets at once, without last words: the node falls."""
        self._sockets.close_all()

    # The task

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send until cancelled or drained.

        Resource handling: closes all adopted sockets. Cancellation: streams are ended in order,
        within `drain_timeout_s`.
        """
        self._metrics.show()
        with self._opened():
            task_status.started()
            try:
                while not self._is_drained():
                    if self._sending.sendable:
                        await trio.lowlevel.checkpoint()
                    else:
                        stock_at = math.inf if self._took_stock else self._backlog.due_at()
                        ends_at = min(self._drained_at, self._sending.bearers.due_at)
                        heard_at = self._sockets.said.due_at
                        wakes_at = min(self._schedule.sweep_at, stock_at, ends_at, heard_at)
                        await self._wakeups.sleep_until(wakes_at)
                    self._slice.begin()
                    self._sockets.notice()
                    self._sockets.hear()
                    self._end_due()
                    await self._send_to_groups()
                    await self._send_to_others()
                    self._metrics.passed()
                    self.passed(self._sending.groups.passed_seq)
                    await self._free()
                    if trio.current_time() >= self._schedule.sweep_at:
                        await self._sweep()
            finally:
                with trio.move_on_after(self.config.drain_timeout_s, shield=True):
                    await self._sockets.end_all(self._last_words)

    async def wait_for_news(self) -> None:
        """Return after the next change: news, another history, or the end of some streams."""
        await self._news.wait()

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Have `listener`, which never waits, called at each change as in `wait_for_news`."""
        self._news.listeners.add(listener)
        try:
            yield
        finally:
            self._news.listeners.discard(listener)

    def _is_drained(self) -> bool:
        return self._drained_at < math.inf and (
            not self.clients or trio.current_time() >= self._drained_at
        )

    @contextmanager
    def _opened(self) -> Iterator[None]:
        self._drained_at = math.inf
        self._schedule.begin(trio.current_time())
        try:
            with self._wakeups.opened():
                try:
                    yield
                finally:
                    self._sockets.close_all()
        finally:
            self._news.tell()

    def _ring(self) -> None:
        """Wake the sending task and all subscriptions."""
        self._wakeups.ring()
        self._news.tell()

    async def _send_to_groups(self) -> None:
        """Bring every group, with its members in step, to the newest notification."""
        for group in self._sending.groups.pass_on():
            await self._slice.checkpoint_if_over()
            while (batch := self._sending.next_for_group(group)) is not None:
                if isinstance(batch, FellBehind):
                    for stream in list(group.in_step.values()):
                        self._sockets.close(stream, EndReason.BEHIND)
                elif not batch.events:
                    await self._slice.checkpoint_if_over()
                else:
                    await self._sockets.send_to_group(group, batch, self._slice)
                    self._take_stock_in_passing()

    async def _send_to_others(self) -> None:
        """Bring streams with a cursor of their own on, up to a limit.

        Each gets what its socket takes.
        """
        sendable = self._sending.sendable
        for stream in list(sendable.values()):
            for _ in range(CHUNKS_A_TURN):
                if sendable.get(stream.fd) is not stream:
                    break  # blocked, in step, or closed meanwhile
                self._sockets.send_next(stream)
                self._take_stock_in_passing()
                await self._slice.checkpoint_if_over()

    def _end_due(self) -> None:
        """End the streams whose tokens have expired, or were revoked."""
        for stream in self._sending.bearers.due(trio.current_time()):
            if not isinstance(stream, AdoptedStream):
                self._news.tell()  # its task looks at the time
            elif stream.is_blocked:
                self._sockets.close(stream, stream.ends_for)
            else:
                self._sending.end(stream, self._last_words(stream))

    # Time

    async def _sweep(self) -> None:
        """Look at every stream: is its time over, does it take what it is sent, is it silent?

        Heartbeats are considered twice per heartbeat time, so that no stream is silent for longer
        than that.
        """
        self._sockets.notice()
        now = trio.current_time()
        heartbeats, since_last_s = self._schedule.sweep(now)
        time_slice = TimeSlice(self.config.work_slice_s)
        time_slice.begin()
        timeout_s = self.config.stall_timeout_s
        for number, stream in enumerate(list(self._sending.adopted.values())):
            if number % STREAMS_A_LOOK == 0:
                await time_slice.checkpoint_if_over()
            if stream.ends_at <= now:
                self._sending.end(stream, self._last_words(stream))
            if self._sending.has_stalled(stream, since_last_s, now, timeout_s):
                self._sockets.close(stream, EndReason.STALLED)
            elif heartbeats and self._sending.needs_heartbeat(stream):
                framing = stream.group.audience.framing
                heartbeat = self.feed.heartbeat(
                    framing, stream.cursor, with_cursor=stream.wants_cursors
                )
                self._sockets.send(stream, framing.wire(heartbeat))
                await time_slice.checkpoint_if_over()
        self._schedule.plan(trio.current_time())

    def _last_words(self, stream: AdoptedStream) -> bytes:
        return stream.group.audience.framing.ending(self.retry_ms(), stream.ends_for)

    # What is kept

    async def _free(self) -> None:
        """Forget what has left history, and free what nobody needs any more."""
        while self._trims:
            self._trim(*self._trims.popleft())
            await self._slice.checkpoint_if_over()
        self._took_stock = trio.current_time() >= self._backlog.due_at()
        if self._took_stock:
            self._take_stock()
        while self._backlog.free():
            await self._slice.checkpoint_if_over()

    def _take_stock_in_passing(self) -> None:
        """Do so in the middle of a pass too: it may be a long one."""
        if trio.current_time() >= self._backlog.due_at() + STOCK_EVERY_S:
            self._sockets.notice()
            self._take_stock()
            self._end_due()
            self._backlog.free()

    def _take_stock(self) -> None:
        """Look where everybody stands, and end the streams that have used up their share."""
        began = trio.current_time()
        while overdrawn := self._backlog.take_stock(began):
            for stream, reason in overdrawn:
                if isinstance(stream, AdoptedStream):
                    self._sockets.close(stream, reason)
                else:
                    stream.cursor, stream.ends_for = NOWHERE, reason
            self._news.tell()
            self._metrics.ended_early(len(overdrawn))
        self._backlog.took_stock(began, trio.current_time())


def _reads_within_s(config: HubConfig) -> float:
    """Return after how long a blocked client is taken for one that does not read."""
    return config.stall_timeout_s / 4
