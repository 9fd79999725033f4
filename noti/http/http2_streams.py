"""Sends the streams of one HTTP/2 connection: what is new on all of them leaves in one write.

Quart answers each request; what follows the head does not go its way, which costs a task, a queue
and a system call for each event of each stream. One task of the connection reads the feed for
all of its streams, within their windows of flow control (RFC 9113, 5.2). They take turns. A stream
whose window is closed keeps what it has begun, and holds up no other one.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import trio

from noti.streams.config import HubConfig
from noti.streams.hub import Hub
from noti.streams.sending import time_for
from noti.streams.sockets import TimeSlice
from noti.streams.subscription import Subscription

TURN_BYTES_MAX: Final = 256 * 1024
"""Written at once; then streams that closed or opened a window meanwhile are looked at again."""
CHUNK_BYTES_MIN: Final = 16 * 1024
"""About what one stream is sent before it is the next one's turn; where the window is wide, up to
the hub's `chunk_bytes_max`. All of a connection share its window, which is 64 KiB if the client
says nothing; with more than a frame then, one stream that has much to catch up with would leave
none of it to others, which were taken for clients that read nothing. Browsers allow megabytes, of
which 64 KiB at once cost half as much."""
TURN_BYTES_MIN: Final = 32 * 1024
"""After so much of a large event it is the next one's turn, too."""
SHARE_PARTS: Final = 8
"""Of a stream's share of that window, so much is sent at once: a stream whose window closes in the
middle costs more than it spares."""


class Http2Connection(Protocol):
    """What is asked of the connection; nothing here knows the library."""

    def window_bytes(self, stream_id: int) -> int:
        """Return how much may be sent on a stream now, at most a frame; 0 when it is closed."""

    def shared_window_bytes(self) -> int:
        """Return how much may be sent on all streams together now."""

    def put(self, stream_id: int, data: bytes, *, ends: bool = False) -> None:
        """Have data sent with the next flush, within the window; the last of a stream `ends` it."""

    async def flush(self) -> None:
        """Send what was put; returns when the socket has taken it."""

    async def reset(self, stream_id: int) -> None:
        """End a stream without its last words."""


class _Sent:
    """One stream of the connection."""

    __slots__ = ("blocked_at", "last_words", "over", "subscription", "turn_bytes", "unsent")

    def __init__(
        self, subscription: Subscription, first: bytes, last_words: Callable[[], bytes]
    ) -> None:
        self.subscription = subscription
        self.last_words = last_words
        self.unsent = memoryview(first)
        self.over = trio.Event()
        self.turn_bytes = 0
        """Sent since it is its turn, however often the window opened meanwhile."""
        self.blocked_at: float | None = None
        """Since when the window is closed, while something is unsent."""

    def stalls_at(self, config: HubConfig) -> float:
        """Return when a stream is given up that is blocked."""
        assert self.blocked_at is not None
        return self.blocked_at + time_for(
            self.unsent, config.chunk_bytes_max, config.stall_timeout_s
        )


