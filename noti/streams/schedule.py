"""When all streams are looked at, when silent ones get a heartbeat, and when each one ends.

Times are in seconds and come from the caller, as does randomness.
"""

import math
import random

from noti.streams.config import HubConfig

LIFETIME_SPREAD = 0.1
"""Streams that began together do not end together."""
ENDING_EVERY_S = 0.05
"""How often streams are ended while many are: enough to spread them, few enough to cost nothing."""


class Schedule:
    """One hub's times."""

    def __init__(self, config: HubConfig, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._heartbeat_at = 0.0
        self._hurry_until = 0.0
        self._swept_at = 0.0
        self.sweep_at = 0.0
        """When all clients are to be looked at."""

    def begin(self, now: float) -> None:
        """Start, with the heartbeats of the first silent streams half their time away."""
        self._heartbeat_at = now + self._config.heartbeat_s / 2
        self._swept_at = now
        self.plan(now)

    def hurry(self, now: float, until: float) -> None:
        """Look at once, and often until `until`: streams are to be ended."""
        self._hurry_until = max(self._hurry_until, until)
        self.sweep_at = now

    def sweep(self, now: float) -> tuple[bool, float]:
        """Begin to look at all clients.

        Returns whether heartbeats are considered, and how much of the time since the last look a
        client is blamed for, if it took nothing: this process may have been stopped in between.
        """
        beats = now >= self._heartbeat_at
        if beats:
            self._heartbeat_at = now + self._config.heartbeat_s / 2
        since_last_s = min(now - self._swept_at, self._config.stall_timeout_s / 4)
        self._swept_at = now
        return beats, since_last_s

    def plan(self, now: float) -> None:
        """Set the next look at all clients."""
        every_s = self._config.stall_timeout_s / 4
        if now < self._hurry_until:
            every_s = min(every_s, ENDING_EVERY_S)
        self.sweep_at = min(now + every_s, self._heartbeat_at)

    def end_of_stream(self, now: float) -> float:
        """Return when a stream that begins now is to end."""
        if not self._config.lifetime_s:
            return math.inf
        spread = self._rng.uniform(1 - LIFETIME_SPREAD, 1 + LIFETIME_SPREAD)
        return now + self._config.lifetime_s * spread
