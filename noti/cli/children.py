"""Child processes of a supervisor: each in its own session, with its own log, never outliving us.

A child's own session keeps the terminal's Ctrl-C away from it, so that the supervisor decides the
order in which things stop; `die_with_parent` ends it even when the supervisor is killed.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from noti.die_with_parent import dying_with_us
from noti.errors import LocalError

START_S_MIN = 3.0
"""A child that ends by itself sooner than this cannot be helped by starting it again."""


class Child:
    """One child process, and the same again after it died."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id of the present or last process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process, in the main thread (`die_with_parent`); its output goes to the log."""
        with self.log.open("ab") as output:
            self._process = self._begin(self._command, output.fileno())

    def _begin(self, command: Sequence[str], output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own commands
            dying_with_us(*command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=inherited_environment(),
        )

    async def wait(self) -> int:
        """Wait for the end; return the exit status, or minus the signal. Cancelled: it runs on."""
        assert self._process is not None
        return await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)

    async def stop(self, grace_s: float) -> None:
        """End the process: SIGTERM, after `grace_s` seconds SIGKILL. Does nothing to a dead one."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        with trio.move_on_after(grace_s):
            await self.wait()
        if self._process.poll() is None:
            self._process.kill()
            await self.wait()

    def last_line(self) -> str:
        """Return the last line of the log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "its log is empty"


def inherited_environment() -> dict[str, str]:
    """Return ours without the settings in it: a child is told its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("NOTI_")}


async def keep_running(child: Child, pause_s: float, report: Callable[[str], None]) -> None:
    """Start `child` again `pause_s` seconds after each death, and report both.

    Raises `LocalError` when it ends by itself right after its start. Cancelled: the child runs on.
    """
    while True:
        started = trio.current_time()
        status = await child.wait()
        if status >= 0 and trio.current_time() - started < START_S_MIN:
            raise LocalError(
                f"{child.name} does not start: {child.last_line()} (all of it: {child.log})"
            )
        report(f"{child.name} died ({ending(status)}); it comes back in {pause_s:g} s")
        await trio.sleep(pause_s)
        child.start()
        report(f"{child.name} is back; to kill it again: kill -9 {child.pid}")


async def stop_all(children: Sequence[Child], grace_s: float) -> None:
    """Stop the children at the same time; returns when none is left, within `grace_s` seconds."""
    async with trio.open_nursery() as nursery:
        for child in children:
            nursery.start_soon(child.stop, grace_s)


def ending(status: int) -> str:
    """Return how a process ended, for a person."""
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