class Http2Streams:
    """The event streams of one connection."""

    def __init__(
        self, connection: Http2Connection, spawn: Callable[[Callable[[], Awaitable[None]]], None]
    ) -> None:
        """`spawn` starts a task that is cancelled with the connection."""
        self._connection = connection
        self._spawn = spawn
        self._streams: OrderedDict[int, _Sent] = OrderedDict()
        """By id; whose turn was longest ago comes first."""
        self._work = trio.Event()
        self._running = False

    async def send(
        self,
        stream_id: int,
        subscription: Subscription,
        hub: Hub,
        first: bytes,
        last_words: Callable[[], bytes],
    ) -> None:
        """Send `first`, what a stream is to see, and its last words; return when it has ended.

        Nothing else may send on that stream: what waits in another queue would be overtaken.
        *Cancellation*: it is sent nothing more.
        """
        one = self._streams[stream_id] = _Sent(subscription, first, last_words)
        self.wake()
        if not self._running:
            self._running = True
            self._spawn(lambda: self._run(hub))
        try:
            await one.over.wait()
        finally:
            del self._streams[stream_id]

    def wake(self) -> None:
        """Look at all streams: a window has opened, or there is news."""
        self._work.set()

    async def _run(self, hub: Hub) -> None:
        """Send while there are streams."""
        time_slice = TimeSlice(hub.config.slice_s)
        try:
            with hub.listening(self.wake):
                while self._streams:
                    self._work = trio.Event()
                    time_slice.begin()
                    wakes_at = await self._turn(hub, time_slice)
                    with trio.move_on_at(wakes_at):
                        await self._work.wait()
        finally:
            self._running = False

    async def _turn(self, hub: Hub, time_slice: TimeSlice) -> float:
        """Bring each stream on by a chunk; return when to look again, whatever happens."""
        config = hub.config
        wakes_at, put_bytes = trio.current_time() + config.heartbeat_s, 0
        share_bytes = self._connection.shared_window_bytes() // max(1, len(self._streams))
        chunk_bytes = max(CHUNK_BYTES_MIN, min(share_bytes // SHARE_PARTS, config.chunk_bytes_max))
        for stream_id, one in list(self._streams.items()):
            if self._streams.get(stream_id) is not one or one.over.is_set():
                continue
            sent_bytes = await self._bring_on(stream_id, one, chunk_bytes, config)
            put_bytes += sent_bytes
            one.turn_bytes += sent_bytes
            # Who got no more than what others had left of the window is the next one.
            has_had_its_turn = one.turn_bytes >= TURN_BYTES_MIN or (sent_bytes and not one.unsent)
            if has_had_its_turn and stream_id in self._streams:
                one.turn_bytes = 0
                self._streams.move_to_end(stream_id)
            wakes_at = min(wakes_at, self._due_at(one, config))
            if put_bytes >= TURN_BYTES_MAX:
                await self._connection.flush()
                put_bytes = 0
            await time_slice.checkpoint_if_over()
        await self._connection.flush()
        return wakes_at

    async def _bring_on(
        self, stream_id: int, one: _Sent, chunk_bytes: int, config: HubConfig
    ) -> int:
        """Put a chunk of what a stream may be sent, or its rest; return how many bytes."""
        if one.unsent and one.subscription.is_cut_off:
            one.subscription.cut_off()
            await self._give_up(stream_id, one)
            return 0
        if not one.unsent:
            data = one.subscription.poll(chunk_bytes)
            if data is None:
                return self._end(stream_id, one)
            one.unsent, one.blocked_at = memoryview(data), None
        put_bytes = 0
        while one.unsent and (room_bytes := self._connection.window_bytes(stream_id)) > 0:
            part = one.unsent[:room_bytes]
            self._connection.put(stream_id, bytes(part))
            one.unsent = one.unsent[len(part) :]
            put_bytes += len(part)
        if one.unsent:
            await self._note_blocked(stream_id, one, config)
        elif put_bytes:
            one.subscription.through()
        return put_bytes

    def _end(self, stream_id: int, one: _Sent) -> int:
        """Put the last words of a stream, if there is room for them, and its end."""
        words = one.last_words()
        if len(words) > self._connection.window_bytes(stream_id):
            words = b""
        self._connection.put(stream_id, words, ends=True)
        one.over.set()
        return len(words)

    async def _note_blocked(self, stream_id: int, one: _Sent, config: HubConfig) -> None:
        """Give a stream up whose window was closed for too long before its chunk was through."""
        now = trio.current_time()
        if one.blocked_at is None:
            one.blocked_at = now
        if now >= one.stalls_at(config):
            one.subscription.stall()
            await self._give_up(stream_id, one)

    async def _give_up(self, stream_id: int, one: _Sent) -> None:
        one.unsent = memoryview(b"")
        one.over.set()
        await self._connection.reset(stream_id)

    def _due_at(self, one: _Sent, config: HubConfig) -> float:
        if one.over.is_set():
            return trio.current_time() + config.stall_timeout_s
        if one.unsent:
            if one.blocked_at is None:
                return trio.current_time()
            return min(one.stalls_at(config), one.subscription.cut_off_at)
        return trio.current_time() if one.subscription.is_behind else one.subscription.due_at
