"""Ends the subscriptions of nodes that gossip reports dead, while this node leads."""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

import structlog
import trio

from noti.history.subscription_commands import EndNode
from noti.history.subscriptions import SubscriptionTable
from noti.ports import Clock
from noti.presence.commits import Commits
from noti.presence.holders import node_of

log = structlog.get_logger("noti.presence")

LOOK_EVERY_S: Final = 0.5
"""What this adds to the failure detector's time; a look costs microseconds."""
PAUSE_S: Final = 0.1
"""Between two commands that end a node with many subscriptions: each is 20 ms of every node's time,
and events want theirs. 10,000 are ended in 5 s."""
UNSEEN_S: Final = 10.0
"""How long a node that gossip does not know at all is waited for: a leader that has just started
hears of all members within a second or two."""
AGAIN_AFTER_S: Final = 30.0
"""Pause before a node that announced its streams again is ended again, if gossip has not seen it
alive meanwhile: it lives, and gossip between the two is broken."""


class Liveness(Protocol):
    """What gossip knows of the nodes."""

    def __call__(self) -> tuple[Iterable[str], Iterable[str]]:
        """Return the ids of nodes that are alive, and of those that are dead or have left."""


class DeadNodes:
    """The leader's part in presence; on every node, for when it leads."""

    def __init__(
        self,
        table: SubscriptionTable,
        commits: Commits,
        leads: Callable[[], bool],
        liveness: Liveness,
        clock: Clock,
    ) -> None:
        self._table = table
        self._commits = commits
        self._leads = leads
        self._liveness = liveness
        self._clock = clock
        self._unseen_since: dict[str, float] = {}
        self._ended_at: dict[str, float] = {}
        """Holders that were ended, and whose nodes were not seen alive since."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look twice a second until cancelled."""
        task_status.started()
        while True:
            await self._clock.sleep_until(self._clock.now() + LOOK_EVERY_S)
            if not self._leads():
                self._unseen_since.clear()
                self._ended_at.clear()
                continue
            for holder in self._overdue(self._clock.now()):
                await self._end(holder)

    def _overdue(self, now: float) -> list[str]:
        """Return the holders in the table that are to be ended now."""
        alive, dead = map(frozenset, self._liveness())
        announced = self._table.lives().keys()
        self._unseen_since = {
            holder: self._unseen_since.get(holder, now)
            for holder in announced
            if node_of(holder) not in alive | dead
        }
        self._ended_at = {
            holder: at for holder, at in self._ended_at.items() if node_of(holder) not in alive
        }
        gone = [holder for holder in announced if node_of(holder) in dead - alive]
        gone += [holder for holder, since in self._unseen_since.items() if now - since >= UNSEEN_S]
        return [
            holder
            for holder in gone
            if now - self._ended_at.get(holder, -AGAIN_AFTER_S) >= AGAIN_AFTER_S
        ]

    async def _end(self, holder: str) -> None:
        """End one life of a holder, in as many commands as it takes, while this node leads."""
        life = self._table.lives().get(holder)
        log.info("ending the subscriptions of a node that is gone", node_id=holder)
        while self._leads() and life is not None and self._table.lives().get(holder) == life:
            await self._commits.commit(EndNode(holder, life, self._clock.wall_ms()))
            await self._clock.sleep_until(self._clock.now() + PAUSE_S)
        if self._leads():
            self._ended_at[holder] = self._clock.now()
