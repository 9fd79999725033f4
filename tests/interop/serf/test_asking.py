"""Requests to all members cross between nodes of ours and Serf agents, and answers come back."""

import pytest

from tests.interop.serf.fleets import fleet, until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]

RTT_S_MAX = 0.1
"""Between processes of one machine it is less, even on a busy one."""


async def test_round_trips_are_estimated_between_agents_and_nodes() -> None:
    async with fleet(agents=2, nodes=2) as four:

        async def estimated() -> bool:
            for pair in (("node1",), ("node1", "node2"), ("agent2", "node2")):
                said = await four.agents[0].ask("rtt", *pair)
                if said.status != 0:
                    return False
                assert 0 < float(said.text.split()[-2]) < RTT_S_MAX * 1000, said.text
            return True

        await until(estimated, lambda: four.agents[0].ask("rtt", "node1", "node2"))
