"""Nodes of ours beside Serf agents: gossip alone, in the test's own process."""

import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio

from noti.membership.operator_requests import status_of
from noti.swim.core.keyring import KeyRing
from noti.swim.core.messages import Member, MemberState
from noti.swim.core.sealing import Encryption
from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from noti.swim.sockets import SocketNetwork
from noti.trio_clock import TrioClock
from tests.interop.serf.agents import HOST


class OurNode:
    """A node of ours on loopback."""

    def __init__(self, name: str, gossip: Gossip, ring: KeyRing | None) -> None:
        self.name = name
        self.gossip = gossip
        self._ring = ring
        self.port = 0
        self._scope = trio.CancelScope()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """Its keys, the one that encrypts first."""
        return () if self._ring is None else self._ring.keys

    async def start(self, nursery: trio.Nursery) -> None:
        _, self.port = await nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        with self._scope:
            await self.gossip.run(task_status=task_status)

    async def leave(self) -> None:
        """End it as SIGTERM would."""
        await self.gossip.leave()
        self.kill()

    def kill(self) -> None:
        """End it as a crash would: it says nothing to anybody."""
        self._scope.cancel()

    async def members(self) -> dict[str, tuple[str, Mapping[str, str]]]:
        """Return status, in Serf's words, and tags of every member; none when it is gone."""
        if self._scope.cancel_called:
            return {}
        return {each.name: (_status_of(each), each.tags) for each in self.gossip.members()}

    async def statuses(self) -> dict[str, str]:
        """Return the status of every member."""
        return {name: status for name, (status, _) in (await self.members()).items()}


def _status_of(member: Member) -> str:
    """Return a member's status in Serf's words, and suspect, which agents show as alive."""
    suspected = member.state is MemberState.SUSPECT and not member.leaving
    return "suspect" if suspected else status_of(member)


def tags_of_ours(name: str) -> dict[str, str]:
    """Return the tags of a node of ours."""
    return {"id": f"id-{name}", "role": "noti", "rpc": "127.0.0.1:8400"}


@asynccontextmanager
async def our_node(
    name: str = "ours",
    *,
    join: Sequence[int] = (),
    keys: Sequence[bytes] = (),
    encryption: Encryption = Encryption.REQUIRED,
) -> AsyncIterator[OurNode]:
    """Run a node for the time of the context; it gossips when the context is entered."""
    ring = KeyRing(keys) if keys else None
    gossip = Gossip(
        name=name,
        bind=(HOST, 0),
        advertise=None,
        seeds=[("localhost", port) for port in join],
        timing=SwimConfig.local(),
        network=SocketNetwork(),
        clock=TrioClock(),
        rng=random.Random(),
        keys=ring,
        encryption=encryption,
    )
    gossip.set_tags(tags_of_ours(name))
    async with trio.open_nursery() as nursery:
        ours = OurNode(name, gossip, ring)
        await ours.start(nursery)
        yield ours
        ours.kill()
