"""Events and queries cross between nodes of ours and Serf agents, and answers come back."""

import json

import pytest
import trio

from noti.swim.serf_requests import QueryAnswer
from tests import promises
from tests.interop.serf.fleets import Fleet, fleet, until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow,
    pytest.mark.serf,
    pytest.mark.timeout(90),
]

HANDLER = "-event-handler=query:greet=echo hello from $SERF_SELF_NAME"
EVERYONE = {"agent1", "agent2", "node1", "node2"}
RTT_S_MAX = 0.1
"""Between processes of one machine it is less, even on a busy one."""


@promises.SERF_AGENTS_ARE_PEERS
async def test_events_of_each_side_reach_all_agents() -> None:
    async with fleet(agents=2, nodes=2) as four:
        await four.agents[0].call("event", "-coalesce=false", "from-agent", "abc123")
        four.nodes[0].gossip.send_event("from-node", b"abc123", coalesce=False)

        async def all_have_received() -> bool:
            logs = [agent.log_text() for agent in four.agents]
            names = ("from-agent", "from-node")
            return all(f"user-event: {name}" in log for log in logs for name in names)

        await until(all_have_received, lambda: _logs(four))


@promises.SERF_AGENTS_ARE_PEERS
async def test_all_ack_and_agents_answer_a_query_of_each_side() -> None:
    async with fleet(agents=2, nodes=2, arguments=[HANDLER]) as four:
        said = await four.agents[0].call("query", "-format=json", "greet", "x")
        answered = json.loads(said)
        assert set(answered["Acks"]) == EVERYONE
        assert answered["Responses"] == {
            name: f"hello from {name}\n" for name in ("agent1", "agent2")
        }
        acks, payloads = await _heard(four.nodes[0].gossip.query("greet", wants_acks=True))
        assert acks == EVERYONE
        assert payloads == {name: f"hello from {name}\n" for name in ("agent1", "agent2")}


async def test_only_those_answer_whom_a_query_names() -> None:
    async with fleet(agents=2, nodes=2) as four:
        for filters, named in (
            (["-node=node2", "-node=agent2"], {"node2", "agent2"}),
            (["-tag=role=^no"], {"node1", "node2"}),
            (["-tag=colour=2$"], {"agent2"}),
        ):
            said = await four.agents[0].call("query", "-format=json", *filters, "who")
            assert set(json.loads(said)["Acks"] or ()) == named
        query = four.nodes[0].gossip.query
        acks, _ = await _heard(query("who", nodes=["agent1", "node1"], wants_acks=True))
        assert acks == {"agent1", "node1"}
        acks, _ = await _heard(query("who", tags={"colour": "1$"}, wants_acks=True))
        assert acks == {"agent1"}


async def test_relayed_answers_reach_who_asked() -> None:
    async with fleet(agents=2, nodes=2, arguments=[HANDLER]) as four:
        said = await four.agents[0].call("query", "-format=json", "-relay-factor=2", "greet")
        assert set(json.loads(said)["Acks"]) == EVERYONE
        answers = four.nodes[0].gossip.query("greet", wants_acks=True, relay_factor=2)
        acks, payloads = await _heard(answers)
        assert acks == EVERYONE
        assert set(payloads) == {"agent1", "agent2"}


@promises.SERF_AGENTS_ARE_PEERS
async def test_reachability_has_no_complaint() -> None:
    async with fleet(agents=3, nodes=3) as six:
        said = await six.agents[0].call("reachability")
        assert "Successfully contacted all live nodes" in said
        assert "live members: 6" in said


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


async def _heard(
    answers: trio.MemoryReceiveChannel[QueryAnswer],
) -> tuple[set[str], dict[str, str]]:
    """Return who acked a query of ours, each once, and what agents answered, until it ends."""
    acks: list[str] = []
    payloads: dict[str, str] = {}
    with trio.fail_after(30):
        async for answer in answers:
            if answer.is_ack:
                acks.append(answer.node)
            else:
                payloads[answer.node] = answer.payload.decode()
    assert len(acks) == len(set(acks))
    return set(acks), payloads


async def _logs(four: Fleet) -> list[str]:
    return [agent.log_text() for agent in four.agents]
