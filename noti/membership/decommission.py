"""Decommissions this node when its operator asks for that: it stops voting, permanently.

The node asks the leader to be demoted and shows that in gossip, until the cluster has agreed or the
node stops; whether and when it is demoted, `voters.py` decides on the leader. It stays what it is
until it stops: a learner that follows the log, serves its browsers and is not promoted. The request
is not kept on disk: after a restart the node joins anew.
"""

from collections.abc import Callable

import structlog
import trio

from noti.errors import DecommissionRejected
from noti.membership.ports import DemotionRequester, MemberList, RaftStatus
from noti.membership.tags import TAG_NODE_ID, name_of
from noti.membership.voters import VoterState, live_voters, voter_state
from noti.ports import Clock
from noti.raft.core.messages import NodeId
from noti.swim.core.messages import MemberState

log = structlog.get_logger("noti.node")

ASK_EVERY_S = 0.2
"""A request may be lost, and the leader too; a cluster that can commit agrees within a second."""
LOOK_EVERY_S = 0.05
"""A committed configuration is not reported, so it is looked for."""


class Decommission:
    """Takes one node out of the voters."""

    def __init__(
        self,
        node_id: NodeId,
        gossip: MemberList,
        raft: RaftStatus,
        leader: DemotionRequester,
        show_leaving: Callable[[bool], None],
        clock: Clock,
    ) -> None:
        """Prepare; nothing is asked for before `leave`. `show_leaving` shows it in gossip."""
        self._node_id = node_id
        self._gossip = gossip
        self._raft = raft
        self._leader = leader
        self._show_leaving = show_leaving
        self._clock = clock
        self._leaving = False
        self._requested = trio.Event()

    async def leave(self, within_s: float) -> None:
        """Return when this node does not vote, and a majority of the voters has that on disk.

        Raises `DecommissionRejected` with the reason when it is the last voter or belongs to no
        cluster, and after `within_s` seconds; then the node goes on trying until it stops. So it
        does when this is cancelled.
        """
        deadline = self._clock.now() + within_s
        while True:
            match self._state():
                case VoterState.NO_VOTER:
                    self._set_leaving(True)  # from here on it must not be promoted
                    return
                case VoterState.NO_CLUSTER:
                    raise DecommissionRejected(
                        "this node belongs to no cluster yet, so it is no voter"
                    )
                case VoterState.LAST_VOTER:
                    self._set_leaving(False)
                    raise DecommissionRejected(
                        "this node is the last voter of its cluster, and a cluster without a voter "
                        "would be none: stop it without leaving, or add a node first"
                    )
                case VoterState.VOTER:
                    self._set_leaving(True)
            if self._clock.now() >= deadline:
                obstacle = self._obstacle()
                log.warning("still a voter", within_s=within_s, reason=obstacle)
                raise DecommissionRejected(
                    f"not done within {within_s:g} s: {obstacle}; "
                    "the node goes on trying until it stops"
                )
            await self._clock.sleep_until(min(deadline, self._clock.now() + LOOK_EVERY_S))

    def live_voters(self) -> list[str]:
        """Return the names of the voters that gossip does not hold for dead."""
        return live_voters(self._raft.status(), self._gossip.members())

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask the leader, as long as that is requested and not done, until cancelled."""
        task_status.started()
        while True:
            if not self._leaving:
                self._requested = trio.Event()
                await self._requested.wait()
            if self._state() is VoterState.VOTER:
                self._leader.request_demotion()
            await self._clock.sleep_until(self._clock.now() + ASK_EVERY_S)

    def _state(self) -> VoterState:
        return voter_state(self._raft.status(), self._gossip.members(), self._node_id)

    def _set_leaving(self, leaving: bool) -> None:
        if leaving is not self._leaving:
            log.info("decommissioning this node" if leaving else "this node stays a voter")
            self._leaving = leaving
            self._show_leaving(leaving)
        if leaving:
            self._requested.set()

    def _obstacle(self) -> str:
        """Return what keeps the cluster from agreeing, as far as this node knows."""
        status, members = self._raft.status(), self._gossip.members()
        if status.leader is None:
            return "the cluster has no leader"
        voters = set(status.configuration.voters) - {self._node_id}
        unreachable = sorted(
            member.name
            for member in members
            if member.state > MemberState.SUSPECT and member.tags.get(TAG_NODE_ID) in voters
        )
        if unreachable:
            return f"{', '.join(unreachable)} of the voters that would stay cannot be reached"
        leader = name_of(members, status.leader) or status.leader
        return f"the leader, {leader}, did not get it committed"
