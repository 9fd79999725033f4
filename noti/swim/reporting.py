"""Logs and counts what happens to members and what is refused, and is no louder for a flood.

Enters: refusals, complaints, changes of members. Leaves: log lines, metrics.
Never: judging anything; more than some lines a minute, whatever is sent to us.
"""

from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from noti.address import format_address
from noti.ports import Clock
from noti.swim.core.events import MemberChanged
from noti.swim.core.messages import MemberState
from noti.throttled_log import INTERVAL_S, ThrottledLog

log = structlog.get_logger("noti.swim")

CHANGES_LOGGED_MAX: Final = 1000
"""Changes of members logged within `INTERVAL_S`: a large cluster that starts, but no flood."""

REASONS: Final = (
    "backlog",
    "incarnation",
    "members",
    "name conflict",
    "other cluster",
    "part",
    "Serf message",
    "stream",
    "too many streams",
    "undecodable",
    "versions",
)
"""Why something was refused; each is counted from zero."""

_refused = Counter(
    "noti_swim_packets_refused", "Gossip packets, or parts of them, refused.", ["reason"]
)
for _reason in REASONS:
    _refused.labels(_reason)
_members = Gauge("noti_swim_members", "Members that this node knows of, by state.", ["state"])


class GossipReporter:
    """One node's voice about its gossip."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._throttled = ThrottledLog(clock.now)
        self._by_state = dict.fromkeys(MemberState, 0)
        self._changes_since = -INTERVAL_S
        self._changes = 0

    def refuse(self, reason: str, source: str, text: str) -> None:
        """Count and tell that something was refused, for one of `REASONS`."""
        self.count_refused(reason)
        self.complain("gossip refused", source, reason=text)

    def count_refused(self, reason: str) -> None:
        """Count that something was refused, for one of `REASONS`."""
        assert reason in REASONS
        _refused.labels(reason).inc()

    def complain(self, event: str, source: str, **fields: str) -> None:
        """Log a warning, throttled for each event and source."""
        self._throttled.log(log.warning, event, (event, source), source=source, **fields)

    def begin(self) -> None:
        """Count this node itself, as the first member."""
        self._by_state = dict.fromkeys(MemberState, 0) | {MemberState.ALIVE: 1}
        self._show()

    def changed(self, change: MemberChanged) -> None:
        """Count members by state, and log the change unless there are too many."""
        if change.previous is not None:
            self._by_state[change.previous] -= 1
        if not change.forgotten:
            self._by_state[change.member.state] += 1
        self._show()
        if self._is_flood():
            return
        member = change.member
        state = "forgotten" if change.forgotten else member.state.name.lower()
        warn = member.state in (MemberState.SUSPECT, MemberState.DEAD)
        (log.warning if warn else log.info)(
            "member changed"
            if member.state is change.previous and not change.forgotten
            else f"member {state}",
            name=member.name,
            address=format_address(member.address),
            incarnation=member.incarnation,
        )

    def _show(self) -> None:
        for state, count in self._by_state.items():
            _members.labels(state.name.lower()).set(count)

    def _is_flood(self) -> bool:
        now = self._clock.now()
        if now - self._changes_since >= INTERVAL_S:
            self._changes_since, self._changes = now, 0
        self._changes += 1
        if self._changes == CHANGES_LOGGED_MAX + 1:
            log.warning("members change so often that not all of it is logged")
        return self._changes > CHANGES_LOGGED_MAX
