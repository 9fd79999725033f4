"""Makes the leader's limits those of the cluster.

It never changes a limit on one node alone: all must evict alike.
"""

from collections.abc import Callable

import structlog
import trio

from noti.errors import NotLeader, Overloaded, ProposalUncertain
from noti.history.commands import SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.publishing.ports import Proposer

log = structlog.get_logger("noti.publishing")

RETRY_S = 1.0
"""After a rejection; leadership may have come back before anybody learnt that it was lost."""


class Limits:
    """Writes the configured limits into the log while this node leads."""

    def __init__(self, proposer: Proposer, replicated: Callable[[], int], wanted: int) -> None:
        """Compare `replicated()` with `wanted`, both in notifications."""
        self._proposer = proposer
        self._replicated = replicated
        self._wanted = wanted

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the leadership until cancelled."""
        task_status.started()
        while True:
            if self._proposer.is_ready_leader() and self._replicated() != self._wanted:
                try:
                    await self._proposer.propose(encode(SetLimits(HistoryLimits(self._wanted))))
                    log.info("history limit set", history_size=self._wanted)
                except (NotLeader, Overloaded, ProposalUncertain) as error:
                    log.info("history limit not set yet", reason=str(error))
                    await trio.sleep(RETRY_S)
                    continue
            await self._proposer.wait_leadership_changed()
