"""Reports what ails this node's consensus.

It does so in the log once when it begins and once when it ends, to probes for as long as it lasts,
and in metrics.
"""

import math
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

import structlog
from prometheus_client import Counter, Gauge

from noti.errors import StorageOutdated
from noti.ports import Clock
from noti.raft.core.events import (
    CommitStalled,
    DiskHung,
    DiskOutdated,
    MessageRejected,
    Role,
    VoterForgot,
)
from noti.raft.core.messages import NodeId
from noti.raft.core.status import Status
from noti.throttled_log import ThrottledLog

log = structlog.get_logger("noti.raft")

LEADERLESS_GRACE_S = 5.0
"""An election takes a fraction of this; without a leader for longer, browsers had better move."""
REPORT_AFTER_S = 2.0
"""A trouble that is over by then is an election, or a moment of load: no line for it."""
SEEN_FOR_S = 0.01
"""Each of thousands of clients that come in a second asks. What makes a node unhealthy takes
seconds, or is noted at once."""
LOOK_EVERY_S = 0.5
"""Prometheus looks far less often, and the core steps far more often."""

_violations = Counter(
    "noti_raft_protocol_violations_total", "Peers' messages rejected: they break a rule of Raft"
)
_elections = Counter("noti_raft_elections_total", "Elections of this node", ["outcome"])
_started, _won = _elections.labels("started"), _elections.labels("won")
_term = Gauge("noti_raft_term", "Current term")
_is_leader = Gauge("noti_raft_is_leader", "1 while this node leads")
_contact_s = Gauge(
    "noti_raft_leader_contact_seconds", "Time since the leader last spoke; 0 on the leader"
)
_nodes = Gauge(
    "noti_raft_nodes", "Nodes that the cluster consists of, by whether they vote", ["vote"]
)
_log_memory = Gauge("noti_raft_log_memory_bytes", "Log entries in memory")
_voters, _learners = _nodes.labels("yes"), _nodes.labels("no")
_match = Gauge(
    "noti_raft_match_index", "On the leader: up to where a peer has the log on disk", ["peer"]
)
_since = Gauge(
    "noti_trouble_since_seconds", "Unix time at which a trouble began; 0 without it", ["trouble"]
)

Noticed: TypeAlias = DiskHung | DiskOutdated | CommitStalled | VoterForgot | MessageRejected
"""What the core reports."""


class Kind(Enum):
    """What can ail a node that runs."""

    CLUSTER = "cluster"
    QUORUM = "quorum"
    DISK = "disk"
    BEHIND = "behind"


