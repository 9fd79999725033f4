"""Networks of the nodes: each has its own, joined by a bridge, where packets can be made to vanish.

Enters: nodes, pairs that shall not hear each other. Leaves: the command prefix that puts a process
into its network. Never: anything outside the namespaces that this process is in.

A cut is silent, as a broken switch is: whoever sends gets no error, as his packets go to a hardware
address that nobody has. This needs no packet filter, only `ip`.
"""

import itertools
import shutil
import subprocess

import trio

from tests.interop.rehearsal.machines import GATEWAY, Network, run

NOWHERE = "02:00:00:00:de:ad"
"""A hardware address, locally administered, of no card."""

__all__ = ["GATEWAY", "Machine", "Network", "small_disk", "small_disk_full"]


class Machine:
    """One node's network, held by a process that does nothing."""

    def __init__(self, network: Network) -> None:
        self.address = network.next_address()
        self._network = network
        self._holder: trio.Process | None = None

    async def open(self) -> None:
        """Make it; it goes when the namespaces around it do."""
        self._holder = await trio.lowlevel.open_process(
            ["unshare", "--net", "sh", "-c", "echo; exec sleep infinity"],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._holder.stdout is not None
        await self._holder.stdout.receive_some()  # now it is in there
        await self._network.connect(self._holder.pid, self.address)

    def enter(self) -> list[str]:
        """Return what comes before a command that shall run in here."""
        assert self._holder is not None
        nsenter = shutil.which("nsenter")
        assert nsenter is not None, "asked for by `obstacle`"
        return [nsenter, "--target", str(self._holder.pid), "--net"]

    async def cut(self, other: "Machine") -> None:
        """Let no packet from here reach another one."""
        entry = [other.address, "lladdr", NOWHERE, "nud", "permanent", "dev", "eth0"]
        await run(*self.enter(), "ip", "neighbour", "replace", *entry)

    async def mend(self, other: "Machine") -> None:
        """Undo `cut`."""
        entry = [other.address, "lladdr", NOWHERE, "dev", "eth0"]
        await run(*self.enter(), "ip", "neighbour", "del", *entry)

    async def close(self) -> None:
        """Let it go."""
        if self._holder is not None:
            self._holder.kill()
            await self._holder.wait()


DISK_BYTES = 1024 * 1024 * 1024
"""What the small disk can take when it is not made smaller."""


async def small_disk(directory: str) -> None:
    """Mount a disk of its own at a directory."""
    await run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", directory)


async def small_disk_full(directory: str, *, full: bool) -> None:
    """Leave no block free on the small disk; or as many as there were."""
    if not full:
        await run("mount", "-o", f"remount,size={DISK_BYTES}", directory)
        return
    usage = shutil.disk_usage(directory)
    for spare in itertools.count(0, 64 * 1024):  # the node writes meanwhile
        if spare > 8 * 1024 * 1024:
            raise AssertionError("the small disk does not become full")
        try:
            await run("mount", "-o", f"remount,size={usage.used + spare}", directory)
        except AssertionError:
            usage = shutil.disk_usage(directory)
        else:
            return
