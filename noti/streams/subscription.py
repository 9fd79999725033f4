"""Reads the feed for one connection that only its own task can write to (HTTP/1.0, HTTP/2, TLS).

Enters: an audience and a cursor. Leaves: bytes, one read at a time.
Never: sending; the response that asked for the bytes does that.
"""

import trio

from noti.streams.clients import DELIVERIES, SENT, Reader, Reason, Stay
from noti.streams.feed import FellBehind
from noti.streams.hub import Hub
from noti.streams.retained import NOWHERE


class Subscription:
    """A reader, counted by the hub for exactly as long as it is used as a context manager."""

    def __init__(self, hub: Hub, reader: Reader) -> None:
        self._hub = hub
        self._reader = reader
        self._reason = Reason.GONE
        self._stay: Stay | None = None

    def __enter__(self) -> "Subscription":
        self._stay = self._hub.join(self._reader)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stay is not None, "a subscription is left once"
        self._hub.leave(self._stay, self._reason)
        self._stay = None

    async def next(self) -> bytes | None:
        """Wait for the next bytes: events, or a heartbeat. None when the stream is over.

        Cancellation: nothing is lost, the next call returns it.
        """
        hub, stay = self._hub, self._stay
        assert stay is not None, "a subscription is read while it is entered"
        stay.blocked = False
        with trio.move_on_after(hub.config.heartbeat_s) as silence:
            while hub.sending:
                batch = hub.feed.read(
                    self._reader.audience, stay.cursor, hub.config.chunk_bytes_max
                )
                if isinstance(batch, FellBehind):
                    self._reason = stay.why if stay.cursor == NOWHERE else Reason.BEHIND
                    return None
                stay.cursor = batch.seq
                stay.slow = stay.blocked = bool(batch.events)
                if batch.events:
                    stay.blocked_at = trio.current_time()
                    DELIVERIES.inc(batch.events)
                    SENT.inc(len(batch.data))
                    return batch.data
                if trio.current_time() >= stay.ends_at:
                    self._reason = stay.why
                    return None
                with trio.move_on_at(stay.ends_at):
                    await hub.wait_for_news()
        if silence.cancelled_caught:
            return hub.heartbeat(stay)
        self._reason = Reason.DRAINED
        return None
