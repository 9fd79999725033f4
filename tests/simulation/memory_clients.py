"""Browsers in memory: the `Clients` of the simulator.

Enters: notifications of one node. Leaves: what each simulated browser has seen.
Never: sockets, HTTP; the feed is the real one.
"""

import random
from collections.abc import Sequence

import trio

from noti.notifications.notification import Notification
from noti.ports import Address
from noti.web.feed import Audience, Feed, FellBehind, View
from noti.web.view import NodeView

EVERYTHING = Audience(View.MERCURE, frozenset({"*"}))


class MemoryClients:
    """One node's streams."""

    def __init__(self, address: Address, history_size: int = 1000) -> None:
        self.feed = Feed(history_size)
        self.history: list[Notification] = []
        self.serving = False
        self._address = address
        self._count = 0
        self._news = trio.Event()
        self._closed = trio.Event()

    @property
    def count(self) -> int:
        return self._count

    def publish(self, notifications: Sequence[Notification]) -> None:
        self.feed.extend(notifications)
        self._ring()

    def reset(self, notifications: Sequence[Notification]) -> None:
        self.feed.reset(notifications)
        self._ring()

    def _ring(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def serve(
        self,
        node: NodeView,
        *,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        self.node = node
        self.serving = True
        task_status.started(self._address)
        try:
            await trio.sleep_forever()
        finally:
            self.cut()

    def cut(self) -> None:
        """Reset every stream."""
        self.serving = False
        self._closed.set()
        self._closed = trio.Event()
        self._ring()

    async def follow(self, browser: "Browser") -> None:
        """Serve one stream until it is cut."""
        known = browser.last_id is None or self.feed.position_of(browser.last_id) is not None
        if not (self.node.ready() and known):
            with trio.move_on_after(2.0) as patience:
                await self.node.catch_up()
            if patience.cancelled_caught:
                return
        if not self.serving:
            return
        after = self.feed.newest_seq
        if browser.last_id is None:
            # As on a real stream: the first words tell from where to resume.
            browser.last_id = self.feed.newest_id
        else:
            position = self.feed.position_of(browser.last_id)
            if position is None:
                browser.gaps += 1
                after = self.feed.oldest_seq - 1
            else:
                after = position
        self._count += 1
        try:
            while self.serving:
                batch = self.feed.read(EVERYTHING, after, 1 << 20)
                if isinstance(batch, FellBehind):
                    return
                if batch.data:
                    browser.take(batch.data)
                after = batch.seq
                if after >= self.feed.newest_seq:
                    await self._news.wait()
        finally:
            self._count -= 1


class Browser:
    """An EventSource: reconnects for ever, to any node, with the last id that it saw."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.last_id: str | None = None
        self.seen: list[str] = []
        self.gaps = 0

    def take(self, data: bytes) -> None:
        for block in data.decode().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
            if "data" in fields:
                self.seen.append(fields["data"])
                self.last_id = fields["id"]

    async def run(self, nodes: Sequence[MemoryClients]) -> None:
        while True:
            node = self.rng.choice(nodes)
            if node.serving:
                await node.follow(self)
            await trio.sleep(self.rng.uniform(0.5, 2.0))
