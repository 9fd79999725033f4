"""Takes this node out of the voters for good, when its operator asks for that.

Enters: the wish of an operator, the node's own view of the cluster, time. Leaves: requests to the
leader, the tag that says so, and an answer when the cluster has agreed.
Never: decides (`voters.py` does), stops the node, changes the membership by itself.

A node that has asked stays what it is until it stops: it follows the log as a learner, serves its
browsers, and gets no seat. What it asked for is not kept on disk: after a restart it joins anew.
"""

from collections.abc import Callable
from typing import Protocol

import structlog
import trio

from noti.errors import LeaveImpossible
from noti.membership.tags import TAG_NODE_ID, name_of
from noti.membership.voters import Standing, standing
from noti.ports import Clock
from noti.raft.core.events import Status
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import Member, MemberState

log = structlog.get_logger("noti.node")

ASK_EVERY_S = 0.2
"""A request may be lost, and its leader too; a cluster that can commit agrees within a second."""
LOOK_EVERY_S = 0.05
"""Nobody announces a committed configuration."""


class Membership(Protocol):
    """The part of gossip that this room needs."""

    def members(self) -> tuple[Member, ...]:
        """Return everybody known, this node included."""


class Consensus(Protocol):
    """The part of the replica that this room needs."""

    def status(self) -> Status:
        """Return the core's state."""


class Leader(Protocol):
    """The way to the leader."""

    def request_demotion(self) -> None:
        """Ask it for a membership without this node's vote."""


class Departure:
    """One node's way out."""

    def __init__(
        self,
        node_id: NodeId,
        membership: Membership,
        consensus: Consensus,
        leader: Leader,
        show_leaving: Callable[[bool], None],
        clock: Clock,
    ) -> None:
        """Prepare; nothing is asked for before `leave`. `show_leaving` tells gossip."""
        self._node_id = node_id
        self._membership = membership
        self._consensus = consensus
        self._leader = leader
        self._show_leaving = show_leaving
        self._clock = clock
        self._leaving = False
        self._begun = trio.Event()

    async def leave(self, within_s: float) -> None:
        """Return when this node votes no more, and a majority of those who do has that on disk.

        Raises `LeaveImpossible` with the reason when it is the last voter or belongs to no cluster,
        and after `within_s` seconds; then the node goes on trying until it stops. So it does when
        this is cancelled.
        """
        deadline = self._clock.now() + within_s
        while True:
            match self._standing():
                case Standing.FREE:
                    self._set_leaving(True)  # from here on it must not get a seat
                    return
                case Standing.STRANGER:
                    raise LeaveImpossible(
                        "this node belongs to no cluster yet, so it has no seat to give up"
                    )
                case Standing.LAST:
                    self._set_leaving(False)
                    raise LeaveImpossible(
                        "this node is the last voter of its cluster, and a cluster without a voter "
                        "would be none: stop it without leaving, or add a node first"
                    )
                case Standing.VOTES:
                    self._set_leaving(True)
            if self._clock.now() >= deadline:
                obstacle = self._obstacle()
                log.warning("still a voter", within_s=within_s, reason=obstacle)
                raise LeaveImpossible(
                    f"not done within {within_s:g} s: {obstacle}; "
                    "the node goes on trying until it stops"
                )
            await self._clock.sleep_until(min(deadline, self._clock.now() + LOOK_EVERY_S))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask whoever leads, as long as it is wished and not done, until cancelled."""
        task_status.started()
        while True:
            if not self._leaving:
                self._begun = trio.Event()
                await self._begun.wait()
            if self._standing() is Standing.VOTES:
                self._leader.request_demotion()
            await self._clock.sleep_until(self._clock.now() + ASK_EVERY_S)

    def _standing(self) -> Standing:
        return standing(self._consensus.status(), self._membership.members(), self._node_id)

    def _set_leaving(self, leaving: bool) -> None:
        if leaving is not self._leaving:
            log.info("leaving the voters" if leaving else "staying a voter")
            self._leaving = leaving
            self._show_leaving(leaving)
        if leaving:
            self._begun.set()

    def _obstacle(self) -> str:
        """Say what keeps the cluster from agreeing, as far as this node can tell."""
        status, members = self._consensus.status(), self._membership.members()
        if status.leader is None:
            return "the cluster has no leader"
        voters = set(status.configuration.voters) - {self._node_id}
        away = sorted(
            member.name
            for member in members
            if member.state > MemberState.SUSPECT and member.tags.get(TAG_NODE_ID) in voters
        )
        if away:
            return f"{', '.join(away)} of the voters that would stay cannot be reached"
        leader = name_of(members, status.leader) or status.leader
        return f"the leader, {leader}, did not get it committed"
