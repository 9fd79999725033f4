"""Raises the cluster's level while this node leads, once all members support more.

A member shows what it supports in the hello of the stream that is in use with it, so one that is
away, or was started with an older release since, keeps the level where it is.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import structlog
import trio
from prometheus_client import Gauge

from noti.errors import NotLeader, Overloaded, ProposalUncertain
from noti.history.commands import encode
from noti.history.levels import RaiseLevel, level_to_raise
from noti.ports import Clock
from noti.publishing.ports import Proposer
from noti.raft.core.messages import NodeId

log = structlog.get_logger("noti.node")

LOOK_EVERY_S = 1.0
"""Nobody waits for a level; each look costs microseconds."""

_level = Gauge("noti_cluster_level", "Level of the cluster, as applied on this node")


class LeveledState(Protocol):
    """What is replicated: `noti.history.store.Store`."""

    @property
    def level(self) -> int:
        """Which commands all nodes of the cluster can read."""


class LevelRaising:
    """Writes the next level into the log while this node leads."""

    def __init__(
        self,
        proposer: Proposer,
        state: LeveledState,
        members: Callable[[], Collection[NodeId]],
        supported: Callable[[], Mapping[NodeId, int]],
        clock: Clock,
        *,
        level_max: int,
    ) -> None:
        """Prepare for one node.

        `members` returns those of the cluster, `supported` which level this node and those with a
        stream to it support. The level does not rise above `level_max`.
        """
        self._proposer = proposer
        self._state = state
        self._members = members
        self._supported = supported
        self._clock = clock
        self.level_max = level_max
        """It may change."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look once a second until cancelled."""
        task_status.started()
        while True:
            _level.set(self._state.level)
            level = self._next_level() if self._proposer.is_ready_leader() else None
            if level is not None:
                await self._raise_to(level)
            with self._clock.scope_until(self._clock.now() + LOOK_EVERY_S):
                await self._proposer.wait_leadership_changed()

    def _next_level(self) -> int | None:
        supported = self._supported()
        of_members = [supported.get(member) for member in self._members()]
        return level_to_raise(self._state.level, [*of_members, self.level_max])

    async def _raise_to(self, level: int) -> None:
        try:
            await self._proposer.propose(encode(RaiseLevel(level)))
        except (NotLeader, Overloaded, ProposalUncertain) as error:
            log.info("level of the cluster not raised yet", reason=str(error))
        else:
            log.info(
                "level of the cluster raised: older releases cannot join any more",
                cluster_level=level,
            )
