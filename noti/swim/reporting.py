"""Logs and counts changes of members, and what is rejected.

It writes some lines a minute at most, whatever is received.
"""

from typing import Final, assert_never

import structlog
from prometheus_client import Counter, Gauge

from noti.address import format_address
from noti.errors import LabelForeign, MessageInvalid, Undecryptable
from noti.ports import Clock
from noti.swim.core.events import (
    GossipRejected,
    HealthChanged,
    IdentityConflict,
    MemberChanged,
    NameConflict,
    OtherCluster,
    QueryReceived,
    RanLate,
    ReachedByStreamOnly,
    Refuted,
    Report,
    StreamOnlyChanged,
    UserEventReceived,
)
from noti.swim.core.messages import MemberState
from noti.throttled_log import INTERVAL_S, ThrottledLog

log = structlog.get_logger("noti.swim")

CHANGES_LOGGED_MAX: Final = 1000
"""Changes of members logged within `INTERVAL_S`: a large cluster that starts, but no flood."""

REASONS: Final = (
    "backlog",
    "coordinate",
    "identity",
    "incarnation",
    "label",
    "members",
    "name conflict",
    "other cluster",
    "part",
    "record",
    "Serf message",
    "stream",
    "too many streams",
    "undecodable",
    "undecryptable",
    "versions",
)
"""Why something was rejected; each is counted from zero."""

_rejected = Counter(
    "noti_swim_packets_rejected_total", "Gossip packets, or parts of them, rejected.", ["reason"]
)
for _reason in REASONS:
    _rejected.labels(_reason)
_user_events = Counter(
    "noti_swim_user_events_received_total", "User events of other members, each counted once."
)
_queries = Counter(
    "noti_swim_queries_received_total", "Queries of other members, each counted once."
)
_members = Gauge("noti_swim_members", "Members that this node knows of, by state.", ["state"])
_stream_only = Gauge(
    "noti_swim_members_tcp_only",
    "Members that answer over TCP but not over UDP: something blocks UDP between the nodes.",
)
_health = Gauge(
    "noti_swim_health_score",
    "How badly this node itself does in gossip, from 0 (well) to 7: the worse, the longer it waits "
    "for answers before it suspects a member.",
)
_late = Counter(
    "noti_swim_late_total", "Times that this node was too busy, or stopped, to gossip in time."
)


class GossipReporter:
    """Log lines and metrics about the gossip of one node."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._throttled = ThrottledLog(clock.now)
        self._throttled_debug = ThrottledLog(clock.now)
        self._by_state = dict.fromkeys(MemberState, 0)
        self._changes_since = -INTERVAL_S
        self._changes = 0

    def reject(self, reason: str, source: str, text: str) -> None:
        """Count and log that something was rejected, for one of `REASONS`."""
        self._count_rejected(reason)
        self.warn("gossip rejected", source, reason=text)

    def reject_invalid(self, error: MessageInvalid, reason: str, source: str) -> None:
        """Count and log what does not decode, under its own reason if it has one."""
        self.reject(_reason_of(error, reason), source, str(error))

    def count_invalid(self, error: MessageInvalid, reason: str) -> None:
        """Count what does not decode, as `reject_invalid` does, where it is logged otherwise."""
        self._count_rejected(_reason_of(error, reason))

    def _count_rejected(self, reason: str) -> None:
        assert reason in REASONS
        _rejected.labels(reason).inc()

    def warn(self, event: str, source: str, **fields: str) -> None:
        """Log a warning, throttled for each event and source."""
        self._throttled.log(log.warning, event, (event, source), source=source, **fields)

    def report(self, effect: Report) -> None:
        """Count and log what the core reports about peers."""
        match effect:
            case NameConflict(name, known, rejected):
                self._count_rejected("name conflict")
                self.warn(
                    "two nodes use one name: give one of them another",
                    format_address(rejected),
                    name=name,
                    known=format_address(known),
                )
            case IdentityConflict(name, address, identity, owner):
                self._count_rejected("identity")
                self.warn(
                    "a member shows the id of another node, and counts as one without",
                    format_address(address),
                    name=name,
                    id=identity,
                    known_as=owner,
                )
            case OtherCluster(name, address, cluster):
                self._count_rejected("other cluster")
                self.warn(
                    "a member of another cluster gossips with us and is ignored",
                    format_address(address),
                    name=name,
                    cluster=cluster,
                )
            case GossipRejected(reason, text):
                self.reject(reason, reason, text)
            case ReachedByStreamOnly(name, address):
                place = format_address(address)
                self.warn("member answers TCP but not UDP: is UDP blocked?", place, name=name)
            case StreamOnlyChanged(count):
                _stream_only.set(count)
            case HealthChanged(score):
                _health.set(score)
            case RanLate(late_s):
                _late.inc()
                self.warn(
                    "this node came too late to gossip, and suspects nobody for that",
                    "this node",
                    late_s=f"{late_s:.1f}",
                )
            case Refuted(accuser):
                self.warn("a member suspected this node, which refuted it", accuser)
            case UserEventReceived(name, payload_bytes):
                _user_events.inc()
                fields = {"name": name, "payload_bytes": payload_bytes}
                self._throttled_debug.log(log.debug, "user event received", "event", **fields)
            case QueryReceived(name, source_name):
                _queries.inc()
                fields = {"name": name, "node": source_name}
                self._throttled_debug.log(log.debug, "query received", "query", **fields)
            case _:
                assert_never(effect)

    def begin(self) -> None:
        """Count this node itself, as the first member."""
        self._by_state = dict.fromkeys(MemberState, 0) | {MemberState.ALIVE: 1}
        self._show()

    def report_change(self, change: MemberChanged) -> None:
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


def _reason_of(error: MessageInvalid, otherwise: str) -> str:
    """Return by which of `REASONS` something is counted."""
    match error:
        case LabelForeign():
            return "label"
        case Undecryptable():
            return "undecryptable"
        case _:
            return otherwise
