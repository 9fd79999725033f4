"""Commands on asyncio end at the first signal, and in time, whatever their work makes of it."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from noti.cli import asyncio_commands
from noti.cli.asyncio_commands import run_until_signalled, within
from tests import promises
from tests.cli.strangers import listening, silent
from tests.cli.test_publish import nats_server, wait_for
from tests.ports import free_port

ENDS_WITHIN_S = 10.0
"""Of a signal, on a busy machine; the commands themselves give up after 3 s."""

RUN = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("up", flush=True)
runpy.run_module("noti", run_name="__main__", alter_sys=True)
"""
"""`python -m noti`, which says when Python itself has started: until then it knows no better than a
traceback."""

SIGNALS = 48
AT_ONCE = 8


class Deaf:
    """Work that takes the first cancellations for its own, as nats-py may."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.ended = False

    async def run(self) -> None:
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                self.losses -= 1
                if self.losses < 0:
                    self.ended = True
                    raise


async def interrupt(signal_number: int) -> None:
    os.kill(os.getpid(), signal_number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_work_that_loses_cancellations_ends_at_one_signal(number: int) -> None:
    deaf = Deaf(losses=3)

    async def work() -> None:
        await interrupt(number)
        await deaf.run()

    run_until_signalled(work())
    assert deaf.ended


def test_tasks_that_are_left_behind_end_with_their_command() -> None:
    deaf = Deaf(losses=2)
    left_behind: list[asyncio.Task[None]] = []

    async def work() -> None:
        left_behind.append(asyncio.create_task(deaf.run()))
        await asyncio.sleep(0)

    run_until_signalled(work())
    assert deaf.ended


def test_failure_is_raised_unless_it_comes_of_the_signal() -> None:
    async def fail() -> None:
        raise ValueError("wrong")

    async def fail_when_cancelled() -> None:
        await interrupt(signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError("broken") from None

    with pytest.raises(ValueError, match="wrong"):
        run_until_signalled(fail())
    run_until_signalled(fail_when_cancelled())


def test_process_whose_work_never_ends_ends_all_the_same() -> None:
    program = """
import asyncio
from noti.cli import asyncio_commands
asyncio_commands.STOP_S_MAX = 0.3
async def deaf():
    print("there", flush=True)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass
asyncio_commands.run_until_signalled(deaf())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(ENDS_WITHIN_S) == asyncio_commands.INTERRUPTED


def test_what_is_in_time_is_returned_and_what_is_not_is_ended() -> None:
    deaf = Deaf(losses=2)

    async def soon() -> int:
        await asyncio.sleep(0)
        return 7

    async def work() -> None:
        assert await within(60, soon()) == 7
        with pytest.raises(TimeoutError):
            await within(0.05, deaf.run())
        assert deaf.ended

    run_until_signalled(work())


def test_silent_name_server_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        answered.wait(60)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    async def work() -> None:
        with pytest.raises(TimeoutError):
            await within(
                0.05, asyncio.get_running_loop().create_connection(asyncio.Protocol, "x", 1)
            )

    try:
        run_until_signalled(work())
        assert not answered.is_set()
    finally:
        answered.set()


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", RUN, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def assert_ended(process: subprocess.Popen[bytes], command: list[str]) -> None:
    try:
        _, err = process.communicate(timeout=ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"{command} goes on after Ctrl-C: {process.communicate()[1]!r}")
    assert b"Traceback" not in err, (command, err)
    ends = (0, asyncio_commands.INTERRUPTED, -signal.SIGINT)
    assert process.returncode in ends, (command, err)


def test_signal_while_the_log_is_set_up_ends_without_a_traceback() -> None:
    program = """
import os, signal
from noti import cli
cli.telemetry.set_up = lambda **_: os.kill(os.getpid(), signal.SIGINT)
cli.main()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert ended.returncode == asyncio_commands.INTERRUPTED
    assert ended.stderr == b""


@promises.COMMANDS_END_IN_TIME
@pytest.mark.interop
def test_one_signal_at_any_moment_ends_every_command(tmp_path: Path) -> None:
    rng = random.Random(14)
    port = free_port()
    with nats_server(port, tmp_path), listening(silent) as stranger:
        wait_for(port)
        nats, nowhere = f"nats://127.0.0.1:{port}", f"nats://127.0.0.1:{free_port()}"
        deaf = f"127.0.0.1:{stranger}"
        event = ["--user-id=7", "--from=a", "--to=b"]
        commands = [
            ["mock-publisher", f"--nats-url={nats}", "--rate=5000"],
            ["mock-publisher", f"--nats-url={nats}", "--rate=5000"],
            ["mock-publisher", f"--nats-url={nats}", "--rate=1"],
            ["mock-publisher", f"--nats-url={nats}", "--rate=5000", "--count=100"],
            ["mock-publisher", f"--nats-url={nowhere}"],
            ["mock-publisher", f"--nats-url=nats://{deaf}"],
            ["publish", f"--nats-url=nats://{deaf}", *event],
            ["publish", "--rpc", deaf, "--topic=t"],
            ["tail", f"http://{deaf}"],
            ["tail", f"http://127.0.0.1:{free_port()}"],
            ["status", "--http", f"http://{deaf}"],
            ["members", "--http", f"http://{deaf}"],
        ]
        for start in range(0, SIGNALS, AT_ONCE):
            some = [commands[(start + number) % len(commands)] for number in range(AT_ONCE)]
            with ExitStack() as stack:
                running = [stack.enter_context(started(one)) for one in some]
                for process in running:
                    assert process.stdout is not None
                    assert process.stdout.readline() == b"up\n"
                moments = sorted((rng.uniform(0.0, 2.5), number) for number in range(AT_ONCE))
                began_at = time.monotonic()
                for moment, number in moments:
                    time.sleep(max(0.0, began_at + moment - time.monotonic()))
                    running[number].send_signal(signal.SIGINT)
                for one, process in zip(some, running, strict=True):
                    assert_ended(process, one)
