"""Reads the feed for one stream that does not own its socket.

That is HTTP/1.0 and HTTP/2: a response that asks for the bytes, or a connection that has several
streams.
"""

import math

import trio

from noti.streams.end_reason import EndReason
from noti.streams.feed import FellBehind
from noti.streams.hub import Hub
from noti.streams.metrics import DELIVERIES, SENT
from noti.streams.open_streams import OpenStream, Reader, State
from noti.streams.retained import NOWHERE

AT_ONCE = (EndReason.EXPIRED, EndReason.REVOKED)
"""Whoever may see no more is not sent what it has not got yet."""


class Subscription:
    """A reader, counted by the hub for exactly as long as it is used as a context manager."""

    def __init__(self, hub: Hub, reader: Reader) -> None:
        self._hub = hub
        self._reader = reader
        self._reason = EndReason.DISCONNECTED
        self._stream: OpenStream | None = None
        self._quiet_since = 0.0

    def __enter__(self) -> "Subscription":
        self._stream = self._hub.join(self._reader)
        self._quiet_since = trio.current_time()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stream is not None, "a subscription is left once"
        self._hub.leave(self._stream, self._reason)
        self._stream = None

    async def next(self) -> bytes | None:
        """Wait for the next bytes: events, or a heartbeat. None when the stream is over.

        Cancellation: nothing is lost, the next call returns it.
        """
        chunk_bytes_max = self._hub.config.chunk_bytes_max
        while (data := self.poll(chunk_bytes_max)) == b"":
            if self.is_behind:
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_at(self.due_at):
                await self._hub.wait_for_news()
        return data

    def poll(self, bytes_max: int) -> bytes | None:
        """Return the next bytes, none if there are none yet; None when the stream is over.

        Stops early rather than return more than `bytes_max`, as far as an event allows it.

        To be called again after the next change of the hub, at `due_at`, and at once while it
        `is_behind`.
        """
        hub, stream, now = self._hub, self._opened, trio.current_time()
        self.through()
        if not hub.sending:
            self._reason = EndReason.DRAINED
            return None
        if now >= stream.ends_at and stream.ends_for in AT_ONCE:
            self._reason = stream.ends_for
            return None
        batch = hub.feed.read(self._reader.audience, stream.cursor, bytes_max)
        if isinstance(batch, FellBehind):
            self._reason = stream.ends_for if stream.cursor == NOWHERE else EndReason.BEHIND
            return None
        stream.cursor = batch.seq
        if batch.events:
            stream.state, stream.slow, stream.blocked_at = State.BLOCKED, True, now
            self._quiet_since = now
            batch.delivered.streams += 1
            DELIVERIES.inc(batch.events)
            SENT.inc(len(batch.data))
            return batch.data
        if not self.is_behind:
            if now >= stream.ends_at:
                self._reason = stream.ends_for
                return None
            if now >= self._quiet_since + hub.config.heartbeat_s:
                self._quiet_since = now
                framing = self._reader.audience.framing
                with_cursor = stream.wants_cursors
                return hub.feed.heartbeat(framing, stream.cursor, with_cursor=with_cursor)
        return b""

    def through(self) -> None:
        """Note that the client has taken what was returned last."""
        self._opened.state, self._opened.slow = State.BEHIND, False

    @property
    def is_cut_off(self) -> bool:
        """Whether the stream is over, and not even what was begun is to be sent."""
        return trio.current_time() >= self.cut_off_at or self._opened.cursor == NOWHERE

    @property
    def cut_off_at(self) -> float:
        """When it `is_cut_off`, if that is known; infinity if not."""
        stream = self._opened
        return stream.ends_at if stream.ends_for in AT_ONCE else math.inf

    def cut_off(self) -> None:
        """Note that the stream is over for that reason."""
        self._reason = self._opened.ends_for

    def stall(self) -> None:
        """Note that the client does not take what it is sent: the stream is over."""
        self._reason = EndReason.STALLED

    @property
    def is_behind(self) -> bool:
        """Whether there is more that may be for this reader."""
        return self._opened.cursor < self._hub.feed.newest_seq

    @property
    def due_at(self) -> float:
        """When to look again, whatever happens: the stream ends, or has been silent too long."""
        quiet_until = self._quiet_since + self._hub.config.heartbeat_s
        return min(self._opened.ends_at, quiet_until)

    @property
    def _opened(self) -> OpenStream:
        assert self._stream is not None, "a subscription is read while it is entered"
        return self._stream
