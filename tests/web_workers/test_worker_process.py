"""Promises about one web worker as its node sees it."""

import signal
import socket
import subprocess
import sys

import pytest
import trio
import trio.testing

from noti.errors import WorkerLost
from noti.web_workers import worker_process
from noti.web_workers.link import Link
from noti.web_workers.messages import Heartbeat
from noti.web_workers.worker_process import WorkerProcess, exited, kill


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


async def worker_of(process: subprocess.Popen[bytes], nursery: trio.Nursery) -> WorkerProcess:
    ours, theirs = socket.socketpair()
    theirs.close()
    link = Link(trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    ours.close()
    return WorkerProcess(3, process, link, nursery)


async def test_one_that_is_killed_is_gone_also_when_it_was_stopped() -> None:
    process = sleeper()
    process.send_signal(signal.SIGSTOP)
    await kill(process)
    assert process.returncode == -signal.SIGKILL
    await exited(process)  # also long after


async def test_one_that_says_nothing_hangs_but_not_while_this_process_was_stopped(
    mock_clock: trio.testing.MockClock,
) -> None:
    process = sleeper()
    async with trio.open_nursery() as nursery:
        worker = await worker_of(process, nursery)
        worker.listening = True
        lost = trio.Event()

        async def watch() -> None:
            with pytest.raises(WorkerLost, match="said nothing for 5 s"):
                await worker.watch()
            lost.set()

        nursery.start_soon(watch)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(1000.0)  # as after a stop: one late turn
        await trio.testing.wait_all_tasks_blocked()
        assert not lost.is_set()
        began = trio.current_time()
        mock_clock.autojump_threshold = 0
        await lost.wait()
        assert 4.0 < trio.current_time() - began <= 5.0
    end(process)


async def test_one_that_does_not_take_what_it_is_told_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    process = sleeper()
    async with trio.open_nursery() as nursery:
        worker = await worker_of(process, nursery)
        worker.link.send_encoded(bytes(worker_process.WAITING_BYTES_MAX + 1))
        with pytest.raises(WorkerLost, match="does not take"):
            await worker.watch()
    end(process)


async def test_its_lag_is_pressure_while_it_lives_and_has_clients() -> None:
    process = sleeper()
    async with trio.open_nursery() as nursery:
        worker = await worker_of(process, nursery)
        worker.link.send_encoded(bytes(worker_process.LAG_BYTES))
        worker.alive = Heartbeat(1, 0.01, 0)
        assert worker.pressure == 0.01
        worker.link.send_encoded(bytes(worker_process.WAITING_BYTES_MAX // 4))
        assert worker.pressure == 0.25
        worker.alive = Heartbeat(0, 0.0, 0)
        assert worker.pressure == 0.0
        worker.alive = Heartbeat(1, 0.5, 0)
        worker.silent_s = 1.5
        assert worker.pressure == 0.0
    end(process)
