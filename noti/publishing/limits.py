"""Makes the leader's limits of history those of the cluster, and lets old events expire.

It never changes history on one node alone: all must evict alike.
"""

from typing import Protocol

import structlog
import trio

from noti.errors import NotLeader, Overloaded, ProposalUncertain
from noti.history.commands import Expire, SetLimits, encode
from noti.history.limits import HistoryLimits
from noti.ports import Clock
from noti.publishing.ports import Proposer

log = structlog.get_logger("noti.publishing")

RETRY_S = 1.0
"""After a rejection; leadership may have come back before anybody learnt that it was lost."""
EXPIRE_EVERY_S = 5.0
"""How often the leader looks for events that are too old: they are kept for so much longer."""


class LimitedHistory(Protocol):
    """What is replicated: `noti.history.store.Store`."""

    @property
    def limits(self) -> HistoryLimits:
        """What is kept at most."""

    @property
    def oldest_taken_ms(self) -> int | None:
        """When the oldest event that is kept was taken, wall time; None when none is kept."""


class Limits:
    """Writes the configured limits into the log while this node leads."""

    def __init__(
        self, proposer: Proposer, history: LimitedHistory, wanted: HistoryLimits, clock: Clock
    ) -> None:
        """Compare what `history` has with `wanted`; its oldest events with the wall time."""
        self._proposer = proposer
        self._history = history
        self._wanted = wanted
        self._clock = clock
        self._pause = trio.CancelScope()

    def change(self, wanted: HistoryLimits) -> None:
        """Have these limits written instead, as soon as this node leads."""
        self._wanted = wanted
        self._pause.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch the leadership, and the time if events expire, until cancelled."""
        task_status.started()
        while True:
            command = self._command() if self._proposer.is_ready_leader() else None
            if command is None:
                await self._wait()
                continue
            try:
                await self._proposer.propose(encode(command))
            except (NotLeader, Overloaded, ProposalUncertain) as error:
                log.info("limits of history not applied yet", reason=str(error))
                await trio.sleep(RETRY_S)
            else:
                if isinstance(command, SetLimits):
                    log.info("limits of history set", limits=str(self._wanted))

    def _command(self) -> SetLimits | Expire | None:
        """Return what the leader has to propose."""
        if self._history.limits != self._wanted:
            return SetLimits(self._wanted)
        oldest_ms = self._history.oldest_taken_ms
        if self._wanted.age_ms and oldest_ms is not None:
            before_ms = self._clock.wall_ms() - self._wanted.age_ms
            if oldest_ms < before_ms:
                return Expire(before_ms)
        return None

    async def _wait(self) -> None:
        with trio.CancelScope() as self._pause:
            if not self._wanted.age_ms:
                await self._proposer.wait_leadership_changed()
                return
            with self._clock.scope_until(self._clock.now() + EXPIRE_EVERY_S):
                await self._proposer.wait_leadership_changed()
