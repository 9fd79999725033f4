"""Keys of nodes of ours and of Serf agents are changed by either, and strangers stay outside."""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from noti.swim.core.keyring import format_key
from noti.swim.core.sealing import Encryption
from tests.interop.serf.agents import HOST, serf_agent
from tests.interop.serf.fleets import until
from tests.interop.serf.nodes import our_node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]

OLD, NEW = (secrets.token_bytes(32) for _ in range(2))


async def test_an_agent_with_another_key_or_none_stays_outside_and_hears_why() -> None:
    async with (
        our_node("node1", keys=[OLD]) as node,
        serf_agent("plain") as plain,
        serf_agent("stranger", f"-encrypt={format_key(NEW)}") as stranger,
    ):
        for agent, reason in (
            (plain, "remote error: the stream is not encrypted, and this node requires that"),
            (stranger, "No installed keys could decrypt the message"),
        ):
            said = await agent.ask("join", f"{HOST}:{node.port}")
            assert said.status != 0
            assert reason in said.text
            assert set(await node.statuses()) == {"node1"}
            assert set(await agent.statuses()) == {agent.name}


async def test_a_node_without_the_agents_key_stays_outside_and_says_why() -> None:
    encrypt = f"-encrypt={format_key(OLD)}"
    async with serf_agent("keyed", encrypt) as keyed, serf_agent("plain") as plain:
        for agent, keys, reason in (
            (keyed, [], "the stream is encrypted, and this node has no gossip key"),
            (keyed, [NEW], "encrypted under none of our keys, or changed on its way"),
            (plain, [NEW], "Remote state is encrypted and encryption is not configured"),
        ):
            with capture_logs() as logs:
                async with our_node("node1", keys=keys, join=[agent.port]) as node:
                    await until(partial(_is_told, reason, logs), partial(_all, logs))
                    assert set(await node.statuses()) == {"node1"}
                    assert set(await agent.statuses()) == {agent.name}


async def test_nodes_get_their_keys_beside_agents_that_have_none_yet() -> None:
    async with (
        serf_agent("agent1") as agent,
        our_node("node1", keys=[OLD], encryption=Encryption.UNDERSTOOD, join=[agent.port]) as node,
    ):

        async def met() -> bool:
            return set(await agent.statuses()) == set(await node.statuses()) == {"agent1", "node1"}

        await until(met, agent.statuses)


async def _is_told(reason: str, logs: Sequence[Mapping[str, Any]]) -> bool:
    return any(reason in str(line.get("reason")) for line in logs)


async def _all(logs: object) -> object:
    return logs
