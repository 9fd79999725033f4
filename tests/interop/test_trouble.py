"""A disk that hangs, and a data directory of yesterday: seen, said, and survived.

The writer of a node's data directory is a process of its own; stopped, it is what a cloud volume is
that gives neither success nor error.
"""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.interop.cluster import running_cluster
from tests.interop.processes import NodeProcess, children_of, get_json, running_node, why_it_ended
from tests.interop.test_cluster import RECOVERY_S_MAX, STOP_S_MAX
from tests.interop.test_consistent import three_nodes
from tests.interop.test_disk import publish

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SAYS_S_MAX = 10.0
ENDS_S_MAX = 20.0
"""A node starts in one or two; its leader speaks to it soon after."""


@contextmanager
def hung_disk(node: NodeProcess) -> Iterator[None]:
    """Let the writer of a node's data directory say nothing for a while."""
    [writer] = children_of(node.pid)
    os.kill(writer, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it ended with its node
            os.kill(writer, signal.SIGCONT)


async def until_it_says(node: NodeProcess, trouble: str) -> dict[str, Any]:
    """Wait until a node is not ready because of this; return what `/readiness` tells of it."""
    with trio.fail_after(SAYS_S_MAX):
        while True:
            told = await get_json(node.ops, "/readiness")
            if isinstance(told, dict):
                for one in told["troubles"]:
                    if one["trouble"] == trouble:
                        return dict(one)
            await trio.sleep(0.05)


async def until_well(node: NodeProcess) -> None:
    """Wait until a node is ready again."""
    with trio.fail_after(SAYS_S_MAX):
        await node.until_up()


def lines(node: NodeProcess, words: str) -> list[str]:
    return [line for line in node.log_text().splitlines() if words in line]


async def test_others_publish_again_when_the_disk_of_the_leader_hangs(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        others, hung_at = cluster.others(leader), time.monotonic()
        with hung_disk(leader):
            await trio.sleep(2 * RECOVERY_S_MAX)
            silence_s = cluster.longest_silence_s(hung_at, others)
            print(f"longest silence at the others {silence_s:.2f} s")
            assert silence_s < RECOVERY_S_MAX
            told = await until_it_says(leader, "disk")
            assert told["for_s"] > 0.5
            reports = [await node.status() for node in others]
            assert any(report and report["role"] == "leader" for report in reports)
            assert len(lines(leader, "the disk does not answer")) == 1
            assert lines(leader, "the disk answers again") == []
        await until_well(leader)
        assert len(lines(leader, "the disk answers again")) == 1
        await cluster.until_caught_up(leader)
        await cluster.finish()


async def test_publisher_at_any_other_node_gets_an_answer_soon_after_the_disk_of_the_leader_hung(
    tmp_path: Path,
) -> None:
    async with three_nodes(tmp_path) as (leader, followers):
        hung_at = time.monotonic()
        with hung_disk(leader):
            number = 0
            while await publish(followers[0], 1, 100, first=number) == 0:
                number += 1
            published_s = time.monotonic() - hung_at
            print(f"a publisher got his answer {published_s:.2f} s after the disk hung")
            assert published_s < RECOVERY_S_MAX
        await until_well(leader)


async def test_what_was_forwarded_to_a_leader_that_stopped_ends_when_that_is_replaced(
    tmp_path: Path,
) -> None:
    """Its stream lives on for many seconds: nobody has closed it."""
    async with three_nodes(tmp_path) as (leader, followers):
        stopped_at = leader.signal(signal.SIGSTOP)
        try:
            assert await publish(followers[0], 1, 100) == 0, "nobody knows what became of it"
            answered_s = time.monotonic() - stopped_at
            print(f"the publisher knew {answered_s:.2f} s after the leader stopped")
            assert answered_s < RECOVERY_S_MAX
            number = 1
            while await publish(followers[0], 1, 100, first=number) == 0:
                number += 1
            assert time.monotonic() - stopped_at < 2 * RECOVERY_S_MAX
        finally:
            leader.signal(signal.SIGCONT)
        await until_well(leader)


async def test_follower_whose_disk_hangs_reports_it_and_changes_nothing(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        term = (await leader.until_up())["term"]
        follower = cluster.others(leader)[0]
        with hung_disk(follower):
            await until_it_says(follower, "disk")
            hung_at = time.monotonic()
            await trio.sleep(RECOVERY_S_MAX)
            silence_s = cluster.longest_silence_s(hung_at, cluster.others(follower))
            assert silence_s < RECOVERY_S_MAX
        await until_well(follower)
        assert (await leader.until_up())["term"] == term, "it did not campaign"
        await cluster.until_caught_up(follower)
        await cluster.finish()


async def test_node_whose_disk_hangs_stops_in_time(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, trio.open_nursery() as nursery:
        with hung_disk(node):
            nursery.start_soon(publish, node, 1, 100)
            await until_it_says(node, "disk")
            node.signal(signal.SIGTERM)
            with trio.fail_after(STOP_S_MAX):
                assert await node.wait() == 0
            assert "internal error" not in node.log_text()


async def test_node_with_the_data_directory_of_yesterday_ends_with_what_to_do(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = cluster.others(leader)[0]
        copy = tmp_path / "yesterday"
        await follower.kill()
        shutil.copytree(follower.data_dir, copy, ignore=shutil.ignore_patterns("*.sock"))
        follower.start()
        await cluster.until_caught_up(follower)
        await cluster.until_everybody_has(cluster.publisher.acknowledged + 20)
        await follower.kill()
        shutil.rmtree(follower.data_dir)
        copy.rename(follower.data_dir)
        follower.start()
        with trio.fail_after(ENDS_S_MAX):
            assert await follower.wait() == 1
        line = why_it_ended(follower.log_text())
        assert "is an old copy" in line
        assert "delete it and let the node join again as a new one" in line
        assert len(lines(leader, "a voter has forgotten what it had on disk")) == 1
        shutil.rmtree(follower.data_dir)
        follower.start()
        await cluster.until_caught_up(follower)
        await cluster.finish()
