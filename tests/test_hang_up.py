"""SIGHUP ends no node that is just starting, unless its terminal is closed."""

import os
import pty
import signal
import subprocess
import sys
import textwrap

import pytest

LOADING = (sys.executable, "-X", "importtime", "-m", "noti", "run", "--no-such-flag")
"""Tells what it has loaded, and ends soon with status 2."""


@pytest.mark.parametrize("loaded", ["click", "structlog", "noti.cli.run"])
def test_hang_up_while_modules_are_loaded_ends_no_node(loaded: str) -> None:
    with subprocess.Popen(LOADING, stderr=subprocess.PIPE, text=True) as node:
        assert node.stderr is not None
        for line in node.stderr:
            if line.rpartition("|")[2].strip() == loaded:
                node.send_signal(signal.SIGHUP)
        assert node.wait() == 2


HELD_OFF = """
    import os, signal, sys
    from noti import hang_up

    signal.signal(signal.SIGHUP, getattr(signal, sys.argv[1]))
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    hang_up.hold_off()
    hang_up.hold_off()
    os.write(1, b"up")
    while True:
        os.read(reading, 1)
        os.write(1, b"heard")
"""


def held_off(before: str) -> tuple[int, int]:
    """Start a process in a terminal that holds off SIGHUP; return its id, and the terminal."""
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", textwrap.dedent(HELD_OFF), before])
    assert os.read(terminal, 2) == b"up"
    return pid, terminal


def test_terminal_that_is_closed_while_a_node_starts_ends_it() -> None:
    pid, terminal = held_off("SIG_DFL")
    os.kill(pid, signal.SIGHUP)
    assert os.read(terminal, 5) == b"heard"
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP


def test_who_ignores_that_the_terminal_is_closed_goes_on_ignoring_it() -> None:
    pid, terminal = held_off("SIG_IGN")
    os.close(terminal)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
