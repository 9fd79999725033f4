"""Keys of nodes of ours and of Serf agents are changed by either, and strangers stay outside."""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from noti.swim.core.keyring import format_key
from noti.swim.core.sealing import Encryption
from noti.swim.core.serf.key_queries import KeyOperation
from tests import promises
from tests.interop.serf.agents import HOST, serf_agent
from tests.interop.serf.fleets import Fleet, fleet, until
from tests.interop.serf.nodes import our_node, tags_of_ours

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]

OLD, NEW = (secrets.token_bytes(32) for _ in range(2))


@promises.SERF_AGENTS_ARE_PEERS
async def test_agents_rotate_the_key_of_all() -> None:
    async with fleet(agents=2, nodes=2, keys=[OLD]) as four:
        agent = four.agents[0]
        await agent.call("keys", f"-install={format_key(NEW)}")
        listed = await agent.call("keys", "-list")
        for key in (OLD, NEW):
            assert f"{format_key(key)} [4/4]" in " ".join(listed.split()), listed
        await agent.call("keys", f"-use={format_key(NEW)}")
        assert [node.keys for node in four.nodes] == [(NEW, OLD)] * 2
        await agent.call("keys", f"-remove={format_key(OLD)}")
        assert [node.keys for node in four.nodes] == [(NEW,)] * 2
        await _see_news_cross(four)


@promises.SERF_AGENTS_ARE_PEERS
async def test_nodes_rotate_the_key_of_all() -> None:
    async with fleet(agents=2, nodes=2, keys=[OLD]) as four:
        gossip = four.nodes[0].gossip
        for operation, key in (
            (KeyOperation.INSTALL, NEW),
            (KeyOperation.USE, NEW),
            (KeyOperation.REMOVE, OLD),
        ):
            report = await gossip.keys_query(operation, key)
            assert not report.silent
            assert all(answer.done for answer in report.answers), report
        listed = await gossip.keys_query(KeyOperation.LIST)
        assert {answer.node for answer in listed.answers} == {"agent1", "agent2", "node1", "node2"}
        assert {answer.keys for answer in listed.answers} == {(format_key(NEW),)}
        said = await four.agents[0].call("keys", "-list")
        assert f"{format_key(NEW)} [4/4]" in " ".join(said.split())
        assert [node.keys for node in four.nodes] == [(NEW,)] * 2
        await _see_news_cross(four)


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


async def _see_news_cross(four: Fleet) -> None:
    """Change tags on both sides, and wait until all see that."""
    await four.agents[0].call("tags", "-set", "version=2")
    changed = {**tags_of_ours("node1"), "leader": "yes"}
    four.nodes[0].gossip.set_tags(changed)

    async def crossed() -> bool:
        seen = [await member.members() for member in four.members]
        expected = ({"colour": "agent1", "version": "2"}, changed)
        return all((each["agent1"][1], each["node1"][1]) == expected for each in seen)

    await until(crossed, four.views)
    await four.until_all_see()
