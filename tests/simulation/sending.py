"""How fast a simulated hub sends to the clients that read, and what waits for them meanwhile.

From the bytes that are published, it says how full the backlog is. It has no clients: those that a
run has see everything at once.
"""

import math

import trio


class Sending:
    """A backlog that grows by what is published and shrinks by what is sent."""

    def __init__(self, bytes_per_s: float = math.inf, bound_bytes: int = 2 * 1024 * 1024) -> None:
        self.bytes_per_s = bytes_per_s
        self.bound_bytes = bound_bytes
        self.readers = 0
        """Clients that read, beside those that the run has."""
        self.lies = False
        """It says that it is full, always."""
        self.peak = 0.0
        """The highest pressure that there really was."""
        self._backlog_bytes = 0.0
        self._at = 0.0

    def published(self, size_bytes: int) -> None:
        self._send()
        if self.bytes_per_s < math.inf:
            self._backlog_bytes += size_bytes
        self.peak = max(self.peak, self._backlog_bytes / self.bound_bytes)

    @property
    def pressure(self) -> float:
        """What the hub says."""
        self._send()
        return 1.0 if self.lies else self._backlog_bytes / self.bound_bytes

    def _send(self) -> None:
        now = trio.current_time()
        elapsed_s, self._at = now - self._at, now
        if self.bytes_per_s == math.inf:
            self._backlog_bytes = 0.0
        else:
            sent = elapsed_s * self.bytes_per_s
            self._backlog_bytes = max(0.0, self._backlog_bytes - sent)
