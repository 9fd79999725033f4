"""Runs something in namespaces of its own, where it may make networks and mounts; or says why not.

Everything that is made in there, processes, bridges and mounts, ends with the first process in it,
also when that gets kill -9: the kernel takes it all away. Nothing outside is touched, so that any
number of rehearsals may run at one time.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from noti.die_with_parent import dying_with_us

PROGRAMS = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}

TRIAL = """
set -e
ip link add trial type bridge
ip link add veth0 type veth peer name veth1
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc
"""
"""What a rehearsal does, and what a kernel or a container may forbid."""

WAIT_S = 30


def _unshare() -> list[str]:
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    new = ["--net", "--mount", "--uts", "--pid", "--mount-proc"]
    return ["unshare", *as_root, *new, "--fork", "--kill-child"]


def obstacle() -> str | None:
    """Return why a rehearsal cannot run on this machine; None when it can."""
    if sys.platform != "linux":
        return "it needs Linux"
    for program, package in PROGRAMS.items():
        if shutil.which(program) is None:
            return f"it needs `{program}`: apt-get install {package}"
    trial = [*_unshare(), "sh", "-c", TRIAL]
    try:
        tried = subprocess.run(trial, capture_output=True, text=True, timeout=WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        return "making a namespace takes too long"
    if tried.returncode == 0:
        return None
    said = " ".join(tried.stderr.split()) or f"exit status {tried.returncode}"
    return f"this machine does not let us make namespaces with networks and mounts ({said})"


def run_inside(command: Sequence[str]) -> int:
    """Run a command as the first process of new namespaces; return its exit status.

    SIGTERM and SIGINT are passed on to it, as `unshare` keeps them to itself. Main thread only.
    """
    unshare = shutil.which("unshare")
    assert unshare is not None, "asked for by `obstacle`"
    tied = dying_with_us(unshare, *_unshare()[1:], *command)
    with subprocess.Popen(tied, start_new_session=True) as process:

        def pass_on(number: int, _frame: object) -> None:
            for child in _children_of(process.pid):
                os.kill(child, number)

        before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _children_of(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        ]
    except FileNotFoundError:
        return []
