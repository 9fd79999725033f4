"""Web workers and nodes die or hang at random under load: each browser sees each number once.

Three nodes with one or two web workers, a publisher of numbered events through JetStream, browsers
that reconnect with their last id, and what is done to whom out of a seed.
"""

import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from tests import promises
from tests.interop.cluster import Cluster, running_cluster
from tests.interop.processes import NodeProcess, web_workers_of

pytestmark = [pytest.mark.interop, pytest.mark.slow]

WORKERS = {"node1": 2, "node2": 1, "node3": 1}
REPLACED_S_MAX = 60.0
"""On a machine that is busy with everything else; nothing is measured with it."""
HARMS = (
    "kill a worker",
    "kill a worker",
    "kill all workers",
    "hang all workers of the leader",
    "kill a node",
    "kill a node",
)
BETWEEN_S_MAX = 0.5


async def until_all_workers_run(node: NodeProcess, *, without: int = 0) -> None:
    """Wait until a node has as many web workers as it should, and not that one."""
    with trio.fail_after(REPLACED_S_MAX):
        while True:
            there = web_workers_of(node.pid)
            if len(there) == WORKERS[node.name] and without not in there:
                return
            await trio.sleep(0.02)


async def harm(cluster: Cluster, what: str, rng: random.Random) -> None:
    """Do that, and wait until the node has what it should again."""
    node = rng.choice(cluster.nodes)
    if what.endswith("leader"):
        node = await cluster.leader()
    await until_all_workers_run(node)
    workers = web_workers_of(node.pid)
    rng.shuffle(workers)
    print(f"{what}: {node.name}, of {workers}")
    match what:
        case "kill a node":
            await node.kill()
            node.start()
            await node.until_up()
        case "kill a worker":
            os.kill(workers[0], signal.SIGKILL)
        case "kill all workers":
            for worker in workers:
                os.kill(worker, signal.SIGKILL)
        case _:
            for worker in workers:
                os.kill(worker, signal.SIGSTOP)
            await cluster.until_caught_up(node)
    await until_all_workers_run(node, without=workers[0])
    await trio.sleep(rng.uniform(0, BETWEEN_S_MAX))


@promises.WEB_WORKER_COSTS_A_RECONNECTION
@pytest.mark.parametrize("seed", [1])
async def test_nothing_is_lost_or_shown_twice_when_workers_and_nodes_die_at_random(
    seed: int, tmp_path: Path
) -> None:
    rng = random.Random(seed)

    def flags_of(name: str) -> Sequence[str]:
        return ("--web-workers", str(WORKERS[name]))

    async with running_cluster(tmp_path, flags_of) as cluster:
        for what in rng.sample(HARMS, len(HARMS)):
            await harm(cluster, what, rng)
        await cluster.finish()
        opened = sum(one.opened for one in cluster.subscribers)
        assert opened > len(cluster.subscribers), "nobody had to come back: nothing was tried"
