"""Decides how long a suspected member has to object before it is declared dead.

Enters: the cluster's size, accusers, now. Leaves: a deadline, closer with each confirmation.
Never: timers; the core asks for the deadline.

Source: Lifeguard (Dadgar, Phillips, Currey 2017), section III-B; memberlist's constants.
"""

import math
from dataclasses import dataclass, field

from noti.swim.timing import SwimConfig


def suspicion_min_s(multiplier: int, members: int, probe_interval_s: float) -> float:
    """Return the shortest suspicion: grows with the logarithm of the cluster's size."""
    scale = max(1.0, math.log10(max(1, members)))
    return multiplier * math.floor(scale * 1000) / 1000 * probe_interval_s


def remaining_s(
    confirmations: int, wanted: int, elapsed_s: float, min_s: float, max_s: float
) -> float:
    """Return how long a suspicion still lasts; zero or less means that it is over.

    It starts at `max_s` and comes down to `min_s` with the logarithm of the confirmations.
    """
    fraction = math.log(confirmations + 1) / math.log(wanted + 1)
    total_s = math.floor((max_s - (max_s - min_s) * fraction) * 1000) / 1000
    return max(min_s, total_s) - elapsed_s


@dataclass(slots=True)
class Suspicion:
    """One suspicion of one member."""

    started_at: float
    min_s: float
    max_s: float
    wanted: int
    """Confirmations after which `min_s` applies; 0 when nobody else could confirm."""
    accusers: set[str] = field(default_factory=set)
    """Who said so; the first one is the accuser, the others confirm."""

    @classmethod
    def begin(cls, accuser: str, members: int, config: SwimConfig, now: float) -> "Suspicion":
        """Start suspecting in a cluster of `members`, ourselves included."""
        wanted = config.suspicion_multiplier - 2
        if members - 2 < wanted:
            wanted = 0
        min_s = suspicion_min_s(config.suspicion_multiplier, members, config.probe_interval_s)
        return cls(now, min_s, min_s * config.suspicion_max_multiplier, wanted, {accuser})

    def confirm(self, accuser: str) -> bool:
        """Count an independent accuser; return whether it was news worth passing on."""
        if accuser in self.accusers or len(self.accusers) - 1 >= self.wanted:
            return False
        self.accusers.add(accuser)
        return True

    def deadline(self) -> float:
        """Return when the member is to be declared dead, unless it objects."""
        if self.wanted == 0:
            return self.started_at + self.min_s
        confirmations = len(self.accusers) - 1
        return self.started_at + remaining_s(confirmations, self.wanted, 0, self.min_s, self.max_s)
