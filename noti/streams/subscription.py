"""Reads the feed for one connection that only its own task can write to.

That is HTTP/1.0 or HTTP/2: the response that asks for the bytes sends them.
"""

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

    def __enter__(self) -> "Subscription":
        self._stream = self._hub.join(self._reader)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stream is not None, "a subscription is left once"
        self._hub.leave(self._stream, self._reason)
        self._stream = None

    async def next(self) -> bytes | None:
        """Wait for the next bytes: events, or a heartbeat. None when the stream is over.

        Cancellation: nothing is lost, the next call returns it.
        """
        hub, stream = self._hub, self._stream
        assert stream is not None, "a subscription is read while it is entered"
        stream.state, stream.slow = State.BEHIND, False
        with trio.move_on_after(hub.config.heartbeat_s) as silence:
            while hub.sending:
                if trio.current_time() >= stream.ends_at and stream.ends_for in AT_ONCE:
                    self._reason = stream.ends_for
                    return None
                batch = hub.feed.read(
                    self._reader.audience, stream.cursor, hub.config.chunk_bytes_max
                )
                if isinstance(batch, FellBehind):
                    self._reason = stream.ends_for if stream.cursor == NOWHERE else EndReason.BEHIND
                    return None
                stream.cursor = batch.seq
                if batch.events:
                    stream.state, stream.slow = State.BLOCKED, True
                    stream.blocked_at = trio.current_time()
                    DELIVERIES.inc(batch.events)
                    SENT.inc(len(batch.data))
                    return batch.data
                if batch.seq < hub.feed.newest_seq:
                    await trio.lowlevel.checkpoint()
                    continue
                if trio.current_time() >= stream.ends_at:
                    self._reason = stream.ends_for
                    return None
                with trio.move_on_at(stream.ends_at):
                    await hub.wait_for_news()
        if silence.cancelled_caught:
            framing = self._reader.audience.framing
            return hub.feed.heartbeat(framing, stream.cursor, with_cursor=stream.wants_cursors)
        self._reason = EndReason.DRAINED
        return None
