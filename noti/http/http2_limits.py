"""How much one HTTP/2 client may cause without asking for anything.

Requests that are reset at once (CVE-2023-44487), and those that it has us reset, cost us their
beginning; frames that only steer the connection cost an answer each. Rates and bursts are those of
nghttp2, so that no client in use meets them.

Enters: what a client sent, as events of h2, and when. Leaves: whether that is still bearable.
Never: a wait, an answer.
"""

import math
from collections.abc import Iterable
from typing import Final

from h2.events import (
    DataReceived,
    Event,
    PingReceived,
    PriorityUpdated,
    RemoteSettingsChanged,
    RequestReceived,
    StreamReset,
    UnknownFrameReceived,
)

RESETS_BURST: Final = 1000
"""Requests reset at once: a browser that leaves ten tabs has a hundred."""
RESETS_PER_S: Final = 33.0
STEERING_BURST: Final = 10_000
"""Frames at once that carry nothing: one read of 64 KiB holds up to 7,000 of them."""
STEERING_PER_S: Final = 330.0


class TokenBucket:
    """Lets so many through at once, and so many a second in the long run."""

    def __init__(self, burst: int, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = float(burst)
        self._at = -math.inf

    def take(self, number: int, now: float) -> bool:
        """Return whether there is room for so many more; they count in any case."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) - number
        self._at = now
        return self._left >= 0


class Http2Limits:
    """What one connection has caused lately."""

    def __init__(self) -> None:
        self._resets = TokenBucket(RESETS_BURST, RESETS_PER_S)
        self._steering = TokenBucket(STEERING_BURST, STEERING_PER_S)

    def bears(self, events: Iterable[Event], now: float) -> bool:
        """Return whether a client that sends this, too, may go on."""
        resets, steering = 0, 0
        for event in events:
            match event:
                case StreamReset():
                    resets += 1
                case PingReceived() | RemoteSettingsChanged() | UnknownFrameReceived():
                    steering += 1
                case PriorityUpdated():
                    steering += 1
                case RequestReceived(priority_updated=PriorityUpdated()):
                    steering -= 1  # It came with the request.
                case DataReceived(data=b"", stream_ended=None):
                    steering += 1
                case _:
                    pass
        within = self._resets.take(resets, now)
        return self._steering.take(max(0, steering), now) and within


def why_malformed(request: RequestReceived) -> str | None:
    """Return why a request cannot be passed on, if so: h2 lets through what has no meaning here."""
    fields = dict(request.headers or ())
    if not fields.get(b":path"):
        return "it names no path"  # CONNECT; browsers are not offered WebSockets over HTTP/2
    if not (fields[b":path"].isascii() and fields[b":method"].isascii()):
        return "its path or method is not ASCII"
    return None
