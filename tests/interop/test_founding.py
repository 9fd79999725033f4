"""Real nodes that start together and are more than expected, as in a StatefulSet of five."""

from pathlib import Path

import pytest
import trio

from tests.interop.processes import NodeProcess, written

pytestmark = [pytest.mark.interop, pytest.mark.slow]

NODES, EXPECTED = 5, 3


async def test_five_nodes_of_which_three_are_expected_become_one_cluster(tmp_path: Path) -> None:
    nodes = [NodeProcess(f"node{number}", tmp_path) for number in range(1, NODES + 1)]
    try:
        for node in nodes:
            seeds = [word for other in nodes for word in ("--join", written(other.gossip))]
            node.start("--bootstrap-expect", str(EXPECTED), *seeds)
        with trio.fail_after(60):
            reports = [await node.until_up() for node in nodes]
    except BaseException:
        for node in nodes:
            print(node.last_lines())
        raise
    finally:
        with trio.CancelScope(shield=True):
            for node in nodes:
                await node.destroy()
    assert len({report["node"]["cluster_id"] for report in reports}) == 1
