"""`noti leave` on real processes, under 50 events a second: 3 -> 1 -> 3, nothing lost or twice."""

import signal
import time
from functools import partial
from pathlib import Path

import pytest
import trio

from noti.membership.controller import LOOK_EVERY_S
from tests import promises
from tests.interop.cluster import SETTLE_S_MAX, running_cluster
from tests.interop.processes import NodeProcess, run_to_end

pytestmark = [pytest.mark.interop, pytest.mark.slow]


async def leave(node: NodeProcess) -> tuple[int, str]:
    """Run the command of a person or of a container's preStop; return its status and its line."""
    command = [*node.command()[:3], "leave", "--data-dir", str(node.data_dir)]
    ended = await trio.to_thread.run_sync(partial(run_to_end, command))
    [line] = (ended.stdout + ended.stderr).splitlines()
    return ended.returncode, line


async def leave_and_stop(node: NodeProcess) -> None:
    assert await leave(node) == (
        0,
        "the node does not vote any more; it may be stopped permanently",
    )
    node.signal(signal.SIGTERM)
    assert await node.wait() == 0


@promises.DECOMMISSION_KEEPS_QUORUM
async def test_nothing_is_lost_when_three_become_one_and_three_again(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        staying, *leavers = [*cluster.others(leader), leader]
        async with trio.open_nursery() as both:
            for node in leavers:
                both.start_soon(leave_and_stop, node)
        await cluster.until_these_vote([staying])
        await cluster.until_everybody_has(cluster.publisher.acknowledged + 50)
        status, line = await leave(staying)
        assert status == 1
        assert line.startswith("noti: error: this node is the last voter of its cluster")
        for node in leavers:
            node.start()
        await cluster.until_these_vote(cluster.nodes)
        # Two of three are a majority again, whoever is missing.
        await staying.kill()
        await cluster.until_everybody_has(cluster.publisher.acknowledged + 50)
        staying.start()
        await cluster.until_caught_up(staying)
        await cluster.finish()


@promises.DRAINED_ONE_BY_ONE
async def test_browsers_of_a_node_that_left_see_events_until_they_are_sent_away(
    tmp_path: Path,
) -> None:
    """A leave takes it off the members at once, with its browsers still on it."""
    drain = ["--sse-drain-s", "8", "--shutdown-deadline-s", "20"]
    async with running_cluster(tmp_path, lambda _: drain) as cluster:
        leader = await cluster.leader()
        leaver = cluster.others(leader)[0]
        assert (await leave(leaver))[0] == 0
        leaver.signal(signal.SIGTERM)
        with trio.fail_after(SETTLE_S_MAX):
            while leaver.name not in await left(leader):  # noqa: ASYNC110
                await trio.sleep(0.02)
        await trio.sleep(2 * LOOK_EVERY_S)  # the leader has acted upon it by now
        left_at = time.monotonic()
        await cluster.recovery_s(left_at, [leaver])
        assert await leaver.wait() == 0
        leaver.start()
        await cluster.until_these_vote(cluster.nodes)
        await cluster.finish()


async def left(node: NodeProcess) -> set[str]:
    """Return who has left, as a node sees it."""
    members = (await node.until_up())["members"]
    return {member["name"] for member in members if member["state"] == "left"}
