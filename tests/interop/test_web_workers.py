"""Web workers and nodes die or hang at random under load: each browser sees each number once.

Three nodes with two web workers each, a publisher of numbered events through JetStream, browsers
that reconnect with their last id, and what is done to whom out of a seed.
"""

import os
import random
import signal
from pathlib import Path

import pytest
import trio

from tests import promises
from tests.interop.cluster import SETTLE_S_MAX, Cluster, running_cluster
from tests.interop.processes import NodeProcess, web_workers_of

pytestmark = [pytest.mark.interop, pytest.mark.slow]

WORKERS = 2
STEPS = 6
BETWEEN_S_MAX = 0.5


async def until_all_workers_run(node: NodeProcess, *, without: int = 0) -> None:
    """Wait until a node has as many web workers as it should, and not that one."""
    with trio.fail_after(SETTLE_S_MAX):
        while len(there := web_workers_of(node.pid)) < WORKERS or without in there:  # noqa: ASYNC110
            await trio.sleep(0.02)


async def harm(cluster: Cluster, rng: random.Random) -> None:
    """Do something to a web worker, or kill a node, and wait until it has what it should again."""
    node = rng.choice(cluster.nodes)
    await until_all_workers_run(node)
    victim = rng.choice(web_workers_of(node.pid))
    what = rng.choices(
        ("kill worker", "kill all workers", "hang worker", "kill node"), (6, 2, 1, 2)
    )
    print(f"{what[0]}: {node.name}, {victim}")
    match what[0]:
        case "kill worker":
            os.kill(victim, signal.SIGKILL)
        case "kill all workers":
            for worker in web_workers_of(node.pid):
                os.kill(worker, signal.SIGKILL)
        case "hang worker":
            os.kill(victim, signal.SIGSTOP)
        case _:
            await node.kill()
            node.start()
            await node.until_up()
    await until_all_workers_run(node, without=victim)
    await trio.sleep(rng.uniform(0, BETWEEN_S_MAX))


@promises.WEB_WORKER_COSTS_A_RECONNECTION
@pytest.mark.parametrize("seed", [1])
async def test_nothing_is_lost_or_shown_twice_when_workers_and_nodes_die_at_random(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)
    async with running_cluster(tmp_path, lambda _: ("--web-workers", str(WORKERS))) as cluster:
        leaders = {(await cluster.leader()).name}
        for _ in range(STEPS):
            await harm(cluster, rng)
        leaders.add((await cluster.leader()).name)
        print(f"led: {leaders}")
        await cluster.finish()
        opened = sum(one.opened for one in cluster.subscribers)
        assert opened > len(cluster.subscribers), "nobody had to come back: nothing was tried"


@promises.WEB_WORKER_COSTS_A_RECONNECTION
async def test_node_goes_on_leading_while_its_web_workers_hang(tmp_path: Path) -> None:
    async with running_cluster(tmp_path, lambda _: ("--web-workers", str(WORKERS))) as cluster:
        leader = await cluster.leader()
        term = (await leader.until_up())["term"]
        workers = web_workers_of(leader.pid)
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        for worker in workers:
            await until_all_workers_run(leader, without=worker)
        after = await leader.until_up()
        assert (after["role"], after["term"]) == ("leader", term)
        await cluster.finish()
