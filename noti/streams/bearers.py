"""Finds streams by the token that opened them: to end them when it expires, or is revoked.

Only streams with a token are here; the others cost nothing.
"""

import heapq
import math
from collections.abc import Iterable

from noti.streams.end_reason import EndReason
from noti.streams.open_streams import OpenStream, Reader

SLOTS_A_SECOND = 10
"""Streams that end in the same tenth of a second are ended together: tokens expire at whole
seconds, and a stream may end earlier, never later."""
EMPTY_SLOTS_MAX = 64
"""Slots without streams that may be remembered beside as many as there are others."""


class Bearers:
    """The streams of one hub that have a token."""

    def __init__(self) -> None:
        self._by_subject: dict[str, dict[OpenStream, None]] = {}
        self._by_token: dict[str, dict[OpenStream, None]] = {}
        self._by_subscriber: dict[str, dict[OpenStream, None]] = {}
        self._slots: dict[int, dict[OpenStream, None]] = {}
        """By the time at which they end, in tenths of a second."""
        self._times: list[int] = []
        """A heap of all slots, and of some that are empty again."""

    def add(self, stream: OpenStream, reader: Reader) -> None:
        """Note whose stream begins, and that it ends with its token, if that is what ends it."""
        if stream.ends_for is EndReason.EXPIRED:
            self.end_at(stream, stream.ends_at)
        if not (reader.subject or reader.token_id or reader.subscriber is not None):
            return
        stream.bearer = reader
        for index, key in self._keys(reader):
            index.setdefault(key, {})[stream] = None

    def remove(self, stream: OpenStream) -> None:
        """Forget a stream that has ended."""
        if stream.slot is not None:
            self._leave_slot(stream)
        if stream.bearer is None:
            return
        for index, key in self._keys(stream.bearer):
            del index[key][stream]
            if not index[key]:
                del index[key]

    def of(
        self, *, subject: str | None, token_id: str | None, subscriber: str | None
    ) -> set[OpenStream]:
        """Return the streams that have all of these that are not None; none if all are None."""
        asked = (
            (self._by_subject, subject),
            (self._by_token, token_id),
            (self._by_subscriber, subscriber),
        )
        found = [index.get(key, {}).keys() for index, key in asked if key is not None]
        return set(found[0]).intersection(*found[1:]) if found else set()

    def end_at(self, stream: OpenStream, moment: float) -> None:
        """Let `due` return a stream at a moment, or a tenth of a second before."""
        if stream.slot is not None:
            self._leave_slot(stream)
        slot = stream.slot = math.floor(moment * SLOTS_A_SECOND)
        if slot not in self._slots:
            self._slots[slot] = {}
            heapq.heappush(self._times, slot)
        self._slots[slot][stream] = None

    @property
    def due_at(self) -> float:
        """When `due` will return something; never, if there is nothing."""
        while self._times and not self._slots.get(self._times[0]):
            self._slots.pop(heapq.heappop(self._times), None)
        return self._times[0] / SLOTS_A_SECOND if self._times else math.inf

    def due(self, now: float) -> list[OpenStream]:
        """Return the streams whose time is over, each once."""
        found: list[OpenStream] = []
        while self.due_at <= now:
            streams = self._slots.pop(heapq.heappop(self._times))
            for stream in streams:
                stream.slot = None
            found += streams
        return found

    def _leave_slot(self, stream: OpenStream) -> None:
        assert stream.slot is not None
        streams = self._slots[stream.slot]
        del streams[stream]
        if not streams:
            del self._slots[stream.slot]
            if len(self._times) > 2 * len(self._slots) + EMPTY_SLOTS_MAX:
                self._times = sorted(self._slots)
        stream.slot = None

    def _keys(self, reader: Reader) -> Iterable[tuple[dict[str, dict[OpenStream, None]], str]]:
        subscriber = reader.subscriber
        asked = (
            (self._by_subject, reader.subject),
            (self._by_token, reader.token_id),
            (self._by_subscriber, "" if subscriber is None else subscriber.id),
        )
        return [(index, key) for index, key in asked if key]
