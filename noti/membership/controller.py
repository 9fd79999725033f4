"""The membership controller: carries out what `voters.py` advises, while this node leads.

One change at a time, and none that the advice does not name. A change that cannot be made now is
not an error: it is advised again at the next look, if it is still right.
"""

import math
from collections.abc import Callable, Set
from typing import assert_never

import structlog
import trio

from noti.errors import Unavailable
from noti.membership.ports import ConfigurationChanger, MemberList
from noti.membership.voters import LeadershipTransfer, VoterLimits, VoterPolicy
from noti.ports import Clock
from noti.raft.core.membership import Change
from noti.raft.core.messages import NodeId

log = structlog.get_logger("noti.node")

LOOK_EVERY_S = 0.5
"""A new node becomes a voter within about a second; each look costs microseconds."""

EVEN_S = 60.0
"""Nodes that are started one after the other are an even number for less than this."""


class MembershipController:
    """Keeps the configuration in step with the nodes that there are; works on the leader only."""

    def __init__(
        self,
        gossip: MemberList,
        changer: ConfigurationChanger,
        demotion_requested: Callable[[], Set[NodeId]],
        connected: Callable[[], Set[NodeId]],
        clock: Clock,
        limits: VoterLimits,
    ) -> None:
        """Prepare for one node.

        `demotion_requested` returns the nodes that asked it to be demoted, `connected` those to
        which it has a stream.
        """
        self._gossip = gossip
        self._changer = changer
        self._demotion_requested = demotion_requested
        self._connected = connected
        self._clock = clock
        self.limits = limits
        """They may change."""
        self._even_since: float | None = None
        """Since when the number of voters is even; infinite when that was said."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look twice a second while this node leads, until cancelled."""
        task_status.started()
        while True:
            while not self._changer.status().leads_ready:
                await self._changer.wait_leadership_changed()
            policy = VoterPolicy(self.limits)
            while self._changer.status().leads_ready:
                policy.limits = self.limits
                await self._look(policy)
                with self._clock.scope_until(self._clock.now() + LOOK_EVERY_S):
                    await self._changer.wait_leadership_changed()

    async def _look(self, policy: VoterPolicy) -> None:
        status, members = self._changer.status(), self._gossip.members()
        self._warn_if_even(len(status.configuration.voters))
        advice = policy.advise(
            status, members, self._demotion_requested(), self._connected(), self._clock.now()
        )
        match advice:
            case LeadershipTransfer():
                log.info("handing over the leadership: this node is being decommissioned")
                await self._changer.hand_over()
            case Change():
                if advice:
                    await self._carry_out(advice)
            case _:
                assert_never(advice)

    def _warn_if_even(self, voters: int) -> None:
        now = self._clock.now()
        if voters % 2:
            self._even_since = None
        elif self._even_since is None:
            self._even_since = now
        elif now - self._even_since >= EVEN_S:
            self._even_since = math.inf
            log.warning(
                "an even number of voters survives no more failures than one voter less: "
                "add a node, or take one out with `noti leave`",
                voters=voters,
            )

    async def _carry_out(self, change: Change) -> None:
        shown = {
            "add": sorted(change.add),
            "promote": sorted(change.promote),
            "remove": sorted(change.remove),
            "demote": sorted(change.demote),
        }
        try:
            await self._changer.change(change)
        except Unavailable as error:
            log.debug("membership not changed yet", reason=str(error), **shown)
        else:
            log.info("membership changed", **{name: ids for name, ids in shown.items() if ids})
