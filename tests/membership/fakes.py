"""Gossip and Raft behind the ports of membership, as a test sets them."""

from dataclasses import replace

import trio

from noti.errors import MembershipChangeRejected
from noti.raft.core.events import Role
from noti.raft.core.membership import Change, leave_joint, next_configuration
from noti.raft.core.messages import NodeId
from noti.raft.core.status import Status
from noti.swim.core.messages import Member

ELECTION_TIMEOUT_S = 0.5
"""After which a hand-over that nobody takes is given up."""


class FakeGossip:
    """A member list that a test writes; a `MemberList`."""

    def __init__(self, *members: Member) -> None:
        self.seen = members

    def members(self) -> tuple[Member, ...]:
        return self.seen


class FakeRaft:
    """A replica whose changes are committed after `commit_s`; a `ConfigurationChanger`.

    Nodes that become learners have the whole log at once.
    """

    def __init__(self, status: Status, *, commit_s: float = 0.0) -> None:
        self.now = status
        self.commit_s = commit_s
        self.changes: list[tuple[float, Change]] = []
        """What was committed, and when."""
        self.refusals = 0
        """How many of the next changes cannot be made."""
        self.failure: Exception | None = None
        self.changing = False
        self.successor: NodeId | None = None
        """Takes over when it is asked to; None for nobody."""
        self.hand_overs: list[float] = []
        self._news = trio.Event()

    def status(self) -> Status:
        return self.now

    async def change(self, change: Change) -> None:
        assert self.now.leads_ready, "only a leader changes the configuration"
        assert not self.changing, "one change at a time"
        if self.failure is not None:
            raise self.failure
        self.changing = True
        try:
            await trio.sleep(self.commit_s)
        finally:
            self.changing = False
        if self.refusals:
            self.refusals -= 1
            raise MembershipChangeRejected("not now")
        following = next_configuration(self.now.configuration, change)
        assert following is not None, "a change that changes nothing"
        following = leave_joint(following) if following.outgoing else following
        progress = dict.fromkeys(following.members, self.now.last_index)
        self.now = replace(self.now, configuration=following, followers=tuple(progress.items()))
        self.changes.append((trio.current_time(), change))

    async def hand_over(self) -> None:
        self.hand_overs.append(trio.current_time())
        if self.successor is None:
            await trio.sleep(ELECTION_TIMEOUT_S)
            return
        self.lead(self.successor, ready=False)

    async def wait_leadership_changed(self) -> None:
        await self._news.wait()

    def lead(self, leader: NodeId | None, *, ready: bool) -> None:
        """Have a node lead; with `ready` it is this one."""
        role = Role.LEADER if ready else Role.FOLLOWER
        self.now = replace(self.now, leader=leader, role=role, leads_ready=ready)
        self._news.set()
        self._news = trio.Event()
