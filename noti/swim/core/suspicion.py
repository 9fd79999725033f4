"""Decides how long a suspected member has to refute or to answer before it is declared dead.

Enters: the cluster's size, accusers, now. Leaves: a deadline, closer with each confirmation.
Never: timers, pings; `member_states` asks for the deadlines, and pings the member.

Source: Lifeguard (Dadgar, Phillips, Currey 2017), section III-B; memberlist's constants.
"""

import math
from dataclasses import dataclass, field

from noti.swim.core.timing import SwimConfig


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
    """Confirmations after which `min_s` applies; 0 when no other member could confirm."""
    ping_at: float
    """When to ping the member (again); infinite once it has answered."""
    ping_every_s: float
    pings: int = 0
    """Sent to the member since it began."""
    accusers: set[str] = field(default_factory=set)
    """The first one accused it, the others confirmed that."""
    ends_by: float = math.inf
    """It ends at this time at the latest: a member claims that this one is dead."""
    not_before: float = -math.inf
    """It ends no sooner: what the member answered may not be read yet."""

    @classmethod
    def begin(cls, accuser: str, members: int, config: SwimConfig, now: float) -> "Suspicion":
        """Start suspecting in a cluster of `members`, ourselves included."""
        wanted = config.suspicion_multiplier - 2
        if members - 2 < wanted:
            wanted = 0
        min_s = suspicion_min_s(config.suspicion_multiplier, members, config.probe_interval_s)
        max_s = min_s * config.suspicion_max_multiplier
        every_s = config.probe_interval_s
        return cls(now, min_s, max_s, wanted, now, every_s, accusers={accuser})

    def shorten(self, ends_by: float, ping_every_s: float) -> bool:
        """End at `ends_by` at the latest, and ask more often until then; only the first time.

        Returns whether it was the first time.
        """
        if not math.isinf(self.ends_by):
            return False
        self.ends_by = ends_by
        self.ping_every_s = ping_every_s
        self.ping_at = min(self.ping_at, self.started_at + ping_every_s)
        return True

    def confirm(self, accuser: str) -> bool:
        """Count an independent accuser; return whether it was news worth passing on."""
        if accuser in self.accusers or len(self.accusers) - 1 >= self.wanted:
            return False
        self.accusers.add(accuser)
        return True

    def deadline(self) -> float:
        """Return when the member is to be declared dead, unless it refutes."""
        lasts_s = self.min_s
        if self.wanted > 0:
            confirmations = len(self.accusers) - 1
            lasts_s = remaining_s(confirmations, self.wanted, 0, self.min_s, self.max_s)
        return max(self.not_before, min(self.ends_by, self.started_at + lasts_s))
