"""The nursery tree: what starts and stops in which order, and that nothing is left."""

import os
import re
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import structlog
import trio

from noti import node
from noti.config import Config
from noti.errors import StorageCorrupt, StorageFailed
from noti.raft.core.membership import Configuration, encode_configuration
from noti.raft.core.messages import Snapshot
from noti.raft.storage.recovery import SNAPSHOT_NAME
from noti.raft.storage.segments import segment_sequence
from noti.raft.storage.snapshot_file import encode_snapshot
from tests import promises
from tests.interop.processes import children_of, is_running
from tests.ports import free_port
from tests.simulation.deterministic import run_deterministically
from tests.simulation.machine import SimulatedNode
from tests.simulation.world import SimulatedCluster

LOCALHOST = "127.0.0.1"
START_ORDER = [
    "replica",
    "intake",
    "peers",
    "forwarder",
    "publisher",
    "rpc",
    "authorization",
    "browsers",
    "gossip",
    "discovery",
    "decommission",
    "control",
    "controller",
    "level",
    "limits",
    "bridge",
]


def parts(records: list[structlog.typing.EventDict], event: str) -> list[str]:
    return [record["part"] for record in records if record["event"] == event]


async def live(cluster: SimulatedCluster, simulated: SimulatedNode, seconds: float) -> None:
    """Run one node and cancel its root after so many virtual seconds."""
    with trio.move_on_after(seconds):
        await node.run(simulated.config(), open_world=simulated.open_world)
    assert not cluster.hub._listeners, "an RPC address is still served"
    assert not cluster.net.host(simulated.host).datagrams, "a UDP socket is open"
    assert not simulated.clients.serving


def cancel_after(seconds: float, seed: int = 1) -> list[structlog.typing.EventDict]:
    with structlog.testing.capture_logs() as records:

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                cluster = SimulatedCluster(nursery, seed, size=1)
                before = trio.lowlevel.current_statistics().tasks_living
                await live(cluster, cluster.nodes[0], seconds)
                assert trio.lowlevel.current_statistics().tasks_living == before, "a task is left"
                assert trio.current_time() < seconds + 6.0, "the stop took too long"

        run_deterministically(seed, main)
    return records


def test_node_without_a_source_says_so_once_and_in_its_status() -> None:
    seen: list[object] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1, size=1)
            simulated = cluster.nodes[0]
            config = simulated.config().model_copy(update={"nats_url": None, "nats_streams": ()})
            report = await nursery.start(partial(node.run, config, open_world=simulated.open_world))
            await trio.sleep(60)
            seen.append(report.status()["source"])
            nursery.cancel_scope.cancel()

    with structlog.testing.capture_logs() as records:
        run_deterministically(1, main)
    says = "no source of events: nats_url is not set; events come by HTTP and gRPC only"
    assert [record["event"] for record in records].count(says) == 1
    assert seen == [{"state": "none", "text": says}]


@promises.STOPS_IN_ORDER
def test_parts_stop_in_the_opposite_order_of_their_start() -> None:
    records = cancel_after(5.0)
    assert parts(records, "started") == START_ORDER
    assert parts(records, "stopping") == START_ORDER[::-1]
    assert parts(records, "stopped") == START_ORDER[::-1]


def test_leadership_is_handed_over_before_gossip_is_left_and_streams_end() -> None:
    records = cancel_after(5.0)
    steps = [
        record["part"]
        for record in records
        if record["event"] in ("last step done", "stopped") and record["part"] != "limits"
    ]
    order = ["leadership", "gossip", "browsers", "replica"]
    firsts = [steps.index(part) for part in order]
    assert firsts == sorted(firsts)


@promises.STOPS_IN_ORDER
@pytest.mark.parametrize("moment", range(120))
def test_cancelling_the_root_at_any_moment_leaves_nothing_behind(moment: int) -> None:
    """Each start-up step, and life afterwards, in steps of 0.1 to 50 virtual milliseconds."""
    seconds = moment * 0.0001 if moment < 60 else (moment - 59) * 0.05
    records = cancel_after(seconds)
    started = parts(records, "started")
    assert started == START_ORDER[: len(started)]
    assert parts(records, "stopped") == started[::-1]


