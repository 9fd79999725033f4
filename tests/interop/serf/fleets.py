"""Clusters of Serf agents and nodes of ours, and what all of them think of each other."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from noti.swim.core.keyring import format_key
from tests.interop.serf.agents import SerfAgent, serf_agent
from tests.interop.serf.nodes import OurNode, our_node, tags_of_ours

JOIN_S = 45.0
"""All that a member knows goes to some other one every 15 s; gossip in between may get lost."""

FAILED_S = 6.0
"""So soon a killed member is shown as failed: mostly a probe of it begins within 2 s and ends after
1 s, and two who share the suspicion need 3 s."""
DETECT_S = 30.0
"""Always in this time: the longest suspicion is 18 s."""

GONE = "gone"

POLL_S = 0.1
LOOK_S = 0.1
"""A look at everybody takes no longer on a machine that is not busy with something else."""


async def until(
    promise: Callable[[], Awaitable[bool]],
    shown: Callable[[], Awaitable[object]],
    within_s: float = JOIN_S,
) -> None:
    """Wait for something; when it does not come, fail with what is `shown` then.

    While the machine is too busy even to look, the time does not count.
    """
    left_s, looked_at = within_s, trio.current_time()
    while not await promise():
        if left_s <= 0:
            raise AssertionError(f"not so after {within_s} s: {await shown()}")
        await trio.sleep(POLL_S)
        now = trio.current_time()
        left_s -= min(POLL_S + LOOK_S, now - looked_at)
        looked_at = now


class Fleet:
    """Some agents and some nodes of one cluster."""

    def __init__(self) -> None:
        self.agents: list[SerfAgent] = []
        self.nodes: list[OurNode] = []

    @property
    def members(self) -> list[SerfAgent | OurNode]:
        """All of them, also those that are gone."""
        return [*self.agents, *self.nodes]

    async def views(self, *, without: Collection[str] = ()) -> dict[str, Mapping[str, str]]:
        """Return what each member, but for some, thinks of all."""
        views: dict[str, Mapping[str, str]] = {}

        async def ask(member: SerfAgent | OurNode) -> None:
            views[member.name] = await member.statuses()

        async with trio.open_nursery() as nursery:
            for member in self.members:
                if member.name not in without:
                    nursery.start_soon(ask, member)
        return views

    async def until_all_see(
        self,
        changed: Mapping[str, str] | None = None,
        *,
        without: Collection[str] = (),
        within_s: float = JOIN_S,
    ) -> None:
        """Wait until all members, but for some, see everyone alive but for what has `changed`.

        Statuses are in Serf's words, and GONE for one that nobody lists any more.
        """
        everyone = {member.name: "alive" for member in self.members} | dict(changed or {})
        wanted = {name: status for name, status in everyone.items() if status != GONE}

        async def agreed() -> bool:
            views = await self.views(without=without)
            return all(view == wanted for view in views.values())

        await until(agreed, self.views, within_s)


@asynccontextmanager
async def fleet(
    *,
    agents: int,
    nodes: int,
    through: str | None = None,
    keys: Sequence[bytes] = (),
    arguments: Sequence[str] = (),
) -> AsyncIterator[Fleet]:
    """Run agents and nodes that join each other; all see all when the context is entered.

    They are called agent1, node1 and so on; `arguments` are for the agents, which get the first of
    the `keys`. All join `through` that
    one; without, each one joins all before it, which takes less time: news are gossiped so rarely
    in the `local` profile that some member may miss one, and be told 15 s later.
    """
    both = Fleet()
    encrypt = [f"-encrypt={format_key(keys[0])}"] if keys else []
    names = [f"agent{number + 1}" for number in range(agents)]
    names += [f"node{number + 1}" for number in range(nodes)]
    names.sort(key=lambda name: name != through)
    async with AsyncExitStack() as stack:
        ports: list[int] = []
        for name in names:
            seeds = ports[:1] if through else ports
            if name.startswith("agent"):
                running = serf_agent(name, *encrypt, *arguments, join=seeds, tags={"colour": name})
                both.agents.append(await stack.enter_async_context(running))
                ports.append(both.agents[-1].port)
            else:
                both.nodes.append(
                    await stack.enter_async_context(our_node(name, join=seeds, keys=keys))
                )
                ports.append(both.nodes[-1].port)
        await both.until_all_see()
        yield both


def tags_in(both: Fleet) -> dict[str, Mapping[str, str]]:
    """Return the tags with which all were started."""
    agents = {agent.name: {"colour": agent.name} for agent in both.agents}
    return {**agents, **{node.name: tags_of_ours(node.name) for node in both.nodes}}
