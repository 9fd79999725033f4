"""A service under `noti run` ends when a signal says so, and how."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from noti.cli.signals import until_signalled
from noti.errors import StorageFailed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_first_signal_cancels_the_service_and_waits_for_it(
    number: signal.Signals,
) -> None:
    order = []

    async def service() -> None:
        try:
            os.kill(os.getpid(), number)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.lowlevel.checkpoint()
                order.append("cleaned up")

    await until_signalled(service, stop_deadline_s=60)
    order.append("returned")
    assert order == ["cleaned up", "returned"]


async def test_a_service_may_end_by_itself() -> None:
    await until_signalled(trio.lowlevel.checkpoint, stop_deadline_s=60)


async def test_what_the_service_raises_comes_out() -> None:
    async def service() -> None:
        raise StorageFailed("disk full")

    with pytest.RaisesGroup(pytest.RaisesExc(StorageFailed, match="disk full")):
        await until_signalled(service, stop_deadline_s=60)


async def test_hang_up_reloads_and_does_not_stop() -> None:
    reloaded = trio.Event()

    async def service() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await reloaded.wait()

    await until_signalled(service, stop_deadline_s=60, reload=reloaded.set)


IN_TERMINAL = """
    import os, signal, sys, trio
    from noti import telemetry
    from noti.cli.signals import until_signalled

    os.dup2(os.open(os.devnull, os.O_RDWR), int(sys.argv[1]))

    async def service():
        os.write(1, b"up")
        await trio.sleep_forever()

    telemetry.set_up()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # before and after, as `noti run` has it
    trio.run(lambda: until_signalled(service, 60, reload=lambda: None))
"""


@pytest.mark.parametrize("redirected", ["0", "2"])
def test_terminal_that_is_closed_stops_the_service(redirected: str) -> None:
    pid, terminal = pty.fork()
    if not pid:
        command = [sys.executable, "-c", textwrap.dedent(IN_TERMINAL), redirected]
        os.execv(sys.executable, command)
    assert os.read(terminal, 2) == b"up"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


STUBBORN = """
    import sys, trio
    from noti.cli.signals import until_signalled

    async def service():
        print("up", flush=True)
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    trio.run(until_signalled, service, float(sys.argv[1]), float(sys.argv[2]))
"""


@contextmanager
def stubborn(stop_deadline_s: float, echo_s: float) -> Iterator[subprocess.Popen[str]]:
    """Start a process whose service does not react to cancellation."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(STUBBORN), str(stop_deadline_s), str(echo_s)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said(process, "up")
            yield process
        finally:
            process.kill()


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if word in line:
            return
    pytest.fail(f"the process ended without saying {word!r}")


def test_a_second_signal_ends_the_process_at_once() -> None:
    with stubborn(stop_deadline_s=60, echo_s=0) as process:
        process.send_signal(signal.SIGINT)
        said(process, "stopping")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130


def test_a_stop_that_takes_too_long_ends_the_process() -> None:
    with stubborn(stop_deadline_s=0.2, echo_s=0) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 1


def test_the_echo_of_a_signal_is_not_a_second_signal() -> None:
    with stubborn(stop_deadline_s=1, echo_s=60) as process:
        process.send_signal(signal.SIGINT)
        said(process, "stopping")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 1  # the deadline ended it, not the second signal
