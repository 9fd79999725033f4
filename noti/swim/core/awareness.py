"""Scores how well this node itself does, so that it blames itself before it blames others.

Enters: what its probes, its accusers and its own clock say about it. Leaves: the score, through the
outbox too, and times that it stretches.
Never: a claim about another member.

A node whose loop is busy, or whose packets are lost, sees members fail that are well. It can tell:
the helpers that it asks send it no nack either, others accuse it, or it comes late to what it was
to do. Then it waits longer for its members' answers, up to eight times as long.

Source: Lifeguard (Dadgar, Phillips, Currey 2017), III-A (local health multiplier).
"""

from typing import Final

from noti.swim.core.events import HealthChanged
from noti.swim.core.outbox import Outbox

SCORE_MAX: Final = 7
"""memberlist's AwarenessMaxMultiplier, 8, less the 1 of a node that is well."""


class LocalHealth:
    """The score of one node: 0 is well, `SCORE_MAX` the worst."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._accused = False
        self.score = 0

    def improve(self) -> None:
        """Note that a member answered us."""
        self._accused = False
        self._add(-1)

    def worsen(self, points: int) -> None:
        """Note that something points at ourselves."""
        self._add(points)

    def on_accusation(self) -> None:
        """Note that this node had to refute; only once until a member answers: anybody accuses."""
        if not self._accused:
            self._accused = True
            self._add(1)

    def stretch(self, interval_s: float) -> float:
        """Return how long to wait for what takes `interval_s` on a node that is well."""
        return interval_s * (self.score + 1)

    def _add(self, points: int) -> None:
        score = min(max(self.score + points, 0), SCORE_MAX)
        if score != self.score:
            self.score = score
            self._outbox.emit(HealthChanged(score))


def points_of_failed_probe(nacks_expected: int, nacks_received: int) -> int:
    """Return by how much a failed probe worsens the score.

    Helpers send a nack when the target does not answer them either: those of which we get neither
    this nor an ack point at ourselves. Without helpers that do so, it could be us.
    """
    return max(0, nacks_expected - nacks_received) if nacks_expected else 1