def test_failing_disk_takes_the_whole_node_down_with_its_reason() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1, size=1)
            simulated = cluster.nodes[0]
            with pytest.RaisesGroup(StorageFailed, flatten_subgroups=True):
                async with trio.open_nursery() as inner:
                    run = partial(node.run, simulated.config(), open_world=simulated.open_world)
                    await inner.start(run)
                    await trio.sleep(1)
                    simulated.disk.fail_next()
                    cluster.publish()
                    with trio.fail_after(30):
                        await trio.sleep_forever()
            assert not cluster.hub._listeners

    run_deterministically(1, main)


def test_snapshot_on_disk_that_no_store_can_read_is_refused_with_the_directory() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1, size=1)
            simulated = cluster.nodes[0]
            await live(cluster, simulated, 1.0)
            configuration = encode_configuration(Configuration("c", ("n",)))
            snapshot = b"".join(encode_snapshot(Snapshot(1, 1, configuration, (b"no store",))))
            simulated.disk.files[SNAPSHOT_NAME] = bytearray(snapshot)
            named = f"{simulated.config().data_dir}: the snapshot does not decode"
            with pytest.raises(StorageCorrupt, match=named):
                await node.run(simulated.config(), open_world=simulated.open_world)

    run_deterministically(1, main)


@promises.ONE_VOTE_A_TERM
def test_node_whose_log_was_deleted_does_not_come_back_as_the_same_node() -> None:
    """It would vote a second time in a term in which it has voted. With an empty directory it is
    another node."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1, size=1)
            simulated = cluster.nodes[0]
            await live(cluster, simulated, 3.0)
            for name in list(simulated.disk.files):
                if segment_sequence(name) is not None:
                    del simulated.disk.files[name]
            missing = pytest.raises(StorageCorrupt, match="the log of this node is missing")
            with missing, trio.fail_after(10):
                await node.run(simulated.config(), open_world=simulated.open_world)
            simulated.disk.files.clear()
            await live(cluster, simulated, 3.0)

    run_deterministically(1, main)


def test_crash_at_any_operation_of_the_first_start_leaves_a_directory_that_can_be_used() -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            cluster = SimulatedCluster(nursery, 1, size=1)
            simulated = cluster.nodes[0]
            for operations in range(6):
                simulated.wipe()
                simulated.disk.fail_next(operations)
                await simulated.start()
                with trio.move_on_after(1.0):
                    await simulated.stopped.wait()
                if simulated.up:
                    await simulated.crash()
                await live(cluster, simulated, 1.0)

    run_deterministically(1, main)


@promises.STOPS_IN_ORDER
async def test_real_node_that_is_cancelled_leaves_no_file_socket_or_process(tmp_path: Path) -> None:
    config = Config(
        name="n",
        data_dir=tmp_path,
        http_addr=(LOCALHOST, 0),
        ops_addr=(LOCALHOST, 0),
        gossip_addr=(LOCALHOST, free_port()),
        rpc_addr=(LOCALHOST, free_port()),
        web_workers=0,
    )

    async def run_and_cancel() -> set[int]:
        earlier = children_of(os.getpid())  # of other tests
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(node.run, config))
            children = children_of(os.getpid())
            nursery.cancel_scope.cancel()
        return children - earlier

    await run_and_cancel()  # what a process opens once
    before = open_files()
    children = await run_and_cancel()
    assert open_files() == before
    assert children, "a node has a child that writes its log"
    assert not any(map(is_running, children))


def open_files() -> list[str]:
    """What each descriptor is, without the numbers of sockets and pipes."""
    kinds = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            kinds.append(re.sub(r"\d+", "", str(descriptor.readlink())))
    return sorted(kinds)
