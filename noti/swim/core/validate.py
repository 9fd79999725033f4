"""Tells what may be true from what can only be an attack, or a broken clock.

Enters: incarnations and versions that somebody claims, the time. Leaves: why they are refused.
Never: judging a member; that is `member_states`, of what gets past here.

An incarnation counts only if nobody but its node raises it, and a node must always be able to go
above what is said about it; the largest number of 32 bits, once believed, could never be objected
to. Nodes of noti begin at the seconds of their clock and Serf agents at 1, and each objection adds
one, so what is far ahead of our own clock is refused. What was believed at the limit is below it a
second later, so that an objection passes then. Objections may be a little above accusations, so
that those pass at once.
"""

from typing import Final

from noti.swim.core.messages import INCARNATION_MAX, VERSIONS

CLOCK_S_MIN: Final = 1_800_000_000
"""January 2027. Where our own clock is behind this, it is wrong, and others need not be."""

AHEAD_S_MAX: Final = 2**28
"""Eight years: no two clocks of one cluster differ so much."""

OBJECTIONS: Final = 2**16
"""So far above an accusation an objection to it may be."""


class Incarnations:
    """The incarnations that can be true, as time goes on."""

    def __init__(self, started_with: int, now: float) -> None:
        """Begin at `now` with our own incarnation, which is our clock in seconds."""
        self._clock_at_0_s = started_with - now

    def refused(self, incarnation: int, name: str, now: float, *, alive: bool) -> str | None:
        """Return why an incarnation of a member can not be true, or None."""
        clock_s = max(int(self._clock_at_0_s + now), CLOCK_S_MIN)
        limit = clock_s + AHEAD_S_MAX + (OBJECTIONS if alive else 0)
        if incarnation <= min(limit, INCARNATION_MAX - 1):
            return None
        return f"incarnation {incarnation} of {name} is more than 8 years ahead of our clock"


def versions_refused(versions: bytes, name: str) -> str | None:
    """Return why a member that speaks these versions can be none of ours, or None.

    One that nobody understands would make every exchange of states fail, everywhere.
    """
    for layer, low in (("protocol", 0), ("delegate", 3)):
        lowest, highest, current = versions[low : low + 3]
        _, our_highest, our_current = VERSIONS[low : low + 3]
        if not (lowest <= our_current <= highest and VERSIONS[low] <= current <= our_highest):
            return f"{name} speaks {layer} version {current} ({lowest} to {highest}), not ours"
    return None
