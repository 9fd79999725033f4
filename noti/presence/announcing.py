"""Announces the streams of this node to the cluster, in batches that clock themselves.

Whatever came while the last batch was committing is the next one; when many come at once, a batch
waits so that events have room (`pace.py`). A batch is repeated until it is committed, and its
number sees to it that it counts once (`noti.history.subscription_commands`).

A node announces within a life. What an earlier life has left is ended first; and a node whose life
was ended by others, who took it for dead, begins another one with all that is open.
"""

from collections.abc import Callable
from typing import Final

import structlog
import trio
from prometheus_client import Counter, Gauge

from noti.history.subscription_commands import EndNode, SubscriptionBatch
from noti.history.subscriptions import SubscriptionTable
from noti.ports import Clock
from noti.presence.commits import Commits
from noti.presence.holders import is_left_over
from noti.presence.open_subscribers import OpenSubscribers
from noti.presence.pace import Pace
from noti.streams.open_streams import Reader

log = structlog.get_logger("noti.presence")

IN_TABLE: Final = Gauge(
    "noti_presence_subscriptions", "Subscriptions of all nodes, in the replicated table."
)
ANNOUNCED: Final = Counter(
    "noti_presence_announced_total", "Subscriptions of this node's streams that were announced."
)
DROPPED: Final = Counter(
    "noti_presence_dropped_total",
    "Subscriptions of this node's streams that are not announced, as the table is full.",
)

LOOK_EVERY_S: Final = 1.0
"""How soon a node notices that others ended its life."""


class Announcing:
    """What one node announces; it observes the hub."""

    def __init__(
        self,
        node_id: str,
        table: SubscriptionTable,
        commits: Commits,
        clock: Clock,
        make_id: Callable[[], str],
        *,
        workers: int = 0,
    ) -> None:
        """Prepare; `make_id` returns another random text with each call.

        `node_id` is that of the holder. A node announces what it serves itself; `workers` of its
        own do so beside it.
        """
        self._node_id = node_id
        self._workers = workers
        self._table = table
        self._commits = commits
        self._clock = clock
        self._make_id = make_id
        self._open = OpenSubscribers()
        self._life = ""
        self._number = 0
        self._news = trio.Event()
        IN_TABLE.set_function(lambda: table.count)

    # --- the hub's streams ------------------------------------------------------------------------

    def opened(self, stream_id: int, reader: Reader) -> None:
        """Note a stream of this node; never waits."""
        if reader.subscriber is not None:
            self._open.opened(stream_id, reader.subscriber)
            self._news.set()

    def closed(self, stream_id: int) -> None:
        """Note the end of a stream; never waits."""
        self._open.closed(stream_id)
        self._news.set()

    # --- the task ---------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Announce until cancelled; a run after another one begins a life of its own."""
        task_status.started()
        while True:
            await self._end_earlier_lives()
            self._open.announce_all_again()
            self._life, self._number = self._make_id(), 0
            await self._announce_next()
            pace = Pace(self._table.told, self._clock.now())
            while self._lives():
                now = self._clock.now()
                if (wait_s := pace.wait_s(self._table.told, now)) > 0:
                    await self._clock.sleep_until(now + min(wait_s, LOOK_EVERY_S))
                elif self._open.any_news:
                    await self._announce_next()
                else:
                    await self._wait_for_news()
            log.warning("others took this node for dead; it announces its streams again")

    def _lives(self) -> bool:
        return self._table.last_batch(self._node_id) == (self._life, self._number)

    async def _end_earlier_lives(self) -> None:
        for holder in list(self._table.lives()):
            if holder == self._node_id or is_left_over(holder, self._node_id, self._workers):
                await self._end(holder)

    async def _end(self, holder: str) -> None:
        while (batch := self._table.last_batch(holder)) is not None:
            await self._commits.commit(EndNode(holder, batch[0], self._clock.wall_ms()))

    async def _announce_next(self) -> None:
        opened, closed = self._open.next_batch()
        self._number += 1
        await self._commits.commit(
            SubscriptionBatch(
                self._node_id, self._life, self._number, self._clock.wall_ms(), opened, closed
            )
        )
        for subscriber in opened:
            counter = ANNOUNCED if subscriber.id in self._table else DROPPED
            counter.inc(len(subscriber.subscriptions))

    async def _wait_for_news(self) -> None:
        self._news = trio.Event()
        with self._clock.scope_until(self._clock.now() + LOOK_EVERY_S):
            await self._news.wait()
