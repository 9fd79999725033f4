"""One web worker as its node sees it: a process, the link to it, and what it last said."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Final

import trio

from noti.die_with_parent import dying_with_us
from noti.errors import WorkerLost
from noti.web_workers.link import Link
from noti.web_workers.messages import Heartbeat

LOOK_EVERY_S: Final = 0.25
SILENT_S_MAX: Final = 5.0
"""A worker says that it is alive ten times a second. One that has not for so long hangs; what this
process was stopped for does not count."""
STARTS_WITHIN_S: Final = 60.0
"""The same until it takes connections: it loads its program, and reads a large history."""
WAITING_BYTES_MAX: Final = 64 * 1024 * 1024
"""What a worker has not taken yet; it takes 100 MB/s when it runs."""
LAG_BYTES: Final = 8 * 1024 * 1024
"""What waits for a worker that lives, above which publishers are slowed down; far below the bound
at which it is replaced."""
DEAF_S: Final = 1.0
"""A worker that has said nothing for so long slows nobody down any more: it may hang."""
KILLED_WITHIN_S: Final = 5.0
"""The kernel closes its sockets and frees its memory, some 0.1 s for 20,000 streams."""

AT_FIRST: Final = Heartbeat(0, 0.0, 0)


@dataclass(eq=False)
class WorkerProcess:
    """One process."""

    number: int
    process: subprocess.Popen[bytes]
    link: Link
    requests: trio.Nursery = field(repr=False)
    """For what it has asked for and waits for."""
    alive: Heartbeat = AT_FIRST
    """What it last said of itself."""
    listening: bool = False
    """Whether it takes connections."""
    silent_s: float = 0.0
    under_way: int = 0
    """How many requests it waits for."""

    @property
    def pressure(self) -> float:
        """How far publishers are ahead of it while it lives, and of its clients."""
        if not self.alive.clients or self.silent_s > DEAF_S:
            return 0.0
        lag_bytes = max(0, self.link.waiting_bytes - LAG_BYTES)
        return max(self.alive.pressure, lag_bytes / WAITING_BYTES_MAX)

    def shown(self) -> dict[str, object]:
        """Return how it stands, ready for JSON."""
        return {
            "number": self.number,
            "pid": self.process.pid,
            "state": "serving" if self.listening else "starting",
            "clients": self.alive.clients,
            "pressure": round(self.pressure, 3),
        }

    async def watch(self) -> None:
        """Raise `WorkerLost` when it hangs, or does not take what it is told."""
        last = trio.current_time()
        while True:
            await trio.sleep(LOOK_EVERY_S)
            now = trio.current_time()
            self.silent_s += min(now - last, 2 * LOOK_EVERY_S)
            last = now
            most_s = SILENT_S_MAX if self.listening else STARTS_WITHIN_S
            if self.silent_s > most_s:
                raise WorkerLost(f"web worker {self.number} has said nothing for {most_s:g} s")
            if self.link.waiting_bytes > WAITING_BYTES_MAX:
                raise WorkerLost(f"web worker {self.number} does not take what it is told")


def spawn(
    number: int, listeners: list[socket.socket]
) -> tuple[subprocess.Popen[bytes], trio.SocketStream]:
    """Return a process that begins now, and what is said to it and by it.

    It inherits the sockets on which it listens, and ends with this process.
    """
    ours, theirs = socket.socketpair()
    inherited = [theirs.fileno(), *(one.fileno() for one in listeners)]
    with theirs:
        command = [sys.executable, "-m", "noti.web_workers", *map(str, (number, *inherited))]
        # Not in a thread, which the child would take for its parent.
        process = subprocess.Popen(  # noqa: S603 - our own
            dying_with_us(*command), pass_fds=inherited, stdin=subprocess.DEVNULL
        )
    return process, trio.SocketStream(trio.socket.from_stdlib_socket(ours))


async def exited(process: subprocess.Popen[bytes]) -> None:
    """Return when a process has ended."""
    if process.returncode is not None:
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    process.wait()


async def kill(process: subprocess.Popen[bytes]) -> None:
    """Return when a process has ended at once, or after `KILLED_WITHIN_S`; shielded so long."""
    process.kill()
    with trio.move_on_after(KILLED_WITHIN_S, shield=True):
        await exited(process)
