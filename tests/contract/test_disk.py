"""What every `Disk` promises, and what only the real one can be asked."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import trio

from noti.errors import StorageFailed, StorageLocked
from noti.raft.storage.disk import LOCK_NAME, FileDisk, open_disk
from noti.raft.storage.ports import Disk
from tests import promises
from tests.simulation.memory_disk import MemoryDisk

OpenDisk = Callable[[], AbstractAsyncContextManager[Disk]]
DEADLINE_S = 10.0


@pytest.fixture(params=["file", "memory"])
def open_any(request: pytest.FixtureRequest, tmp_path: Path) -> OpenDisk:
    """Opens one and the same disk each time that it is called."""
    files: dict[str, bytearray] = {}

    @asynccontextmanager
    async def open_memory() -> AsyncIterator[Disk]:
        disk = MemoryDisk()
        disk.files = files
        yield disk

    @asynccontextmanager
    async def open_file() -> AsyncIterator[Disk]:
        async with open_disk(tmp_path / "node") as disk:
            yield disk

    return open_file if request.param == "file" else open_memory


async def test_new_disk_is_empty(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        assert await disk.names() == []


async def test_created_file_is_zero_and_has_its_size(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("log", 3_000_000)
        assert await disk.read("log") == bytes(3_000_000)
        assert await disk.names() == ["log"]


async def test_write_overwrites_in_place_and_extends_at_the_end(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("log", 8)
        await disk.write("log", 2, b"abc")
        await disk.write("log", 7, b"xyz")
        assert await disk.read("log") == b"\0\0abc\0\0xyz"


async def test_replace_makes_and_replaces_whole_content(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.replace("snapshot", b"a long first content")
        await disk.replace("snapshot", b"short")
        assert await disk.read("snapshot") == b"short"
        assert await disk.names() == ["snapshot"]


async def test_file_is_replaced_part_by_part_and_only_when_that_is_published(
    open_any: OpenDisk,
) -> None:
    async with open_any() as disk:
        await disk.replace("snapshot", b"before")
        await disk.stage("snapshot", 0, b"given up, and longer")
        await disk.stage("snapshot", 0, b"one ")
        await disk.create("log", 4)
        await disk.write("log", 0, b"log!")
        await disk.stage("snapshot", 4, b"two")
        assert await disk.names() == ["log", "snapshot"]
        assert await disk.read("snapshot") == b"before"
        await disk.publish("snapshot")
        assert await disk.read("snapshot") == b"one two"
        await disk.stage("snapshot", 0, b"lost")
    async with open_any() as disk:
        assert await disk.names() == ["log", "snapshot"]
        assert await disk.read("snapshot") == b"one two"
        with pytest.raises(StorageFailed):
            await disk.publish("other")


async def test_write_after_replace_and_after_remove_reaches_the_new_file(
    open_any: OpenDisk,
) -> None:
    async with open_any() as disk:
        await disk.create("a", 4)
        await disk.write("a", 0, b"old!")
        await disk.replace("a", b"newer")
        await disk.write("a", 0, b"N")
        assert await disk.read("a") == b"Newer"
        await disk.remove("a")
        await disk.create("a", 2)
        await disk.write("a", 1, b"z")
        assert await disk.read("a") == b"\0z"


async def test_remove_of_a_missing_file_is_no_error(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.remove("nothing")
        await disk.replace("a", b"1")
        await disk.remove("a")
        assert await disk.names() == []


async def test_read_of_a_missing_file_fails_and_harms_nothing(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        with pytest.raises(FileNotFoundError):
            await disk.read("nothing")
        await disk.replace("a", b"1")


async def test_content_survives_closing_and_opening(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("log", 4)
        await disk.write("log", 0, b"kept")
        await disk.replace("snapshot", b"also")
    async with open_any() as disk:
        assert await disk.names() == ["log", "snapshot"]
        assert await disk.read("log") == b"kept"
        assert await disk.read("snapshot") == b"also"


async def test_large_data_passes_whole(open_any: OpenDisk) -> None:
    data = bytes(range(256)) * 20_000
    async with open_any() as disk:
        await disk.create("log", 16)
        await disk.write("log", 3, data)
        await disk.replace("snapshot", data)
        assert (await disk.read("log"))[3:] == data
        assert await disk.read("snapshot") == data


async def test_concurrent_writes_happen_in_the_order_of_the_calls(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("log", 1)
        calls: list[int] = []

        async def write(number: int) -> None:
            calls.append(number)
            await disk.write("log", 0, bytes([number]))

        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(write, number)
        assert await disk.read("log") == bytes([calls[-1]])


async def test_cancelled_write_leaves_later_answers_in_step(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("log", 1000)
        for number in range(50):
            with trio.CancelScope() as scope:
                scope.cancel()
                await disk.write("log", number, b"c")
            assert scope.cancelled_caught
            await disk.write("log", 500 + number, b"w")
            content = await disk.read("log")
            assert content[500 + number] == ord("w")
        assert (await disk.read("log"))[:50] == b"c" * 50


async def test_answers_that_nobody_waits_for_keep_nobody_out(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("a", 10)
        for number in range(200):
            with trio.CancelScope() as scope:
                scope.cancel()
                await disk.write("a", 0, b"%03d" % number)
        await disk.write("a", 3, b"end")
        assert (await disk.read("a"))[3:] == b"end\0\0\0\0"


async def test_write_that_nobody_waits_for_happens_before_the_next(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("a", 4)
        disk.write("a", 0, b"old")
        await disk.write("a", 1, b"new")
        assert await disk.read("a") == b"onew"


async def test_who_waits_gets_an_answer_when_the_one_who_receives_is_cancelled(
    open_any: OpenDisk,
) -> None:
    written: list[int] = []

    async def write(number: int) -> None:
        await disk.write("a", number, b"x")
        written.append(number)

    async with open_any() as disk:
        await disk.create("a", 10)
        async with trio.open_nursery() as nursery, trio.open_nursery() as first:
            first.start_soon(write, 0)
            await trio.lowlevel.checkpoint()
            nursery.start_soon(write, 1)
            nursery.start_soon(write, 2)
            first.cancel_scope.cancel()
        assert set(written) >= {1, 2}


@pytest.mark.parametrize("operation", ["write", "create"])
async def test_after_a_failure_every_later_operation_fails(
    open_any: OpenDisk, operation: str
) -> None:
    async with open_any() as disk:
        await disk.replace("good", b"1")
        failing: dict[str, Callable[[], Awaitable[None]]] = {
            "write": partial(disk.write, "missing", 0, b"x"),
            "create": partial(disk.create, "good", 10),
        }
        with pytest.raises(StorageFailed, match=r"missing|good"):
            await failing[operation]()
        with pytest.raises(StorageFailed), trio.fail_after(10):
            await disk.write("good", 0, b"x")
        with pytest.raises(StorageFailed), trio.fail_after(10):
            await disk.names()


async def test_memory_disk_does_a_cancelled_write_before_the_next_change() -> None:
    disk = MemoryDisk()
    await disk.create("log", 2)
    with trio.CancelScope() as scope:
        scope.cancel()
        await disk.write("log", 0, b"a")
    assert disk.files["log"] == b"\0\0"
    await disk.write("log", 0, b"b")
    assert disk.files["log"] == b"b\0"


async def test_memory_disk_asked_to_fail_fails_there_and_ever_after() -> None:
    disk = MemoryDisk()
    disk.fail_next(after=1)
    await disk.create("log", 2)
    with pytest.raises(StorageFailed):
        await disk.write("log", 0, b"a")
    with pytest.raises(StorageFailed):
        await disk.read("log")


# What follows needs a real directory.


async def test_who_is_cancelled_can_write_until_it_has_ended(tmp_path: Path) -> None:
    """A node that stops still votes and acknowledges while it hands over its leadership."""
    with trio.CancelScope() as stop:
        async with open_disk(tmp_path) as disk:
            stop.cancel()
            with trio.move_on_after(5, shield=True):
                await disk.replace("vote", b"last words")
    assert (tmp_path / "vote").read_bytes() == b"last words"


@promises.ONE_PROCESS_A_DIRECTORY
async def test_second_process_learns_who_holds_the_directory(tmp_path: Path) -> None:
    program = (
        "import sys, trio, pathlib; from noti.raft.storage.disk import open_disk\n"
        "from noti.errors import StorageLocked\n"
        "async def main():\n"
        "    try:\n"
        "        async with open_disk(pathlib.Path(sys.argv[1])): print('opened')\n"
        "    except StorageLocked as error: print(error)\n"
        "trio.run(main)\n"
    )
    async with open_disk(tmp_path):
        result = await trio.run_process(
            [sys.executable, "-c", program, str(tmp_path)], capture_stdout=True
        )
    expected = f"the data directory {tmp_path} is in use by process {os.getpid()}\n"
    assert result.stdout.decode() == expected


async def test_directory_is_private_and_free_again_after_closing(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "node"
    for _ in range(2):
        async with open_disk(directory) as disk:
            with pytest.raises(StorageLocked, match=str(directory)):
                async with open_disk(directory):
                    pass
        assert not is_alive(disk.writer_pid)
    assert directory.stat().st_mode & 0o777 == 0o700


async def test_unusable_directory_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageFailed, match=r"^cannot use .*file/node: Not a directory$"):
        async with open_disk(tmp_path / "file" / "node"):
            pass


async def test_leftover_of_an_interrupted_replace_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "snapshot.tmp").write_bytes(b"half")
    async with open_disk(tmp_path) as disk:
        assert await disk.names() == []
    assert os.listdir(tmp_path) == [LOCK_NAME]  # noqa: PTH208 - not blocking for long


async def test_full_disk_is_a_storage_failure_with_file_and_reason(tmp_path: Path) -> None:
    # The kernel's own device that is always full: a real ENOSPC from a real write.
    (tmp_path / "log").symlink_to("/dev/full")
    async with open_disk(tmp_path) as disk:
        with pytest.raises(StorageFailed, match=r"write .*/log: No space left on device \(ENOSPC"):
            await disk.write("log", 0, b"x")
        with pytest.raises(StorageFailed, match="No space left"):
            await disk.replace("snapshot", b"y")


async def test_zero_filling_that_the_system_stops_is_a_storage_failure(tmp_path: Path) -> None:
    async with open_disk(tmp_path) as disk:
        await disk.create("small", 1000)
        resource.prlimit(disk.writer_pid, resource.RLIMIT_FSIZE, (50_000, 50_000))
        with pytest.raises(StorageFailed, match=r"create .*/large: File too large \(EFBIG\)"):
            await disk.create("large", 100_000)
        with pytest.raises(StorageFailed, match="File too large"):
            await disk.write("small", 0, b"x")


async def test_all_who_wait_receive_a_failure(tmp_path: Path) -> None:
    failures = 0

    async with open_disk(tmp_path) as disk:

        async def write() -> None:
            nonlocal failures
            with pytest.raises(StorageFailed):
                await disk.write("missing", 0, b"x" * 10_000)
            failures += 1

        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(write)
    assert failures == 100


async def test_death_of_the_writer_is_a_storage_failure(tmp_path: Path) -> None:
    async with open_disk(tmp_path) as disk:
        await disk.create("log", 10)
        os.kill(disk.writer_pid, signal.SIGSTOP)  # so that the request is on its way when it dies
        async with trio.open_nursery() as nursery:
            nursery.start_soon(expect_failure, disk)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(disk.writer_pid, signal.SIGKILL)
        await expect_failure(disk)


async def expect_failure(disk: FileDisk) -> None:
    with trio.fail_after(DEADLINE_S), pytest.raises(StorageFailed, match="has died"):
        await disk.write("log", 0, b"x")


async def test_stop_signals_to_the_group_do_not_stop_the_writer(tmp_path: Path) -> None:
    async with open_disk(tmp_path) as disk:
        await disk.create("log", 1)  # it has answered, so its handlers are in place
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(disk.writer_pid, number)
        await disk.write("log", 0, b"x")
        assert os.getsid(disk.writer_pid) != os.getsid(0)


@pytest.fixture
def node_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds `tmp_path` open, writes to it, and has printed its writer's pid."""
    program = (
        "import sys, trio, pathlib; from noti.raft.storage.disk import open_disk\n"
        "async def main():\n"
        "    async with open_disk(pathlib.Path(sys.argv[1])) as disk:\n"
        "        await disk.create('log', 8192)\n"
        "        await disk.write('log', 0, b'x' * 4096)\n"
        "        print(disk.writer_pid, flush=True)\n"
        "        while True: await disk.write('log', 0, b'x' * 4096)\n"
        "trio.run(main)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


async def test_killed_node_leaves_no_writer_and_no_lock(
    tmp_path: Path, node_process: subprocess.Popen[str]
) -> None:
    assert node_process.stdout is not None
    writer_pid = int(node_process.stdout.readline())
    assert is_alive(writer_pid)
    node_process.kill()
    node_process.wait()
    with trio.fail_after(DEADLINE_S):
        async with open_disk(tmp_path) as disk:
            assert await disk.read("log") == b"x" * 4096 + bytes(4096)
        # The lock was free, so its last holder, the writer, has passed the point of no return.
        while is_alive(writer_pid):  # noqa: ASYNC110 - a process tells nobody but its parent
            await trio.sleep(0.01)


@promises.ONE_PROCESS_A_DIRECTORY
async def test_directory_of_a_killed_node_stays_locked_while_its_writer_may_still_write(
    tmp_path: Path, node_process: subprocess.Popen[str]
) -> None:
    """A successor would read files that change under it."""
    assert node_process.stdout is not None
    writer_pid = int(node_process.stdout.readline())
    os.kill(writer_pid, signal.SIGSTOP)
    opened = trio.Event()

    async def succeed() -> None:
        async with open_disk(tmp_path):
            opened.set()

    try:
        node_process.kill()
        node_process.wait()
        with trio.fail_after(DEADLINE_S):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(succeed)
                with trio.move_on_after(0.3):
                    await opened.wait()
                assert not opened.is_set()
                os.kill(writer_pid, signal.SIGCONT)
    finally:
        with suppress(ProcessLookupError):
            os.kill(writer_pid, signal.SIGCONT)
    assert opened.is_set()


@promises.ONE_WRITE_ONE_SYNC
async def test_created_file_has_its_blocks_so_that_no_write_into_it_can_find_the_disk_full(
    tmp_path: Path,
) -> None:
    """Zeroes that are written, not promised: a sync into them is also the fastest there is."""
    async with open_disk(tmp_path) as disk:
        await disk.create("log", 3_000_000)
    assert (tmp_path / "log").stat().st_blocks * 512 >= 3_000_000


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that is dead and not yet reaped has no command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_part_of_a_file_is_read_as_far_as_there_is_one(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        await disk.create("log", 8)
        await disk.write("log", 2, b"abc")
        assert await disk.read_part("log", 1, 3) == b"\0ab"
        assert await disk.read_part("log", 4, 100) == b"c\0\0\0"
        assert await disk.read_part("log", 100, 100) == b""


async def test_part_of_a_missing_file_fails_and_harms_nothing(open_any: OpenDisk) -> None:
    async with open_any() as disk:
        with pytest.raises(FileNotFoundError):
            await disk.read_part("nothing", 0, 10)
        await disk.create("log", 8)
        assert await disk.read_part("log", 0, 10) == bytes(8)


async def test_large_part_passes_whole_while_others_write(open_any: OpenDisk) -> None:
    data = bytes(range(256)) * 20_000
    async with open_any() as disk:
        await disk.replace("snapshot", data)
        await disk.create("log", 8)
        begun = disk.write("log", 0, b"x")
        assert await disk.read_part("snapshot", 256, len(data)) == data[256:]
        await begun


async def test_a_writer_that_cannot_be_started_is_not_blamed_on_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(
        StorageFailed, match=r"cannot start the process that writes the log, .*no-p"
    ):
        async with open_disk(tmp_path):
            pass
