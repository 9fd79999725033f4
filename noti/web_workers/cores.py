"""How many cores this process may use, and so how many web workers a node has."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

CGROUP: Final = Path("/sys/fs/cgroup/cpu.max")
"""`max 100000`, or how many microseconds of that period: the limit of a container (cgroup v2)."""

FEW: Final = 2
"""With so many cores, a node and its streams in one process are as fast, and smaller."""


def cores(limit_file: Path = CGROUP) -> int:
    """Return how many cores this process may use, at least 1."""
    usable = len(os.sched_getaffinity(0))
    with suppress(OSError, ValueError):
        quota, period = limit_file.read_text().split()
        if quota != "max":
            usable = min(usable, max(1, int(quota) // int(period)))
    return usable


def worker_count(wanted: int | Literal["auto"] | None, cores: int) -> int:
    """Return how many web workers a node has; 0 means that it serves browsers itself."""
    if wanted is None:
        return 0 if cores <= FEW else cores - 1
    if wanted == "auto":
        return max(1, cores - 1)
    return wanted
