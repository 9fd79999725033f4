"""A stand-in for the replicated log: a store behind a proposer whose troubles a test decides."""

import random

import trio

from noti.errors import NotLeader, Overloaded, ProposalUncertain
from noti.history.notification import Notification
from noti.history.store import Store


class ReplicatedLog:
    """Commits after a delay; on demand refuses, or loses sight of what it appended."""

    def __init__(self, rng: random.Random, *, leader: bool = True) -> None:
        self._rng = rng
        self._leader = leader
        self._changed = trio.Event()
        self.store = Store()
        self.shown: list[Notification] = []
        self.commit_s = 0.01
        # Probabilities, per proposal.
        self.refuse = 0.0
        self.uncertain = 0.0
        self.proposals = 0
        self.proposing = 0

    def is_ready_leader(self) -> bool:
        return self._leader

    def set_leader(self, leader: bool) -> None:
        if leader != self._leader:
            self._leader = leader
            self._changed.set()
            self._changed = trio.Event()

    async def wait_leadership_changed(self) -> None:
        await self._changed.wait()

    async def propose(self, command: bytes) -> None:
        self.proposals += 1
        self.proposing += 1
        try:
            await self._propose(command)
        finally:
            self.proposing -= 1

    async def _propose(self, command: bytes) -> None:
        assert self.proposing == 1, "proposals must not overtake each other"
        if not self._leader:
            raise NotLeader(None)
        if self._rng.random() < self.refuse:
            raise Overloaded("the backlog is full")
        await trio.sleep(self.commit_s * self._rng.random())
        if self._rng.random() < self.uncertain:
            if self._rng.random() < 0.5:
                self.shown += self.store.apply(command)
            raise ProposalUncertain("leadership was lost")
        self.shown += self.store.apply(command)
