"""What the measured server costs, as the kernel tells it.

Enters: process ids. Leaves: bytes and CPU seconds.
Never: a figure of a process that is gone. Linux only.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from noti.errors import LocalError


def resident_bytes(pids: Iterable[int]) -> int:
    """Return the memory that these processes hold resident. Raises `LocalError`."""
    return sum(_resident_bytes(pid) for pid in pids)


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU time that these processes used so far. Raises `LocalError`."""
    ticks = 0
    for pid in pids:
        # The name of a program, in parentheses, may hold spaces; user and system time follow it.
        fields = _read(pid, "stat").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and its children, as of now."""
    children = _read(pid, f"task/{pid}/children").split()
    return [pid, *(int(child) for child in children)]


def _resident_bytes(pid: int) -> int:
    for line in _read(pid, "status").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise LocalError(f"process {pid} has no memory any more")


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        raise LocalError(f"there is no process {pid} to look at") from None
