"""A real cluster under load loses nothing, whatever is done to its processes.

Each test runs nats-server, three `noti run`, a publisher of numbered events at 50 a second, and six
browsers that reconnect with their last id. At the end each browser must have seen every number that
JetStream acknowledged, once, in order, and so must a newcomer at every node.
"""

import shutil
import signal
import time
from pathlib import Path

import pytest
import trio

from tests import promises
from tests.interop.cluster import Cluster, running_cluster, until
from tests.interop.processes import NodeProcess, children_of, is_running

pytestmark = [pytest.mark.interop, pytest.mark.slow]

RECOVERY_S_MAX = 3.0
"""A promise: so soon after a leader's death the next event is delivered."""
STOP_S_MAX = 10.0
"""A promise: so soon after SIGTERM a node is gone."""
PAUSE_S = 5.0
"""Ten election timeouts: the paused leader is long deposed when it goes on."""

RUNS_AFTER_PAUSE_S = 30.0
"""What it meets then may end it only after it has parted with its browsers, for 20 s at most."""


async def recovered(cluster: Cluster, leader: NodeProcess, since: float) -> None:
    """The others deliver events again in time, after their leader fell silent."""
    recovery_s = await cluster.recovery_s(since, cluster.others(leader))
    print(f"next new event {recovery_s * 1000:.0f} ms after the leader fell silent")
    assert recovery_s < RECOVERY_S_MAX


