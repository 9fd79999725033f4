"""The network between pods, and the sandbox that each pod's processes run in."""

import itertools
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

GATEWAY = "10.42.0.1"
"""The bridge; DNS, NATS, the API server and the proxy are here."""
NETWORK_BITS = 16
BRIDGE = "pods"
READY_S_MAX = 20.0


async def run(*command: str) -> None:
    """Run a short command; raises `AssertionError` with what it said when it fails."""
    ended = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    said = (ended.stdout + ended.stderr).decode(errors="replace")
    assert ended.returncode == 0, f"{' '.join(command)}: {said}"


class Network:
    """One bridge, and an address for each new pod, never the same again."""

    def __init__(self) -> None:
        self._hosts = itertools.count(10)
        self._links = itertools.count(1)

    async def open(self) -> None:
        """Make the bridge in the namespace that this process is in."""
        await run("ip", "link", "set", "lo", "up")
        await run("ip", "link", "add", BRIDGE, "type", "bridge")
        await run("ip", "address", "add", f"{GATEWAY}/{NETWORK_BITS}", "dev", BRIDGE)
        await run("ip", "link", "set", BRIDGE, "up")

    def next_address(self) -> str:
        """Return an address that nobody has had."""
        return f"10.42.1.{next(self._hosts)}"

    async def connect(self, process: int, address: str) -> None:
        """Put a network card with this address into the namespace of a process."""
        link = f"veth{next(self._links)}"
        peer = ["peer", "name", "eth0", "netns", str(process)]
        await run("ip", "link", "add", link, "type", "veth", *peer)
        await run("ip", "link", "set", link, "master", BRIDGE, "up")
        inside = ["nsenter", "--target", str(process), "--net", "ip"]
        await run(*inside, "link", "set", "lo", "up")
        await run(*inside, "address", "add", f"{address}/{NETWORK_BITS}", "dev", "eth0")
        await run(*inside, "link", "set", "eth0", "up")
        await run(*inside, "route", "add", "default", "via", GATEWAY)


@dataclass(frozen=True)
class Mount:
    """A directory of this machine that a container sees somewhere."""

    source: Path
    target: str
    read_only: bool = False


class Sandbox:
    """Namespaces of one pod, held by a process that does nothing: Kubernetes calls it `pause`."""

    def __init__(self, hostname: str, mounts: Sequence[Mount], resolver: str) -> None:
        self._script = _script(hostname, mounts, resolver)
        self._process: trio.Process | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def open(self) -> None:
        """Make it; returns when processes can be put into it."""
        self._process = await trio.lowlevel.open_process(
            ["unshare", "--net", "--mount", "--uts", "sh", "-c", self._script],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        with trio.fail_after(READY_S_MAX):
            assert await self._process.stdout.receive_some() == b"ready\n", "a mount failed, above"

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs `command` in here."""
        target = ["--target", str(self.pid)]
        return [*_NSENTER, *target, "--net", "--mount", "--uts", "--wd=/", *command]

    async def close(self) -> None:
        """Let the namespaces go, with their network cards and mounts."""
        if self._process is not None:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()


_NSENTER = [shutil.which("nsenter") or "nsenter"]


def _script(hostname: str, mounts: Sequence[Mount], resolver: str) -> str:
    """Return the commands that make a pod's file system out of this machine's.

    A directory that a container expects and this machine does not have is made in a layer over its
    parent at the root, which only this pod sees. The rest is read-only, as the chart wants it.
    """
    missing = [mount.target for mount in mounts if not Path(mount.target).exists()]
    layered = sorted({"etc", *(Path(target).parts[1] for target in missing)} - {"run"})
    lines = ["set -e", f"hostname {hostname}", "mount -t tmpfs tmpfs /run", "mkdir /run/layers"]
    for top in layered:
        upper, work = f"/run/layers/{top}", f"/run/layers/{top}-work"
        options = f"lowerdir=/{top},upperdir={upper},workdir={work}"
        lines += [f"mkdir {upper} {work}", f"mount -t overlay overlay -o {options} /{top}"]
    lines += ["rm -f /etc/resolv.conf", f"printf '{resolver}' >/etc/resolv.conf"]
    for mount in mounts:
        lines += [f"mkdir -p {mount.target}", f"mount --bind '{mount.source}' {mount.target}"]
        if mount.read_only:
            lines.append(f"mount -o remount,bind,ro {mount.target}")
    lines += [f"mount -o remount,ro /{top}" for top in layered]
    lines += ["mount -o remount,bind,ro /", "echo ready", "exec sleep infinity"]
    return "\n".join(lines)
