"""Keeps what the streams of this node are, and what of them the cluster does not know yet.

Enters: streams that open and close. Leaves: batches for the log, bounded.
Never: I/O, clocks; both an opening and a closing of a stream that closed before it was announced.
"""

from collections.abc import Iterator
from typing import Final

from noti.history.subscriber import Subscriber

BATCH_SUBSCRIPTIONS_MAX: Final = 100
"""In one batch, opened and closed each: some 10 ms of each node's time, in one piece."""


class OpenSubscribers:
    """The subscribers of one node."""

    def __init__(self) -> None:
        """There are none."""
        self._by_stream: dict[int, Subscriber] = {}
        self._unannounced: dict[str, Subscriber] = {}
        self._unclosed: dict[str, int] = {}
        """Announced and closed since: how many subscriptions each has."""

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_stream)

    @property
    def any_news(self) -> bool:
        """Whether there is anything for a batch."""
        return bool(self._unannounced or self._unclosed)

    def opened(self, stream_id: int, subscriber: Subscriber) -> None:
        """Note a stream."""
        self._by_stream[stream_id] = subscriber
        self._unannounced[subscriber.id] = subscriber

    def closed(self, stream_id: int) -> None:
        """Note the end of a stream; one that is not known is passed over."""
        subscriber = self._by_stream.pop(stream_id, None)
        if subscriber is None:
            return
        if self._unannounced.pop(subscriber.id, None) is None:
            self._unclosed[subscriber.id] = len(subscriber.subscriptions)

    def next_batch(self) -> tuple[tuple[Subscriber, ...], tuple[str, ...]]:
        """Return who is to be announced, and whose end; all of it counts as announced."""
        closed = list(_some(iter(self._unclosed.items())))
        opened = list(
            _some((id_, len(one.subscriptions)) for id_, one in self._unannounced.items())
        )
        for subscriber in closed:
            del self._unclosed[subscriber]
        return tuple([self._unannounced.pop(id_) for id_ in opened]), tuple(closed)

    def announce_all_again(self) -> None:
        """Take all that is open for unannounced, and all that has ended for unknown."""
        self._unannounced = {one.id: one for one in self._by_stream.values()}
        self._unclosed.clear()


def _some(sizes: Iterator[tuple[str, int]]) -> Iterator[str]:
    """Yield the first ids, at least one, that have no more subscriptions than a batch may have."""
    total = 0
    for subscriber, size in sizes:
        total += size
        if total > size and total > BATCH_SUBSCRIPTIONS_MAX:
            return
        yield subscriber
