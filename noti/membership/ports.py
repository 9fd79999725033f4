"""What membership asks of gossip, Raft and the machine; each part takes the least it needs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

import trio

from noti.raft.core.membership import Change, Configuration
from noti.raft.core.status import Status
from noti.swim.core.messages import Member
from noti.swim.serf_requests import KeyOperation, KeysReport, QueryAnswer

Tell: TypeAlias = Callable[[Mapping[str, object]], Awaitable[None]]
"""Gives the operator one answer, of which a request may have many; of JSON's types only."""

CarryOut: TypeAlias = Callable[[object, Tell], Awaitable[None]]
"""Carries out one request of the operator's, which is decoded JSON; returns when it is done.

Raises a `NotiError` with the reason when it is not done.
"""


class MemberList(Protocol):
    """The members that gossip knows."""

    def members(self) -> tuple[Member, ...]:
        """Return all members, this node included."""


class TaggedMemberList(MemberList, Protocol):
    """The same, with the tags of this node and news of changes."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Show these tags to the others."""

    def protect(self, names: Mapping[str, str]) -> None:
        """Never forget these nodes, nor let others crowd them out: names, or "", by id."""

    async def wait_changed(self) -> None:
        """Return at the next change of `members()`."""


class SerfLayer(MemberList, Protocol):
    """What Serf's layer of gossip does for an operator; `noti.swim.serf_requests` says it all."""

    def send_event(self, name: str, payload: bytes = b"", *, coalesce: bool = True) -> None:
        """Tell all members of a user event."""

    def query(
        self,
        name: str,
        payload: bytes = b"",
        *,
        nodes: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        wants_acks: bool = False,
        relay_factor: int = 0,
    ) -> trio.MemoryReceiveChannel[QueryAnswer]:
        """Ask all members, or those that the filters let pass."""

    async def keys_query(
        self, operation: KeyOperation, key: bytes | None = None, *, timeout_s: float | None = None
    ) -> KeysReport:
        """Ask all members about keys, or to change them."""

    def force_leave(self, name: str, *, prune: bool = False) -> None:
        """Have all members take a failed member for one that left."""

    def distance_s(self, one: str, other: str) -> float | None:
        """Return the estimated round trip between two members; None when it is not known."""


class RaftStatus(Protocol):
    """The state of Raft on this node."""

    def status(self) -> Status:
        """Return it, as it is now."""


class ClusterFounder(RaftStatus, Protocol):
    """The replica of a node that may not belong to a cluster yet."""

    def bootstrap(self, configuration: Configuration) -> None:
        """Found a cluster; ignored when there is one."""


class ConfigurationChanger(RaftStatus, Protocol):
    """The replica of a node that may lead."""

    async def change(self, change: Change) -> None:
        """Return when the change is committed; raises `Unavailable` when it cannot be made now."""

    async def hand_over(self) -> None:
        """Ask another voter to lead, and return when this node does not lead any more."""

    async def wait_leadership_changed(self) -> None:
        """Return when this node has begun or ceased to lead."""


class DemotionRequester(Protocol):
    """The way to the leader."""

    def request_demotion(self) -> None:
        """Ask it to make this node a learner; may get lost, so it is to be repeated."""


class Control(Protocol):
    """What only the operator of this machine may ask of the node."""

    async def serve(
        self,
        carry_out: CarryOut,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Take requests until cancelled, and have each carried out."""
