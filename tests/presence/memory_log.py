"""The replicated log as presence sees it: a store behind a leader whose troubles a test decides."""

from collections import deque

import trio

from noti.completion import OnDone
from noti.errors import NotiError, NotLeader
from noti.history.commands import Command, decode
from noti.history.notification import Notification
from noti.history.state_machine import HistoryObserver, HistoryStateMachine
from noti.history.store import Store


class MemoryLog:
    """Commits at once, or when the test says so; a `CommandForwarder`."""

    def __init__(self, audience: HistoryObserver | None = None) -> None:
        """Show what is committed to an audience, if there is one."""
        self.store = Store()
        self._machine = None if audience is None else HistoryStateMachine(self.store, audience)
        self.committed: list[Command] = []
        self.shown: list[Notification] = []
        self.leader = True
        self.holds = False
        """Whether commands wait for `commit_held`."""
        self.held: deque[tuple[bytes, OnDone[int]]] = deque()
        self.troubles: deque[tuple[bool, NotiError]] = deque()
        """Of the next commands: whether it is committed all the same, and the answer."""
        self._news = trio.Event()

    def submit(self, command: bytes, on_done: OnDone[int]) -> None:
        if not self.leader:
            on_done(NotLeader(None))
        elif self.troubles:
            done, answer = self.troubles.popleft()
            if done:
                self.apply(command)
            on_done(answer)
        elif self.holds:
            self.held.append((command, on_done))
        else:
            self.apply(command)
            on_done(len(self.committed))

    async def wait_news(self) -> None:
        await self._news.wait()

    def elect(self) -> None:
        self.leader = True
        self._news.set()
        self._news = trio.Event()

    def commit_held(self) -> None:
        command, on_done = self.held.popleft()
        self.apply(command)
        on_done(len(self.committed))

    def apply(self, command: bytes) -> None:
        self.committed.append(decode(command))
        if self._machine is None:
            self.shown += self.store.apply(command)
        else:
            self._machine.apply(command)
