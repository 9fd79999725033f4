"""Counts the streams that are open, and says whether there is room for another one."""

from collections import Counter
from enum import Enum


class StreamLimit(Enum):
    """Which limit is reached."""

    NODE = "this node has as many streams as it may have"
    CLIENT = "your address has as many streams as one may have"


class StreamLimits:
    """The streams of one node."""

    def __init__(self, streams_max: int, streams_per_client_max: int) -> None:
        """`streams_per_client_max` of 0 means that clients are not told apart."""
        self._streams_max = streams_max
        self._per_client_max = streams_per_client_max
        self._by_client: Counter[str] = Counter()
        self.count = 0
        """Streams open now."""

    @property
    def counts_clients(self) -> bool:
        """Whether it matters from where a client comes."""
        return self._per_client_max > 0

    def reached(self, client_key: str) -> StreamLimit | None:
        """Return the limit for which this client gets no stream; None when it does."""
        if self.count >= self._streams_max:
            return StreamLimit.NODE
        if self._per_client_max and self._by_client[client_key] >= self._per_client_max:
            return StreamLimit.CLIENT
        return None

    def begin(self, client_key: str) -> None:
        """Count a stream."""
        self.count += 1
        if self._per_client_max:
            self._by_client[client_key] += 1

    def end(self, client_key: str) -> None:
        """Count a stream that ended."""
        self.count -= 1
        if self._per_client_max:
            self._by_client[client_key] -= 1
            if not self._by_client[client_key]:
                del self._by_client[client_key]
