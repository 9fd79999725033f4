"""`/status?consistent=1` of real nodes: at a follower, at a paused leader, without a majority."""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from noti.address import Address
from tests import promises
from tests.http.stage import client
from tests.interop.processes import NodeProcess, written
from tests.interop.test_disk import publish
from tests.interop.test_publishing import leading

pytestmark = [pytest.mark.interop, pytest.mark.slow]

ANSWER_S_MAX = 20.0
CONSISTENT = "/status?consistent=1"


@asynccontextmanager
async def three_nodes(directory: Path) -> AsyncIterator[tuple[NodeProcess, list[NodeProcess]]]:
    """Run a cluster; give its leader and the others."""
    nodes = [NodeProcess(f"node{number}", directory) for number in (1, 2, 3)]
    join = [part for node in nodes for part in ("--join", written(node.gossip))]
    try:
        for node in nodes:
            node.start(*join, "--bootstrap-expect", "3")
        leader = await leading(nodes)
        yield leader, [node for node in nodes if node is not leader]
    except BaseException:
        for node in nodes:
            print(f"--- {node.name}\n{node.last_lines()}")
        raise
    finally:
        with trio.CancelScope(shield=True):
            for node in nodes:
                await node.destroy()


async def ask(address: Address, target: str = CONSISTENT) -> tuple[int, dict[str, Any]]:
    with trio.fail_after(ANSWER_S_MAX):
        async with client(address) as http:
            answer = await http.request(target)
            return answer.status_code, json.loads(await http.read_all())


@promises.CONSISTENT_READ
async def test_every_node_shows_what_was_acknowledged_before(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as (leader, followers):
        for number, node in enumerate([leader, *followers] * 5, start=1):
            assert await publish(leader, 1, 10, first=number) == 1
            code, status = await ask(node.ops)
            assert code == 200
            assert status["store"]["last_seq"] >= number, node.name


@promises.CONSISTENT_READ
async def test_paused_leader_never_shows_less_than_its_successor_acknowledged(
    tmp_path: Path,
) -> None:
    async with three_nodes(tmp_path) as (leader, followers):
        leader.signal(signal.SIGSTOP)
        successor = None
        with trio.fail_after(ANSWER_S_MAX):
            while successor is None:
                reports = [(node, await node.status()) for node in followers]
                leads = [node for node, report in reports if report and report["role"] == "leader"]
                successor = leads[0] if leads else None
        assert await publish(successor, 5, 10) == 5
        answers: list[tuple[int, dict[str, Any]]] = []

        async def ask_the_paused() -> None:
            answers.append(await ask(leader.ops))

        async with trio.open_nursery() as nursery:
            # The kernel takes the questions: they are the first that it sees when it goes on.
            for _ in range(3):
                nursery.start_soon(ask_the_paused)
            await trio.sleep(0.2)
            leader.signal(signal.SIGCONT)
        for code, status in answers:
            assert code == 503 or status["store"]["last_seq"] >= 5
        code, status = await ask(leader.ops)
        assert (code, status["store"]["last_seq"]) == (200, 5)


@promises.CONSISTENT_READ
async def test_without_a_majority_the_answer_is_that_there_is_none(tmp_path: Path) -> None:
    async with three_nodes(tmp_path) as (leader, followers):
        survivor = followers[0]
        await followers[1].kill()
        await leader.kill()
        code, status = await ask(survivor.ops)
        assert code == 503
        assert status == {
            "error": "no majority answered in time; without ?consistent=1 this node answers"
        }
        code, status = await ask(survivor.ops, "/status")
        assert (code, status["node"]["name"]) == (200, survivor.name)
        leader.start()
        await leader.until_up()
        assert (await ask(survivor.ops))[0] == 200
