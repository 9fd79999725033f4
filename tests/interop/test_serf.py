"""Our node and real Serf agents form one cluster and agree about who is in it."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio

from noti.swim.core.timing import SwimConfig
from noti.swim.gossip import Gossip
from noti.swim.sockets import SocketNetwork
from noti.trio_clock import TrioClock
from tests.interop.serf_agent import SerfAgent, serf_agent

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.serf]

JOIN_S = 45.0
"""Agents tell each other all they know every 30 s; gossip in between is fast, and may get lost."""
DETECT_S = 30.0
"""A probe, and then the longest suspicion of the local profile: 18 s."""

TAGS = {"id": "0192", "role": "noti", "rpc": "127.0.0.1:8400"}


class OurNode:
    """A node of ours on loopback."""

    def __init__(self, gossip: Gossip) -> None:
        self.gossip = gossip
        self.port = 0
        self._scope = trio.CancelScope()

    async def start(self, nursery: trio.Nursery) -> None:
        _, self.port = await nursery.start(self._run)

    async def _run(self, *, task_status: trio.TaskStatus[tuple[str, int]]) -> None:
        with self._scope:
            await self.gossip.run(task_status=task_status)

    def kill(self) -> None:
        self._scope.cancel()

    def statuses(self) -> dict[str, str]:
        return {each.name: each.state.name.lower() for each in self.gossip.members()}

    def tags(self, name: str) -> Mapping[str, str]:
        return next(each.tags for each in self.gossip.members() if each.name == name)


@asynccontextmanager
async def our_node(*, join: Sequence[int] = (), name: str = "ours") -> AsyncIterator[OurNode]:
    gossip = Gossip(
        name=name,
        bind=("127.0.0.1", 0),
        advertise=None,
        seeds=[("localhost", port) for port in join],
        timing=SwimConfig.local(),
        network=SocketNetwork(),
        clock=TrioClock(),
        rng=random.Random(),
    )
    gossip.set_tags(TAGS)
    async with trio.open_nursery() as nursery:
        ours = OurNode(gossip)
        await ours.start(nursery)
        yield ours
        ours.kill()


async def until(
    described: Callable[[], Awaitable[bool]],
    shown: Callable[[], Awaitable[object]],
    within_s: float,
) -> None:
    with trio.move_on_after(within_s):
        while not await described():  # noqa: ASYNC110 - another process has no event for us
            await trio.sleep(0.1)
        return
    raise AssertionError(f"not so after {within_s} s: {await shown()}")


async def until_all_see(
    agents: Sequence[SerfAgent], ours: OurNode | None, wanted: Mapping[str, str], within_s: float
) -> None:
    """Wait until agents and our node see everyone in the wanted state (in Serf's words)."""

    async def views() -> list[dict[str, str]]:
        seen = [await agent.statuses() for agent in agents]
        if ours is not None:
            words = {"dead": "failed"}
            own = ours.statuses().items()
            seen.append({name: words.get(state, state) for name, state in own})
        return seen

    async def agreed() -> bool:
        return all(view == wanted for view in await views())

    await until(agreed, views, within_s)


async def test_agents_show_our_node_alive_with_its_tags_until_it_leaves() -> None:
    async with (
        serf_agent("alpha", tags={"colour": "red"}) as alpha,
        serf_agent("beta", join=alpha.port) as beta,
        our_node(join=[alpha.port]) as ours,
    ):
        everyone = {"alpha": "alive", "beta": "alive", "ours": "alive"}
        await until_all_see([alpha, beta], ours, everyone, JOIN_S)
        assert ours.tags("alpha") == {"colour": "red"}
        for agent in (alpha, beta):
            assert (await agent.members())["ours"] == ("alive", TAGS)
        await ours.gossip.leave()
        ours.kill()
        await until_all_see([alpha, beta], None, everyone | {"ours": "left"}, JOIN_S)


async def test_agents_that_join_through_our_node_see_each_other() -> None:
    async with (
        our_node() as ours,
        serf_agent("alpha", join=ours.port) as alpha,
        serf_agent("beta", join=ours.port) as beta,
    ):
        everyone = {"alpha": "alive", "beta": "alive", "ours": "alive"}
        await until_all_see([alpha, beta], ours, everyone, JOIN_S)


async def test_agents_show_our_node_failed_when_it_was_killed() -> None:
    async with (
        serf_agent("alpha") as alpha,
        serf_agent("beta", join=alpha.port) as beta,
        our_node(join=[beta.port]) as ours,
    ):
        everyone = {"alpha": "alive", "beta": "alive", "ours": "alive"}
        await until_all_see([alpha, beta], ours, everyone, JOIN_S)
        ours.kill()
        await until_all_see([alpha, beta], None, everyone | {"ours": "failed"}, DETECT_S)


async def test_our_node_sees_a_killed_agent_fail() -> None:
    async with (
        our_node() as ours,
        serf_agent("alpha", join=ours.port) as alpha,
        serf_agent("beta", join=ours.port) as beta,
    ):
        everyone = {"alpha": "alive", "beta": "alive", "ours": "alive"}
        await until_all_see([alpha, beta], ours, everyone, JOIN_S)
        await beta.kill()
        await until_all_see([alpha], ours, everyone | {"beta": "failed"}, DETECT_S)


async def test_our_node_sees_an_agent_leave() -> None:
    async with (
        our_node() as ours,
        serf_agent("alpha", join=ours.port) as alpha,
        serf_agent("beta", join=ours.port) as beta,
    ):
        everyone = {"alpha": "alive", "beta": "alive", "ours": "alive"}
        await until_all_see([alpha, beta], ours, everyone, JOIN_S)
        await beta.call("leave")
        await until_all_see([alpha], ours, everyone | {"beta": "left"}, DETECT_S)


async def test_new_tags_cross_in_both_directions() -> None:
    async with serf_agent("alpha") as alpha, our_node(join=[alpha.port]) as ours:
        await until_all_see([alpha], ours, {"alpha": "alive", "ours": "alive"}, JOIN_S)
        await alpha.call("tags", "-set", "version=2")
        ours.gossip.set_tags({**TAGS, "leader": "yes"})

        async def crossed() -> bool:
            theirs = (await alpha.members())["ours"][1]
            return theirs.get("leader") == "yes" and ours.tags("alpha").get("version") == "2"

        await until(crossed, alpha.members, JOIN_S)


async def test_agents_cannot_force_our_living_node_out() -> None:
    async with (
        our_node() as ours,
        serf_agent("alpha", join=ours.port) as alpha,
        serf_agent("beta", join=ours.port) as beta,
    ):
        everyone = {"alpha": "alive", "beta": "alive", "ours": "alive"}
        await until_all_see([alpha, beta], ours, everyone, JOIN_S)
        await alpha.call("force-leave", "ours")
        await until_all_see([alpha, beta], ours, everyone, JOIN_S)
