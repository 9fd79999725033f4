"""Nodes of ours and real Serf agents form one cluster."""

import pytest

from tests import promises
from tests.interop.serf.fleets import fleet, tags_in, until
from tests.interop.serf.nodes import tags_of_ours

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]


KEY = bytes(range(32))
SHORT_KEY = bytes(range(16))


@promises.SERF_AGENTS_ARE_PEERS
@pytest.mark.parametrize(
    ("through", "arguments", "keys"),
    [
        ("agent1", [], []),
        ("node1", [], []),
        ("agent1", ["-disable-compression"], []),
        ("agent1", [], [KEY]),
        ("node1", [], [KEY]),
        ("node1", ["-disable-compression"], [SHORT_KEY]),
    ],
)
async def test_three_agents_and_three_nodes_list_the_same_six_with_tags(
    through: str, arguments: list[str], keys: list[bytes]
) -> None:
    setup = fleet(agents=3, nodes=3, through=through, arguments=arguments, keys=keys)
    async with setup as six:
        for member in six.members:
            listed = (await member.members()).items()
            assert {name: tags for name, (_, tags) in listed} == tags_in(six)


async def test_new_tags_cross_in_both_directions() -> None:
    async with fleet(agents=1, nodes=1) as two:
        agent, node = two.agents[0], two.nodes[0]
        await agent.call("tags", "-set", "version=2")
        changed = {**tags_of_ours("node1"), "leader": "yes"}
        node.gossip.set_tags(changed)

        async def crossed() -> bool:
            theirs, ours = (await agent.members())["node1"][1], (await node.members())["agent1"][1]
            return theirs == changed and ours == {"colour": "agent1", "version": "2"}

        await until(crossed, agent.members)
