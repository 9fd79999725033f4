"""How fast a leader takes events in, so that every node's browsers can follow.

Enters: how full each node says that the backlog of its clients is; what passes, and when. Leaves:
whether a command may pass now, when to look again, and whom nobody waits for any longer.
Never: holds anything itself (`intake.py` does), I/O, clocks; it is advice, consensus does not
depend on it.

A backlog grows by what is committed and shrinks by what a hub sends, so it needs no more than a
rate that falls as it grows: the rate is then soon what the hub can send, whatever that is. It falls
from far more than a disk takes, with hardly anything in the backlog, to the floor, at a sixteenth
of the bound, by the same factor for each step: hubs differ by a thousand, from 3,000 clients with
small events to a few. Holding everything at some mark, and letting it go at another, made
publishers wait for seconds and then come all at once. The marks are low because what a backlog
holds is the time by which browsers are late: at a quarter of 64 MiB that would be half a minute for
1,000 clients, and publishers would get no more through.

A node may hold the others back only for so long:

- While fewer than half of the nodes that have readers can follow, the intake is theirs: it levels
  off at what the median can serve, for as long as it takes. A node alone (or any half) that is
  slower than the others has `pacing_s` of it; those without readers have no say.
- One at the floor whose backlog does not even shrink, while at least half of all nodes are at ease,
  with or without readers, cannot be helped, or lies: `pacing_s`, too.

Then its reports are disregarded for a minute, twice as long each time that it comes back no better,
and its own hub sheds whom it cannot serve. Meanwhile it still counts as one that cannot follow, so
that, when another one is overloaded as well, it is not alone. A node that always says that it is
full costs that much and no more; and while it does, at least a quarter of the rate before passes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from noti.raft.core.messages import BACKLOG_MAX, NodeId

EASY: Final = 2
"""Reports up to this slow nothing down: half a MiB of 64, as much as comes within a pass or two."""
FULL: Final = 17
"""Reports from this on mean the floor: a sixteenth of the bound."""
BYTES_PER_S_MAX: Final = 64 * 1024 * 1024
"""The rate just above `EASY`: more than a log takes, so that nothing begins with a jerk."""
FLOOR_BYTES_PER_S: Final = 32 * 1024
"""Passes always: about 100 small events a second …"""
FLOOR_INTERVAL_S: Final = 4.0
"""… and a command every 4 s, however large: before those that wait are rejected."""
BURST_S: Final = 0.02
"""What was not used for so long may pass at once: timers are not finer."""
SPARED: Final = 0.25
"""The part of the rate before that passes while a minority presses."""
REMEMBERED_S: Final = 5.0
REMEMBERED_EVERY_S: Final = 0.1
"""Over what time the rate before is taken, and how often it is reckoned."""
DISREGARDED_S: Final = 60.0
DISREGARDED_S_MAX: Final = 600.0
"""For how long a node has no say, the first time and at most: with 10 s each time that it has, it
costs a seventh of the time, then a sixtieth."""


def report_of(pressure: float, clients: int) -> int:
    """Return what a node says of a backlog with `pressure` 0.0 to 1.0 or more.

    0: it has no clients; 1: nothing waits for them; `BACKLOG_MAX`: the bound is reached.
    """
    if not clients:
        return 0
    if pressure >= 1.0:
        return BACKLOG_MAX
    return 1 + int(pressure * (BACKLOG_MAX - 1)) if pressure > 0.0 else 1


def pressure_of(report: int) -> float:
    """Return about the pressure that a report stands for."""
    return max(0, report - 1) / (BACKLOG_MAX - 1)


@dataclass(slots=True)
class _Node:
    """What is known of one node."""

    report: int = 0
    reported_at: float = -math.inf
    lowest: int = BACKLOG_MAX
    """Of its reports since it reached the floor."""
    spent_s: float = 0.0
    """For how long others were held back for it."""
    disregarded_until: float = -math.inf
    penalty_s: float = DISREGARDED_S
    """How long it is disregarded the next time."""


class Pacing:
    """One leadership's view."""

    def __init__(self, pacing_s: float, reported_within_s: float) -> None:
        """A node that has not reported for `reported_within_s` has no say."""
        self.pacing_s = pacing_s
        """How long a node alone may hold the others back; it may change."""
        self._reported_within_s = reported_within_s
        self.clear()

    def clear(self) -> None:
        """Forget everything: another leadership begins."""
        self._nodes: dict[NodeId, _Node] = {}
        self._pressing: frozenset[NodeId] = frozenset()
        """Those who have a say and are not at ease."""
        self.at_ease = True
        """Whether there is nobody like that: nothing that was reported holds anything back."""
        self._credit_bytes = 0.0
        self._credited_at = -math.inf
        self._looked_at = -math.inf
        self._passed_bytes_per_s = 0.0
        self._passed_bytes = 0
        self._passed_at = -math.inf

    # --- what comes in ----------------------------------------------------------------------------

    def reported(self, node_id: NodeId, report: int, now: float) -> None:
        """Note how full a node says that it is."""
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = _Node()
        node.report, node.reported_at = report, now
        if report > EASY or node_id in self._pressing:
            self._weigh(now)

    def lost(self, node_id: NodeId, now: float) -> None:
        """Note that a node is disconnected: until it reports again, it has no say."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.reported_at = -math.inf
            self._weigh(now)

    def passed(self, size_bytes: int, now: float) -> None:
        """Note a command that was let through."""
        if self._pressing:
            self._credit_bytes -= size_bytes
            return
        self._passed_bytes += size_bytes
        if now - self._passed_at >= REMEMBERED_EVERY_S:
            fades = math.exp(-max(0.0, now - self._passed_at) / REMEMBERED_S)
            newer = self._passed_bytes / REMEMBERED_S
            self._passed_bytes_per_s = self._passed_bytes_per_s * fades + newer
            self._passed_bytes, self._passed_at = 0, now

    # --- what goes out ----------------------------------------------------------------------------

    def look(self, now: float, *, holding: bool) -> list[NodeId]:
        """Charge the time since the last look to those who held something back in it.

        Returns who is disregarded from now on. `holding` says whether anything waits.
        """
        elapsed_s = now - self._looked_at if self._looked_at > -math.inf else 0.0
        self._looked_at = now
        given_up = [
            node_id
            for node_id in self._pressing
            if holding and self._charge(self._nodes[node_id], elapsed_s, now)
        ]
        for node_id in self._nodes.keys() - self._pressing:
            node = self._nodes[node_id]
            recovers_s = elapsed_s * self.pacing_s / DISREGARDED_S
            node.spent_s = max(0.0, node.spent_s - recovers_s)
            if node.report <= EASY and node.disregarded_until <= now:
                node.penalty_s = DISREGARDED_S
        self._weigh(now)
        return sorted(given_up)

    def may_pass(self, now: float) -> bool:
        """Whether a command may pass now."""
        return self.due_at(now) <= now

    def due_at(self, now: float) -> float:
        """When the next command may pass, if nothing is reported until then."""
        if not self._pressing:
            return now
        bytes_per_s = self._bytes_per_s(now)
        if self._credited_at > -math.inf:
            self._credit_bytes += (now - self._credited_at) * bytes_per_s
        self._credited_at = now
        # A debt is never more than the floor's interval takes to pay, whatever the rate was then.
        owed_bytes_max = bytes_per_s * FLOOR_INTERVAL_S
        self._credit_bytes = min(bytes_per_s * BURST_S, max(-owed_bytes_max, self._credit_bytes))
        return now + max(0.0, -self._credit_bytes) / bytes_per_s

    def pressures(self, now: float) -> Mapping[NodeId, float]:
        """Return what is known of each node's pressure now."""
        return {
            node_id: pressure_of(node.report)
            for node_id, node in self._nodes.items()
            if self._has_reported(node, now)
        }

    def disregarded(self, now: float) -> frozenset[NodeId]:
        """Return who has no say for a while."""
        return frozenset(n for n, node in self._nodes.items() if node.disregarded_until > now)

    def penalty_s(self, node_id: NodeId, now: float) -> float:
        """Return for how long a node has no say."""
        return max(0.0, self._nodes[node_id].disregarded_until - now)

    # --- who has a say ----------------------------------------------------------------------------

    def _has_reported(self, node: _Node, now: float) -> bool:
        return node.reported_at >= now - self._reported_within_s

    def _weigh(self, now: float) -> None:
        self._pressing = frozenset(
            node_id
            for node_id, node in self._nodes.items()
            if node.report > EASY
            and node.disregarded_until <= now
            and self._has_reported(node, now)
        )
        self.at_ease = not self._pressing
        if self.at_ease:
            self._credit_bytes, self._credited_at = 0.0, -math.inf

    def _is_minority(self, now: float, *, of_readers: bool) -> bool:
        """Whether at least half of those who have readers, or of all, can follow."""
        reports = [node.report for node in self._nodes.values() if self._has_reported(node, now)]
        if of_readers:
            reports = [report for report in reports if report]
        return 2 * sum(report > EASY for report in reports) <= len(reports)

    def _charge(self, node: _Node, elapsed_s: float, now: float) -> bool:
        """Return whether the node has used up its time."""
        if self._is_minority(now, of_readers=True):
            node.spent_s += elapsed_s
        elif node.report >= FULL and self._is_minority(now, of_readers=False):
            # As long as it shrinks, it is only on its way back from a burst.
            shrinks = node.report < node.lowest
            node.spent_s = 0.0 if shrinks else node.spent_s + elapsed_s
            node.lowest = min(node.lowest, node.report)
        else:
            node.spent_s, node.lowest = 0.0, BACKLOG_MAX
        if node.spent_s < self.pacing_s:
            return False
        node.disregarded_until = now + node.penalty_s
        node.penalty_s = min(DISREGARDED_S_MAX, 2 * node.penalty_s)
        node.spent_s, node.lowest = 0.0, BACKLOG_MAX
        return True

    def _bytes_per_s(self, now: float) -> float:
        fullest = max(self._nodes[node_id].report for node_id in self._pressing)
        share = min(1.0, (fullest - EASY) / (FULL - EASY))
        bytes_per_s = BYTES_PER_S_MAX * math.pow(FLOOR_BYTES_PER_S / BYTES_PER_S_MAX, share)
        if self._is_minority(now, of_readers=True):
            return max(bytes_per_s, SPARED * self._passed_bytes_per_s)
        return bytes_per_s
