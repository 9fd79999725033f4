"""The last release and this one in one cluster: upgraded under load, taken back, and raised."""

import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from noti.history.levels import SUPPORTED
from tests import promises
from tests.interop.cluster import Cluster, running_cluster, until
from tests.interop.last_release import last_release, program_in, supported_in
from tests.interop.processes import PROGRAM, NodeProcess

pytestmark = [pytest.mark.interop, pytest.mark.slow]

REFUSALS = ("install 0.7.0 or newer", "run the same release on all nodes of the cluster")
"""What an old node is told by one that it dials, or says of one that dials it."""


async def exchange(cluster: Cluster, node: NodeProcess, program: Sequence[str]) -> None:
    """Stop a node in order, and run another program with its data; return when it is ready."""
    await stop(node)
    node.program = program
    cluster.start_node(node)
    await cluster.until_caught_up(node)


async def stop(node: NodeProcess) -> None:
    node.signal(signal.SIGTERM)
    assert await node.wait() == 0


async def levels(cluster: Cluster) -> set[int]:
    return {report.get("level", 0) for report in await cluster.reports()}


async def until_raised(cluster: Cluster) -> None:
    with trio.fail_after(20):
        while await levels(cluster) != {SUPPORTED}:  # noqa: ASYNC110
            await trio.sleep(0.05)


@promises.UPGRADED_ONE_BY_ONE
async def test_nodes_are_upgraded_one_by_one_and_back_and_lose_nothing(tmp_path: Path) -> None:
    release = tmp_path / "release"
    last_release(release)
    old, first_level = program_in(release), supported_in(release)
    async with running_cluster(tmp_path, program=old) as cluster:
        one, two, three = cluster.nodes
        await exchange(cluster, one, PROGRAM)
        await exchange(cluster, two, PROGRAM)
        assert await levels(cluster) == {first_level}
        await exchange(cluster, one, old)
        for node in (one, three):
            await exchange(cluster, node, PROGRAM)
        await until_raised(cluster)
        if first_level < SUPPORTED:
            await is_refused(cluster, two, old)
            await exchange(cluster, two, PROGRAM)
        await cluster.finish()


async def is_refused(cluster: Cluster, node: NodeProcess, old: Sequence[str]) -> None:
    """Run an old program with a node's data: it is told why it is not let in, and waits."""
    await stop(node)
    before = len(node.log_text())
    node.program = old
    cluster.start_node(node)
    await until(
        lambda: any(line in node.log_text()[before:] for line in REFUSALS), "the old node is told"
    )
    report = await node.status()
    assert report is not None
    assert not report["ready"]