_TEXT = {
    Kind.CLUSTER: "this node belongs to no cluster yet: it waits for the others of "
    "--bootstrap-expect, or for a leader that takes it in",
    Kind.QUORUM: "no contact with a leader: this node is cut off, or a majority is missing",
    Kind.DISK: "the disk does not answer; this node neither leads nor votes until it does",
    Kind.BEHIND: "this node has not applied yet what the cluster has committed",
}
_ENDED = {
    Kind.CLUSTER: "this node belongs to a cluster",
    Kind.QUORUM: "in contact with a leader again",
    Kind.DISK: "the disk answers again",
    Kind.BEHIND: "this node has caught up",
}
for _kind in Kind:
    _since.labels(_kind.value)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that ails a node now."""

    kind: Kind
    for_s: float
    since_ms: int
    """Wall time: milliseconds since 1970."""

    @property
    def text(self) -> str:
        """One line for a person."""
        return _TEXT[self.kind]


class Health:
    """One node's troubles."""

    def __init__(self, clock: Clock) -> None:
        """Begin without a cluster, and not caught up."""
        self.outdated: StorageOutdated | None = None
        """What this node must end with."""
        now = clock.now()
        self._clock = clock
        self._began: dict[Kind, float] = {Kind.CLUSTER: now}
        """When each trouble began that there is now."""
        self._reported: set[Kind] = set()
        self._fresh_at = -math.inf
        self._started_at = now
        self._seen_until = -math.inf
        self.look_at = -math.inf
        """When to look again."""
        self._throttled = ThrottledLog(clock.now)
        self._followers: tuple[tuple[NodeId, int], ...] = ()

    # --- what enters ------------------------------------------------------------------------------

    def note(self, noticed: Noticed) -> None:
        """Take in what the core noticed."""
        match noticed:
            case DiskHung():
                self.look_at = self._seen_until = -math.inf  # the status says so, too
            case CommitStalled(reason):
                log.warning("elected, and nothing is committed yet", reason=reason)
            case DiskOutdated(acknowledged, holds):
                self.outdated = StorageOutdated(acknowledged, holds)
            case VoterForgot(voter, acknowledged, holds):
                log.error(
                    "a voter has forgotten what it had on disk; it is not counted until it has it "
                    "again: stop it, empty its data directory, and let it join as a new node",
                    peer=voter,
                    acknowledged=acknowledged,
                    holds=holds,
                )
            case MessageRejected(sender, reason):
                _violations.inc()
                self._throttled.log(
                    log.warning, "peer breaks the rules", sender, peer=sender, reason=reason
                )
            case _:
                assert_never(noticed)

    def role_changed(self, role: Role, term: int) -> None:
        """Count elections."""
        self.look_at = self._seen_until = -math.inf
        _term.set(term)
        _is_leader.set(role is Role.LEADER)
        if role is Role.CANDIDATE:
            _started.inc()
        elif role is Role.LEADER:
            _won.inc()

    def look(self, status: Status) -> None:
        """Take in a status; to be called at `look_at`, and may be at any time."""
        now = self._clock.now()
        fresh_at = now if status.leads_ready else status.fresh_at
        if fresh_at is not None:
            self._fresh_at = fresh_at
        belongs, led = bool(status.configuration.voters), status.leader is not None
        self._set(Kind.CLUSTER, None if belongs else now)
        self._set(Kind.QUORUM, now if belongs and not led else None)
        self._set(Kind.DISK, status.disk_hung_since)
        late = led and not self.in_touch()
        self._set(Kind.BEHIND, max(self._fresh_at, self._started_at) if late else None)
        is_healthy = self.in_touch() and status.disk_hung_since is None
        self._seen_until = now + SEEN_FOR_S if is_healthy else -math.inf
        self._report(now)
        self._set_gauges(status, now)

    # --- what leaves ------------------------------------------------------------------------------

    def in_touch(self) -> bool:
        """Whether this node has caught up since its start, and has not lost touch for long."""
        return self._clock.now() - self._fresh_at < LEADERLESS_GRACE_S

    def seen_healthy(self) -> bool:
        """Whether it was in touch, and its disk answered, at a look that was taken just now."""
        return self._clock.now() < self._seen_until

    def troubles(self) -> tuple[Trouble, ...]:
        """Return what ails this node now."""
        now, wall_ms = self._clock.now(), self._clock.wall_ms()
        return tuple(
            Trouble(kind, now - began, wall_ms - round(1000 * (now - began)))
            for kind, began in sorted(self._began.items(), key=lambda item: item[1])
        )

    # --- parts ------------------------------------------------------------------------------------

    def _set(self, kind: Kind, began: float | None) -> None:
        if began is not None:
            if kind not in self._began:
                self._began[kind] = began
                since_s = self._clock.wall_ms() / 1000 - (self._clock.now() - began)
                _since.labels(kind.value).set(since_s)
        elif kind in self._began:
            lasted_s = self._clock.now() - self._began.pop(kind)
            _since.labels(kind.value).set(0)
            if kind in self._reported:
                self._reported.discard(kind)
                log.info(_ENDED[kind], after_s=round(lasted_s, 1))

    def _report(self, now: float) -> None:
        self.look_at = now + LOOK_EVERY_S
        for kind, began in self._began.items():
            if kind in self._reported:
                continue
            report_at = began + _patience_s(kind)
            if now >= report_at:
                self._reported.add(kind)
                log.warning(_TEXT[kind], for_s=round(now - began, 1))
            else:
                self.look_at = min(self.look_at, report_at)

    def _set_gauges(self, status: Status, now: float) -> None:
        leads = status.role is Role.LEADER
        configuration = status.configuration
        _voters.set(len(configuration.voters))
        _learners.set(len(configuration.learners))
        _log_memory.set(status.log_memory_bytes)
        _contact_s.set(0.0 if leads else now - status.last_contact_at)
        if status.followers == self._followers:
            return
        for gone in dict(self._followers).keys() - dict(status.followers):
            _match.remove(gone)
        self._followers = status.followers
        for peer, index in status.followers:
            _match.labels(peer).set(index)


def _patience_s(kind: Kind) -> float:
    return 0.0 if kind is Kind.DISK else REPORT_AFTER_S