@promises.HOLDS_FOR_PROCESSES
async def test_nothing_is_lost_when_the_leader_is_killed_and_returns(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        await recovered(cluster, leader, await leader.kill())
        leader.start()
        await cluster.until_caught_up(leader)
        await cluster.finish()


@promises.HOLDS_FOR_PROCESSES
async def test_nothing_is_lost_when_a_follower_is_killed_and_returns(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        follower = cluster.others(leader)[0]
        killed_at = await follower.kill()
        await cluster.recovery_s(killed_at, cluster.others(follower))
        assert (await leader.until_up())["role"] == "leader", "it need not care"
        follower.start()
        await cluster.until_caught_up(follower)
        await cluster.finish()


@promises.HOLDS_FOR_PROCESSES
async def test_nothing_is_lost_in_a_rolling_restart(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        for node in cluster.nodes:
            was_leader = node is await cluster.leader()
            asked_at = node.signal(signal.SIGTERM)
            with trio.fail_after(STOP_S_MAX):
                assert await node.wait() == 0
            stop_s = time.monotonic() - asked_at
            assert node.listens() == []
            node.start()
            await cluster.until_caught_up(node)
            silence_s = cluster.longest_silence_s(asked_at, cluster.others(node))
            print(
                f"{node.name}{' (leader)' if was_leader else ''}: stopped in {stop_s:.2f} s, "
                f"longest silence at the others {silence_s * 1000:.0f} ms"
            )
        await cluster.finish()


@promises.HOLDS_FOR_PROCESSES
async def test_nothing_is_lost_when_the_leader_is_paused_and_goes_on(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        paused_at = leader.signal(signal.SIGSTOP)
        await recovered(cluster, leader, paused_at)
        await trio.sleep(paused_at + PAUSE_S - time.monotonic())
        leader.signal(signal.SIGCONT)
        await cluster.until_caught_up(leader)
        with trio.move_on_after(paused_at + PAUSE_S + RUNS_AFTER_PAUSE_S - time.monotonic()):
            pytest.fail(f"the paused node ended: {await leader.wait()}")
        await cluster.finish()


@promises.HOLDS_FOR_PROCESSES
async def test_nothing_is_lost_when_nats_is_killed_and_returns(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        await cluster.nats.kill()
        await cluster.until_source_is("waiting", leader)
        await cluster.nats.start()
        recovery_s = await cluster.recovery_s(time.monotonic(), cluster.nodes)
        print(f"next new event {recovery_s * 1000:.0f} ms after NATS was back")
        await cluster.finish()


@promises.FULL_OUTAGE_SURVIVED
@promises.HOLDS_FOR_PROCESSES
async def test_nothing_is_lost_when_all_nodes_are_killed_at_once_and_return(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path) as cluster:
        await cluster.kill_all()
        started_at = time.monotonic()
        for node in cluster.nodes:
            node.start()
        recovery_s = await cluster.recovery_s(started_at, cluster.nodes)
        print(f"next new event {recovery_s * 1000:.0f} ms after all nodes were started")
        await cluster.finish()


@promises.FULL_OUTAGE_SURVIVED
@promises.HOLDS_FOR_PROCESSES
async def test_nothing_is_lost_when_all_nodes_return_at_other_addresses(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        before = await cluster.reports()
        old_ports = {node.http for node in cluster.nodes}
        await cluster.kill_all()
        killed_at, shown = time.monotonic(), [one.last for one in cluster.subscribers]
        cluster.return_elsewhere()
        assert old_ports.isdisjoint(node.http for node in cluster.nodes)
        recovery_s = await cluster.recovery_s(killed_at, cluster.nodes)
        print(f"next new event {recovery_s * 1000:.0f} ms after all nodes were killed")
        await cluster.until_everybody_has(max(shown) + 50)
        for node in cluster.nodes:
            await cluster.until_caught_up(node)
        for report, earlier in zip(await cluster.reports(), before, strict=True):
            for identity in ("name", "node_id", "cluster_id"):
                assert report["node"][identity] == earlier["node"][identity]
            assert report["store"]["first_seq"] == earlier["store"]["first_seq"] == 1
            assert report["store"]["last_seq"] >= max(shown)
            assert report["term"] > earlier["term"]
            assert report["voters"] == len(cluster.nodes)
        await cluster.finish()


@promises.ONE_VOTE_A_TERM
async def test_wiped_node_returns_as_another_one_and_replaces_its_old_self(
    tmp_path: Path,
) -> None:
    async with running_cluster(tmp_path, lambda _: ["--voter-hold-down-s", "1"]) as cluster:
        wiped, other = cluster.others(await cluster.leader())
        before = (await wiped.until_up())["node"]
        await wiped.kill()
        shutil.rmtree(wiped.data_dir)
        wiped.start()
        await cluster.until_these_vote(cluster.nodes)
        after = (await wiped.until_up())["node"]
        assert after["node_id"] != before["node_id"]
        assert {**after, "node_id": ""} == {**before, "node_id": ""}
        # Its vote counts: without the third node, nothing is committed without it.
        await other.kill()
        await cluster.until_everybody_has(cluster.publisher.acknowledged + 50)
        other.start()
        await cluster.until_caught_up(other)
        await cluster.finish()


async def test_a_poison_message_blocks_nothing_and_is_counted_once(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        await cluster.publisher.publish_garbage()
        await cluster.recovery_s(time.monotonic(), cluster.nodes)
        # Had it not been terminated, the next session would meet it again.
        await cluster.nats.kill()
        await cluster.until_source_is("waiting", leader)
        await cluster.nats.start()
        await cluster.recovery_s(time.monotonic(), cluster.nodes)
        assert [report["source"]["dead_letters"] for report in await cluster.reports()] == [
            int(node is leader) for node in cluster.nodes
        ]
        await cluster.finish()


@promises.STRANGER_REJECTED
async def test_a_stranger_that_joins_is_refused_and_harms_nobody(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        stranger, names = NodeProcess("stranger", tmp_path), [node.name for node in cluster.nodes]
        try:
            stranger.start()
            founded = await stranger.until_up()
            assert founded["role"] == "leader"
            await stranger.kill()
            stranger.start(*cluster.join)
            everybody = [stranger, *cluster.nodes]
            await until(
                lambda: all("of another cluster gossips" in one.log_text() for one in everybody),
                "both sides say that they refuse each other",
            )
            await cluster.recovery_s(time.monotonic(), cluster.nodes)
            assert await cluster.leader() is leader
            for report in await cluster.reports():
                assert [member["name"] for member in report["members"]] == names
            # It goes on being what it was.
            after = await stranger.until_up()
            for what in ("node", "role", "voters"):  # "node" has the ids of node and cluster
                assert after[what] == founded[what]
        finally:
            print(stranger.last_lines())
            await stranger.destroy()
        await cluster.finish()


async def test_a_killed_node_leaves_no_process_behind(tmp_path: Path) -> None:
    async with running_cluster(tmp_path) as cluster:
        leader = await cluster.leader()
        children = children_of(leader.pid)
        assert children, "a node has a child that writes its log"
        await leader.kill()
        await until(lambda: not any(map(is_running, children)), "the log writer ends")
        assert leader.listens() == []
        leader.start()
        await cluster.finish()
