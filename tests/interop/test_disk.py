"""A real node whose disk fails: it ends with one line that says why, and loses nothing."""

import resource
import shutil
import sys
from pathlib import Path

import pytest
import trio
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError

from noti.asyncio_loop import AsyncioLoop
from noti.cli.children import Child
from noti.rpc.generated.noti.v1 import Event, PublisherStub, PublishRequest
from tests import promises
from tests.interop.processes import NodeProcess, children_of, running_node, why_it_ended

pytestmark = [pytest.mark.interop, pytest.mark.slow]

END_S_MAX = 30.0
DISK_MIB = 12
"""Room for one segment of the log and half of the next one."""
EVENT_BYTES = 100_000

ON_A_SMALL_DISK = f"""
mount -t tmpfs -o size={DISK_MIB}m none "$0" || exit 99
"$@"
status=$?
"{sys.executable}" -m noti wal verify "$0" && echo verified
exit $status
"""


class FullNode(NodeProcess):
    """One with a small disk of its own, whose log is looked at when it has ended."""

    def start(self, *arguments: str) -> None:
        self.data_dir.mkdir()
        unshare = shutil.which("unshare")
        assert unshare is not None
        new = [unshare, "--user", "--map-root-user", "--mount", "--pid", "--fork"]
        inside = ["sh", "-c", ON_A_SMALL_DISK, str(self.data_dir), *self.command(*arguments)]
        self._child = Child(self.name, [*new, "--kill-child", *inside], self._log)
        self._child.start()


async def publish(node: NodeProcess, count: int, size_bytes: int, first: int = 0) -> int:
    """Publish events one by one; return how many were acknowledged before the node was gone."""

    async def publish_aio() -> int:
        async with Channel(*node.rpc) as channel:
            stub = PublisherStub(channel)
            for number in range(count):
                one = f"event-{first + number}"
                event = Event(topics=["t"], data="x" * size_bytes, id=one)
                try:
                    await stub.publish(PublishRequest(events=[event]))
                except (GRPCError, StreamTerminatedError, OSError):
                    return number
        return count

    asyncio_loop = AsyncioLoop()
    async with trio.open_nursery() as nursery:
        await nursery.start(asyncio_loop.run)
        acknowledged = await asyncio_loop.call(publish_aio)
        nursery.cancel_scope.cancel()
    return acknowledged


def reason(node: NodeProcess) -> str:
    """Return the one line for a person in what the node wrote."""
    assert "Traceback" not in node.log_text()
    return why_it_ended(node.log_text())


@promises.FULL_DISK_ENDS_NODE
@pytest.mark.namespaces
async def test_disk_that_fills_up_ends_the_node_with_one_line_and_a_log_that_is_sound(
    tmp_path: Path,
) -> None:
    node = FullNode("full", tmp_path)
    try:
        node.start()
        await node.until_up()
        acknowledged = await publish(node, DISK_MIB * 1024 * 1024 // EVENT_BYTES, EVENT_BYTES)
        with trio.fail_after(END_S_MAX):
            assert await node.wait() == 1
    finally:
        with trio.CancelScope(shield=True):
            await node.destroy()
    assert acknowledged * EVENT_BYTES > 7_000_000, "the first segment is full"
    line = reason(node)
    assert f"cannot create {node.data_dir}" in line
    assert "No space left on device (ENOSPC)" in line
    assert node.log_text().splitlines()[-1] == "verified"


@promises.FULL_DISK_ENDS_NODE
async def test_write_that_the_system_refuses_ends_the_node_and_all_is_there_after_its_return(
    tmp_path: Path,
) -> None:
    async with running_node(tmp_path) as node:
        assert await publish(node, 20, 100) == 20
        [writer] = children_of(node.pid)
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (1, 1))
        assert await publish(node, 1, 100) == 0
        with trio.fail_after(END_S_MAX):
            assert await node.wait() == 1
        line = reason(node)
        assert f"cannot write {node.data_dir}" in line
        assert "(EFBIG)" in line
        node.start()
        status = await node.until_up()
        assert status["store"]["last_seq"] == 20
