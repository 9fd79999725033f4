"""Checks the numbers in claims: what is invalid can only be an attack, or a broken clock.

Enters: incarnations and versions in claims, the time. Leaves: why they are invalid.
Never: a decision about a member; that is `member_states`, of valid claims.

An incarnation counts only if nobody but its node raises it, and a node must always be able to
refute a claim with a higher one; the largest number of 32 bits, once accepted, could never be
refuted. Nodes of noti begin at the seconds of their clock and Serf agents at 1, and each refutation
adds one, so what is far ahead of our own clock is invalid. What was accepted at the limit is below
it a second later, so that a refutation is valid then. Refutations may be a little above
accusations, so that they are valid at once.

So clocks must agree where strangers are heard: they can make a node raise its incarnation to what
its own clock allows, and whoever's clock is behind rejects that for as long as the clocks differ,
or until the node starts again with its clock set right.
"""

from typing import Final

from noti.swim.core.messages import INCARNATION_MAX, VERSIONS

CLOCK_S_MIN: Final = 1_800_000_000
"""January 2027. Where our own clock is behind this, it is wrong, and others need not be."""

AHEAD_S_MAX: Final = 2**28
"""Eight years: no two clocks of one cluster differ so much."""

REFUTATIONS_AHEAD_MAX: Final = 2**16
"""So far above an accusation its refutation may be."""


class Incarnations:
    """The range of valid incarnations, as time goes on."""

    def __init__(self, started_with: int, now: float) -> None:
        """Begin at `now` with our own incarnation, which is our clock in seconds."""
        self._clock_at_0_s = started_with - now

    def why_invalid(self, incarnation: int, name: str, now: float, *, high: bool) -> str | None:
        """Return why an incarnation of a member is invalid, or None.

        `high` if it may be as high as a refutation: in claims that a member is alive, and in those
        against ourselves.
        """
        clock_s = max(int(self._clock_at_0_s + now), CLOCK_S_MIN)
        limit = clock_s + AHEAD_S_MAX + (REFUTATIONS_AHEAD_MAX if high else 0)
        if incarnation <= min(limit, INCARNATION_MAX - 1):
            return None
        return f"incarnation {incarnation} of {name} is more than 8 years ahead of our clock"


def why_versions_invalid(versions: bytes, name: str) -> str | None:
    """Return why a member with these versions is invalid, or None.

    A version that no node understands would make every exchange of states fail, everywhere.
    """
    for layer, low in (("protocol", 0), ("delegate", 3)):
        lowest, highest, current = versions[low : low + 3]
        _, our_highest, our_current = VERSIONS[low : low + 3]
        if not (lowest <= our_current <= highest and VERSIONS[low] <= current <= our_highest):
            return f"{name} speaks {layer} version {current} ({lowest} to {highest}), not ours"
    return None
