"""Runs `noti` commands in forks of a process that has loaded it: loading is most of a node's start.

The tests start hundreds of nodes. Such a one is a process like any other, with a session, a log and
an environment of its own; only its modules were loaded before. What tests the start itself, another
release, or the line of a command uses a plain `Child`.
"""

import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

from noti.cli.children import Child, inherited_environment
from noti.die_with_parent import die_with, dying_with_us

LOADED = ("noti.cli.run", "noti.cli.config_check", "noti.node", "noti.reloading")
"""What `noti run` imports, late or early."""

REQUEST_BYTES_MAX = 128 * 1024
"""Arguments and environment, which must come in one piece."""

NUMBER = struct.Struct("=i")
"""What comes of a fork: its process id, and in the end its exit status or minus the signal."""


class PreloadedChild(Child):
    """A child that is forked off, and not loaded; its command is `noti`'s arguments."""

    def _begin(self, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
        return _Fork(command, output)


class _Fork(subprocess.Popen[bytes]):
    """What `Child` knows of a process, of one that is our grandchild."""

    def __init__(self, arguments: Sequence[str], output: int) -> None:
        self.returncode: int | None = None
        self._reading = threading.Lock()
        self._news, ours = os.pipe()
        request = {
            "arguments": arguments,
            "cwd": str(Path.cwd()),
            "environment": inherited_environment(),
        }
        socket.send_fds(_requests(), [json.dumps(request).encode()], [output, ours])
        os.close(ours)
        self.pid = self._read()
        assert self.pid > 0, "the process with all that is loaded has ended"

    def _read(self) -> int:
        number = os.read(self._news, NUMBER.size)
        return int(NUMBER.unpack(number)[0]) if number else -signal.SIGKILL

    def poll(self) -> int | None:
        with self._reading:
            if self.returncode is None and select.select([self._news], [], [], 0)[0]:
                self.returncode = self._read()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        # For as many threads as wait at once: after the status comes the end.
        select.select([self._news], [], [], timeout)
        status = self.poll()
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("noti", timeout)
        return status

    def __del__(self) -> None:
        os.close(self._news)


@cache
def _requests() -> socket.socket:
    """Return the way to the process with all that is loaded; begun by the first who asks.

    It dies with the thread that began it, not only with the process.
    """
    assert threading.current_thread() is threading.main_thread(), "start it in the main thread"
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        theirs.set_inheritable(True)
        command = dying_with_us(sys.executable, "-m", __name__, str(theirs.fileno()))
        os.posix_spawn(sys.executable, command, os.environ, setsid=True)  # it ends with us
    return ours


# --- in the process with all that is loaded -------------------------------------------------------


def main() -> None:
    """Fork for each request until nobody can ask any more."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for module in LOADED:
        import_module(module)
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # so that who watched a fork leaves no zombie
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, REQUEST_BYTES_MAX, 2)
        if not request:
            return
        parent = os.getpid()
        if os.fork() == 0:
            requests.close()
            die_with(parent)
            _watch(json.loads(request), *descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request: dict[str, object], output: int, news: int) -> None:
    """Fork, and report its process id and its end; returns in the fork, as if nothing had been."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = os.getpid()
    if pid := os.fork():
        os.close(output)
        os.write(news, NUMBER.pack(pid))
        _, status = os.waitpid(pid, 0)
        os.write(news, NUMBER.pack(os.waitstatus_to_exitcode(status)))
        os._exit(0)
    die_with(parent)
    os.close(news)
    os.setsid()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    _be_noti(request)


def _be_noti(request: dict[str, object]) -> None:
    arguments, cwd, environment = request["arguments"], request["cwd"], request["environment"]
    assert isinstance(arguments, list)
    assert isinstance(cwd, str)
    assert isinstance(environment, dict)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    runpy.run_module("noti", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
